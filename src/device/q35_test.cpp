// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <optional>

#include "base/fake_clock.h"
#include "device/fakes.h"
#include "device/ich9_lpc.h"
#include "device/q35_mch.h"

namespace lodge {
namespace {

class Q35Test : public testing::Test {
 protected:
  bool reachable(std::uint64_t gpa) { return memory_->isRam(Gpa{gpa}); }

  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(64_MiB, {.rom = 0x40000, .video = 0}));
  std::optional<std::uint64_t> express_;
  unsigned expressBuses_ = 0;
  Q35Mch mch_{*memory_, 0x40000, true, [this](std::optional<std::uint64_t> base, unsigned buses) {
                express_ = base;
                expressBuses_ = buses;
              }};
};

TEST_F(Q35Test, PciExpressConfigurationSpaceLiesWhereFirmwarePutsIt) {
  mch_.writeConfig(0x64, 4, 0);
  mch_.writeConfig(0x60, 4, 0xe0000001);
  EXPECT_EQ(express_, 0xe000'0000u);
  EXPECT_EQ(expressBuses_, 256u);
  mch_.writeConfig(0x60, 4, 0xe0000000);
  EXPECT_EQ(express_, std::nullopt);
  mch_.writeConfig(0x60, 4, 0xb4000003);  // 128 MiB
  EXPECT_EQ(express_, 0xb000'0000u);
  EXPECT_EQ(expressBuses_, 128u);
  mch_.writeConfig(0x60, 4, 0xb0000007);  // a length that does not exist
  EXPECT_EQ(express_, std::nullopt);
  mch_.writeConfig(0x60, 4, 0xb0000001);
  mch_.reset();
  EXPECT_EQ(express_, std::nullopt);
}

TEST_F(Q35Test, TsegIsClosedByItsEnablesAndStaysSoOnceLocked) {
  EXPECT_EQ(mch_.readConfig(0x50, 2), 16u);
  mch_.writeConfig(0x50, 2, 0xffff);
  EXPECT_EQ(mch_.readConfig(0x50, 2), 16u);
  mch_.writeConfig(0x9e, 1, 0x03);  // 2 MiB
  EXPECT_TRUE(reachable(64_MiB - 1));
  mch_.writeConfig(0x9d, 1, 0x08);
  EXPECT_FALSE(reachable(64_MiB - 1));
  EXPECT_FALSE(reachable(62_MiB));
  EXPECT_TRUE(reachable(62_MiB - 1));
  mch_.writeConfig(0x9e, 1, 0x02);
  EXPECT_TRUE(reachable(62_MiB));
  mch_.writeConfig(0x9e, 1, 0x07);
  EXPECT_TRUE(reachable(48_MiB - 1));
  EXPECT_FALSE(reachable(48_MiB));
  mch_.writeConfig(0x9d, 1, 0x58);  // open and lock: locked means closed
  EXPECT_EQ(mch_.readConfig(0x9d, 1) & 0x58, 0x18u);
  mch_.writeConfig(0x9e, 1, 0);
  mch_.writeConfig(0x9d, 1, 0);
  EXPECT_FALSE(reachable(48_MiB));
  EXPECT_EQ(mch_.readConfig(0x9e, 1) & 7, 7u);
  mch_.reset();
  EXPECT_TRUE(reachable(48_MiB));
}

TEST_F(Q35Test, WithoutSmmThereIsNoTseg) {
  Q35Mch plain(*memory_, 0x40000, false, [](std::optional<std::uint64_t>, unsigned) {});
  plain.writeConfig(0x9e, 1, 0x01);
  plain.writeConfig(0x9d, 1, 0x08);
  EXPECT_TRUE(reachable(64_MiB - 1));
}

TEST_F(Q35Test, PamIsAtNinety) {
  EXPECT_EQ(memory_->writableOffsetOf(Gpa{0xf0000}), GuestMemory::kNoOffset);
  mch_.writeConfig(0x90, 1, 0x30);
  EXPECT_EQ(memory_->writableOffsetOf(Gpa{0xf0000}), 0xf0000u);
}

class Ich9Test : public testing::Test {
 protected:
  FakeClock clock_;
  FakeLine sci_, irq10_;
  AcpiPm pm_{clock_, sci_, [] {}};
  Piix3::IsaLines lines_{};
};

TEST_F(Ich9Test, SmiEnableIsLockedUntilAReset) {
  pm_.enableSmi(true);
  Ich9Lpc lpc(lines_, pm_);
  EXPECT_EQ(pm_.read(0x30, 4), 0u);
  pm_.write(0x30, 4, 0x21);
  EXPECT_TRUE(pm_.apmRaisesSmi());
  lpc.writeConfig(0xa0, 2, 0x10);
  pm_.write(0x30, 4, 0);
  EXPECT_EQ(pm_.read(0x30, 4), 1u);
  EXPECT_FALSE(pm_.apmRaisesSmi());
  lpc.writeConfig(0xa0, 2, 0);
  EXPECT_EQ(lpc.readConfig(0xa0, 1), 0x10u);
  lpc.reset();
  EXPECT_EQ(lpc.readConfig(0xa0, 1), 0u);
  pm_.write(0x30, 4, 0);
  EXPECT_EQ(pm_.read(0x30, 4), 0u);
}

TEST_F(Ich9Test, WithoutSmmFirmwareFindsItsHandlerInstalled) {
  pm_.enableSmi(false);
  EXPECT_EQ(pm_.read(0x30, 4), 0x20u);
  pm_.write(0x30, 4, 0x21);
  EXPECT_FALSE(pm_.apmRaisesSmi());
  pm_.reset();
  EXPECT_EQ(pm_.read(0x30, 4), 0x20u);
}

TEST_F(Ich9Test, RoutesPciInterruptsAsItsRegistersSay) {
  lines_[10] = &irq10_;
  Ich9Lpc lpc(lines_, pm_);
  lpc.pirq(2).set(true);
  EXPECT_FALSE(irq10_.level);
  lpc.writeConfig(0x62, 1, 10);
  EXPECT_TRUE(irq10_.level);
  EXPECT_EQ(lpc.readConfig(0, 4), 0x29188086u);
}

TEST_F(Ich9Test, AnApmCommandIsHeardAtTheFirstPortOnly) {
  int commands = 0;
  Ich9Apm apm([&] { ++commands; });
  apm.write(1, 1, 0x55);
  EXPECT_EQ(commands, 0);
  apm.write(0, 1, 0xaa);
  EXPECT_EQ(commands, 1);
  EXPECT_EQ(apm.read(0, 2), 0x55aau);
  EXPECT_EQ(apm.read(1, 1), 0x55u);
}

}  // namespace
}  // namespace lodge
