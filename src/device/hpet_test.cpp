// SPDX-License-Identifier: Apache-2.0
// Behaviour as in the IA-PC HPET Specification 1.0a.
#include "device/hpet.h"

#include <gtest/gtest.h>

#include "base/fake_clock.h"
#include "base/units.h"
#include "device/fakes.h"
#include "device/interrupt_router.h"

namespace lodge {
namespace {

constexpr Nanoseconds kMillisecond = 1'000'000;
constexpr std::uint64_t kTicks = 100'000;  // a millisecond of them

class HpetTest : public testing::Test {
 protected:
  std::uint64_t get(std::uint64_t offset) { return hpet.read(offset, 8); }
  void put(std::uint64_t offset, std::uint64_t value) { hpet.write(offset, 8, value); }
  static std::uint64_t timer(unsigned n) { return 0x100 + 0x20 * n; }
  static std::uint64_t comparator(unsigned n) { return timer(n) + 8; }

  FakeClock clock;
  FakeLine irq0, irq8, routes[Hpet::kRoutes];
  int legacy = -1;
  Hpet hpet{{.timers = clock,
             .irq0 = irq0,
             .irq8 = irq8,
             .routes = {&routes[0], &routes[1], &routes[2], &routes[3]},
             .onLegacyReplacement = [this](bool on) { legacy = on; }}};
};

TEST_F(HpetTest, CapabilitiesSayWhatThereIs) {
  std::uint64_t id = get(0);
  EXPECT_EQ(id >> 32, 10'000'000u) << "femtoseconds a tick";
  EXPECT_EQ(id >> 16 & 0xffff, 0x8086u);
  EXPECT_EQ(id >> 8 & 0x1f, 2u) << "number of the last timer";
  EXPECT_EQ(id >> 13 & 1, 1u);
  EXPECT_EQ(id >> 15 & 1, 1u);
  EXPECT_NE(id & 0xff, 0u);
  EXPECT_EQ(get(timer(0)) >> 32, 0xf0'0000u);
  EXPECT_EQ(hpet.read(4, 4), 10'000'000u);
  put(0, 0);
  EXPECT_EQ(get(0), id);
}

TEST_F(HpetTest, TheCounterRunsWhileEnabledAndIsSetWhileHalted) {
  clock.advance(kMillisecond);
  EXPECT_EQ(get(0xf0), 0u);
  put(0x10, 1);
  clock.advance(kMillisecond);
  EXPECT_EQ(get(0xf0), kTicks);
  put(0xf0, 5);
  EXPECT_EQ(get(0xf0), kTicks);
  put(0x10, 0);
  clock.advance(kMillisecond);
  EXPECT_EQ(get(0xf0), kTicks);
  put(0xf0, 0x1'0000'0000 - 1);
  put(0x10, 1);
  clock.advance(2 * Hpet::kTick);
  EXPECT_EQ(get(0xf0), 0x1'0000'0001u);
  EXPECT_EQ(hpet.read(0xf4, 4), 1u);
}

TEST_F(HpetTest, AOneShotTimerMatchesOnce) {
  put(0x10, 1);
  put(timer(1), 1 << 2 | 21 << 9);
  put(comparator(1), 3 * kTicks);
  clock.advance(3 * kMillisecond - 1);
  EXPECT_EQ(routes[1].rises, 0);
  clock.advance(1);
  EXPECT_EQ(routes[1].rises, 1);
  clock.advance(1000 * kMillisecond);
  EXPECT_EQ(routes[1].rises, 1);
  put(comparator(1), get(0xf0) + kTicks);
  clock.advance(kMillisecond);
  EXPECT_EQ(routes[1].rises, 2);
}

TEST_F(HpetTest, A32BitTimerMatchesAtEachTurn) {
  put(0xf0, 0xffff'0000);
  put(0x10, 1);
  put(timer(0), 1 << 2 | 1 << 8 | 20 << 9);
  put(comparator(0), 0xdead'beef'0000'0010);
  EXPECT_EQ(get(comparator(0)), 0x10u);
  clock.advance((0x10000 + 0x10) * Hpet::kTick);
  EXPECT_EQ(routes[0].rises, 1);
  clock.advance((1ll << 32) * Hpet::kTick - 1);
  EXPECT_EQ(routes[0].rises, 1);
  clock.advance(1);
  EXPECT_EQ(routes[0].rises, 2);
}

TEST_F(HpetTest, APeriodicTimerTakesAStartAndAPeriod) {
  put(0x10, 3);
  EXPECT_EQ(legacy, 1);
  put(timer(0), 1 << 2 | 1 << 3 | 1 << 6);
  put(comparator(0), 5 * kTicks);  // VAL_SET: the first match
  EXPECT_EQ(get(timer(0)) >> 6 & 1, 0u);
  put(comparator(0), kTicks);  // then the period
  EXPECT_EQ(get(comparator(0)), 5 * kTicks);
  clock.advance(5 * kMillisecond);
  EXPECT_EQ(irq0.rises, 1);
  EXPECT_EQ(get(comparator(0)), 6 * kTicks);
  for (int n = 0; n < 10; ++n) clock.advance(kMillisecond);
  EXPECT_EQ(irq0.rises, 11);
  put(0x10, 0);
  clock.advance(10 * kMillisecond);
  EXPECT_EQ(irq0.rises, 11);
  EXPECT_EQ(legacy, 0);
}

TEST_F(HpetTest, LegacyReplacementGoesBeforeTheRoute) {
  put(timer(0), 1 << 2 | 20 << 9);
  put(timer(1), 1 << 2 | 20 << 9);
  put(timer(2), 1 << 2 | 22 << 9);
  for (unsigned n = 0; n < 3; ++n) put(comparator(n), kTicks);
  put(0x10, 3);
  clock.advance(kMillisecond);
  EXPECT_EQ(irq0.rises, 1);
  EXPECT_EQ(irq8.rises, 1);
  EXPECT_EQ(routes[0].rises, 0);
  EXPECT_EQ(routes[2].rises, 1);
}

TEST_F(HpetTest, ALevelTriggeredTimerAsksUntilItsStatusIsCleared) {
  put(timer(2), 1 << 1 | 1 << 2 | 23 << 9);
  put(0x10, 1);
  put(comparator(2), kTicks);
  clock.advance(kMillisecond);
  EXPECT_TRUE(routes[3].level);
  EXPECT_EQ(get(0x20), 4u);
  put(0x20, 3);
  EXPECT_TRUE(routes[3].level);
  put(0x20, 4);
  EXPECT_FALSE(routes[3].level);
  EXPECT_EQ(get(0x20), 0u);
}

TEST_F(HpetTest, WithoutItsInterruptATimerSetsItsStatusOnly) {
  put(timer(0), 1 << 1 | 23 << 9);
  put(0x10, 1);
  put(comparator(0), kTicks);
  clock.advance(2 * kMillisecond);
  EXPECT_EQ(get(0x20), 1u);
  EXPECT_FALSE(routes[3].level);
  put(timer(0), 1 << 1 | 1 << 2 | 23 << 9);
  EXPECT_TRUE(routes[3].level);
}

TEST_F(HpetTest, AnInputThatItHasNotIsNotTaken) {
  put(timer(0), 1 << 2 | 22 << 9);
  put(timer(0), 1 << 2 | 5 << 9);
  EXPECT_EQ(get(timer(0)) >> 9 & 0x1f, 22u);
}

TEST_F(HpetTest, AComparatorThatIsJustPastMatchesAtOnceOneOfTheFutureLater) {
  put(0x10, 1);
  clock.advance(20 * kMillisecond);
  put(timer(0), 1 << 2 | 20 << 9);
  EXPECT_EQ(routes[0].rises, 0);
  put(comparator(0), 19 * kTicks);
  clock.advance(1);
  EXPECT_EQ(routes[0].rises, 1);
  put(comparator(0), 5 * kTicks);  // of the next turn
  clock.advance(kMillisecond);
  EXPECT_EQ(routes[0].rises, 1);
}

TEST_F(HpetTest, InterruptsComeAtABoundedRate) {
  put(timer(0), 1 << 2 | 1 << 3 | 1 << 6 | 20 << 9);
  put(comparator(0), 1);
  put(0x10, 1);
  clock.advance(kMillisecond);
  EXPECT_LE(routes[0].rises, 21);
  EXPECT_GE(routes[0].rises, 15);
}

TEST_F(HpetTest, StateGoesToAnotherOne) {
  put(0x10, 3);
  put(timer(0), 1 << 2 | 1 << 3 | 1 << 6);
  put(comparator(0), kTicks);
  clock.advance(kMillisecond / 2);
  Hpet::State state = hpet.save();
  hpet.reset();
  EXPECT_EQ(legacy, 0);
  EXPECT_EQ(get(0x10), 0u);
  clock.advance(7 * kMillisecond);
  EXPECT_EQ(irq0.rises, 0);
  hpet.restore(state);
  EXPECT_EQ(legacy, 1);
  EXPECT_EQ(get(0xf0), kTicks / 2);
  clock.advance(kMillisecond / 2);
  EXPECT_EQ(irq0.rises, 1);
}

TEST_F(HpetTest, EveryOffsetAndSizeAnswers) {
  for (std::uint64_t offset = 0; offset < Hpet::kLength; ++offset) {
    for (unsigned size : {1u, 2u, 4u, 8u}) {
      if (offset + size > Hpet::kLength) continue;
      hpet.write(offset, size, ~0ull);
      hpet.read(offset, size);
      clock.advance(kMillisecond);
    }
  }
}

TEST(SwitchedInterrupt, OneOfTwoHasTheLine) {
  FakeLine line;
  SwitchedInterrupt both(line);
  both.first().set(true);
  EXPECT_TRUE(line.level);
  both.second().set(false);
  EXPECT_TRUE(line.level);
  both.select(true);
  EXPECT_FALSE(line.level);
  both.second().set(true);
  both.first().set(false);
  EXPECT_TRUE(line.level);
  both.select(false);
  EXPECT_FALSE(line.level);
}

}  // namespace
}  // namespace lodge
