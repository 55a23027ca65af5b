// SPDX-License-Identifier: Apache-2.0
#include "device/acpi_pm.h"

#include <gtest/gtest.h>

#include "base/fake_clock.h"
#include "device/debug_exit.h"
#include "device/fakes.h"
#include "device/pvpanic.h"
#include "device/reset_control.h"

namespace lodge {
namespace {

struct AcpiPmTest : testing::Test {
  FakeClock clock;
  FakeLine sci;
  int powerOffs = 0;
  AcpiPm pm{clock, sci, [this] { ++powerOffs; }};
};

TEST_F(AcpiPmTest, powerButtonRaisesTheInterruptWhileEnabledAndUntilCleared) {
  pm.pressPowerButton();
  EXPECT_FALSE(sci.level);
  EXPECT_EQ(pm.read(AcpiPm::kEvent, 2), 0x100u);
  pm.write(AcpiPm::kEvent + 2, 2, 0x100);
  EXPECT_TRUE(sci.level);
  pm.write(AcpiPm::kEvent, 2, 0x100);
  EXPECT_FALSE(sci.level);
  EXPECT_EQ(pm.read(AcpiPm::kEvent, 2), 0u);
}

TEST_F(AcpiPmTest, softOffNeedsTypeAndEnable) {
  pm.write(AcpiPm::kControl, 2, 5 << 10);
  EXPECT_EQ(powerOffs, 0);
  pm.write(AcpiPm::kControl, 2, 3 << 10 | 1 << 13);
  EXPECT_EQ(powerOffs, 0);
  pm.write(AcpiPm::kControl, 2, 5 << 10 | 1 << 13);
  EXPECT_EQ(powerOffs, 1);
  EXPECT_EQ(pm.read(AcpiPm::kControl, 2) & 0x2001, 1u) << "SCI_EN reads as one, SLP_EN as zero";
}

TEST_F(AcpiPmTest, softOffByByteWrites) {
  pm.write(AcpiPm::kControl + 1, 1, (5 << 10 | 1 << 13) >> 8);
  EXPECT_EQ(powerOffs, 1);
}

TEST_F(AcpiPmTest, timerCountsAt3579545HzPastFourSecondsOfHours) {
  EXPECT_EQ(pm.read(AcpiPm::kTimer, 4), 0u);
  clock.advance(kNanosecondsPerSecond);
  EXPECT_EQ(pm.read(AcpiPm::kTimer, 4), 3'579'545u);
  clock.advance(9999 * kNanosecondsPerSecond);
  EXPECT_EQ(pm.read(AcpiPm::kTimer, 4), 10000ull * 3'579'545 % (1ull << 32));
}

TEST_F(AcpiPmTest, everyOffsetAndSizeAnswers) {
  for (std::uint64_t offset = 0; offset < AcpiPm::kLength; ++offset) {
    for (unsigned size : {1u, 2u, 4u}) {
      if (offset + size > AcpiPm::kLength) continue;
      pm.write(offset, size, ~0ull);
      (void)pm.read(offset, size);
    }
  }
  pm.reset();
  EXPECT_EQ(pm.save().enable, 0);
}

TEST_F(AcpiPmTest, timerIsReadInPartsToo) {
  clock.advance(1'000'000'000'000);
  std::uint64_t whole = pm.read(AcpiPm::kTimer, 4);
  EXPECT_EQ(pm.read(AcpiPm::kTimer, 2) | pm.read(AcpiPm::kTimer + 2, 2) << 16, whole);
  EXPECT_EQ(pm.read(AcpiPm::kTimer + 3, 1), whole >> 24);
  pm.write(AcpiPm::kTimer, 4, 0);
  EXPECT_EQ(pm.read(AcpiPm::kTimer, 4), whole);
}

TEST_F(AcpiPmTest, timerStatusComesWithTheHighestBit) {
  clock.advance(600 * kNanosecondsPerSecond);
  EXPECT_EQ(pm.read(AcpiPm::kEvent, 2), 1u) << "2^31 ticks are 599.9 s";
  pm.write(AcpiPm::kEvent, 2, 1);
  EXPECT_EQ(pm.read(AcpiPm::kEvent, 2), 0u);
  pm.write(AcpiPm::kEvent + 2, 2, 1);
  EXPECT_FALSE(sci.level);
  clock.advance(600 * kNanosecondsPerSecond);
  EXPECT_TRUE(sci.level);
  pm.write(AcpiPm::kEvent, 2, 1);
  EXPECT_FALSE(sci.level);
}

TEST_F(AcpiPmTest, generalPurposeEvents) {
  pm.raiseGeneralEvent(9);
  EXPECT_FALSE(sci.level);
  pm.write(AcpiPm::kGpe0 + 2, 2, 0x200);
  EXPECT_TRUE(sci.level);
  pm.write(AcpiPm::kGpe0 + 1, 1, 0x01);
  EXPECT_EQ(pm.read(AcpiPm::kGpe0, 2), 0x200u);
  pm.write(AcpiPm::kGpe0 + 1, 1, 0x02);
  EXPECT_FALSE(sci.level);
}

TEST_F(AcpiPmTest, restoreRaisesTheInterruptAgain) {
  pm.write(AcpiPm::kEvent + 2, 2, 0x100);
  pm.pressPowerButton();
  AcpiPm::State state = pm.save();
  pm.reset();
  EXPECT_FALSE(sci.level);
  pm.restore(state);
  EXPECT_TRUE(sci.level);
}

TEST(ResetControl, resetsOnTheRisingBitOnly) {
  int resets = 0;
  ResetControl control([&] { ++resets; });
  control.write(0, 1, 2);
  EXPECT_EQ(resets, 0);
  control.write(0, 1, 6);
  control.write(0, 1, 6);
  EXPECT_EQ(resets, 1);
  EXPECT_EQ(control.read(0, 1), 6u);
}

TEST(PvPanic, passesKnownEventsOn) {
  int last = 0;
  PvPanic panic([&](std::uint8_t events) { last = events; });
  EXPECT_EQ(panic.read(0, 1), 3u);
  panic.write(0, 1, 0xfc);
  EXPECT_EQ(last, 0);
  panic.write(0, 1, 0xff);
  EXPECT_EQ(last, 3);
}

TEST(DebugExit, passesTheValueOn) {
  std::uint32_t value = 0;
  DebugExit exit([&](std::uint32_t v) { value = v; });
  exit.write(0, 4, 0x12345678);
  EXPECT_EQ(value, 0x12345678u);
}

}  // namespace
}  // namespace lodge
