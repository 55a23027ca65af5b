// SPDX-License-Identifier: Apache-2.0
#include "device/i440fx.h"

#include <gtest/gtest.h>

#include "device/fakes.h"
#include "device/piix3.h"
#include "device/piix4_pm.h"

namespace lodge {
namespace {

constexpr std::uint64_t kRom = 0x40000;

class I440FxTest : public testing::Test {
 protected:
  I440FxTest() {
    for (std::uint64_t at = 0; at < kRom; ++at) {
      memory_->deviceView()[memory_->romOffset() + at] = static_cast<std::byte>(at >> 12);
    }
    memory_->setMapObserver([this] { ++changes_; });
  }
  int byteAt(std::uint64_t gpa) {
    std::uint8_t value = 0;
    return memory_->readObject(Gpa{gpa}, value) ? value : -1;
  }
  bool writable(std::uint64_t gpa) { return memory_->writableOffsetOf(Gpa{gpa}) != GuestMemory::kNoOffset; }

  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(16_MiB, {.rom = kRom, .video = 0}));
  I440Fx bridge_{*memory_, kRom};
  int changes_ = 0;
};

TEST_F(I440FxTest, AfterResetTheRomIsReadBelow1MiB) {
  EXPECT_EQ(byteAt(0xfffff), 0x3f);
  EXPECT_EQ(byteAt(0xe0000), 0x20);
  EXPECT_EQ(byteAt(0xdffff), -1);
  EXPECT_EQ(byteAt(0xa0000), -1);
  EXPECT_EQ(byteAt(0x9ffff), 0);
  EXPECT_FALSE(writable(0xfffff));
  EXPECT_TRUE(writable(0x9ffff));
}

TEST_F(I440FxTest, PamWritesToRamWhileTheRomIsRead) {
  bridge_.shadow().write(0x30000, 4, 0x11223344);  // writes disabled: nothing
  bridge_.writeConfig(0x59, 1, 0x20);
  bridge_.shadow().write(0x30000, 4, 0x55667788);
  EXPECT_EQ(byteAt(0xf0000), 0x30);
  bridge_.writeConfig(0x59, 1, 0x30);
  EXPECT_EQ(byteAt(0xf0000), 0x88);
  EXPECT_EQ(byteAt(0xf0003), 0x55);
  EXPECT_TRUE(writable(0xf0000));
  EXPECT_EQ(changes_, 2);
}

TEST_F(I440FxTest, ReadOnlyShadowTakesNoStores) {
  bridge_.writeConfig(0x5e, 1, 0x13);  // e0000: both; e4000: read RAM only
  EXPECT_TRUE(writable(0xe0000));
  EXPECT_FALSE(writable(0xe4000));
  EXPECT_EQ(byteAt(0xe4000), 0);
  EXPECT_EQ(byteAt(0xe8000), 0x28);
  EXPECT_EQ(memory_->span(Gpa{0xe0000}, 0x4000), memory_->deviceView() + 0xe0000);
  EXPECT_EQ(memory_->span(Gpa{0xe0000}, 0x4001), nullptr);
  EXPECT_EQ(memory_->span(Gpa{0x9f000}, 0x2000), nullptr);
}

TEST_F(I440FxTest, ResetShowsTheRomAgain) {
  bridge_.writeConfig(0x59, 4, 0x33333330);
  bridge_.writeConfig(0x72, 1, 0x4a);
  EXPECT_EQ(byteAt(0xf0000), 0);
  bridge_.reset();
  EXPECT_EQ(byteAt(0xf0000), 0x30);
  EXPECT_EQ(bridge_.readConfig(0x72, 1), 2u);
  EXPECT_EQ(bridge_.readConfig(0x59, 4), 0u);
  EXPECT_EQ(bridge_.readConfig(0, 4), 0x12378086u);
}

TEST_F(I440FxTest, SmramIsRamWhileItIsOpen) {
  ASSERT_LT(byteAt(0xa0000), 0);
  bridge_.writeConfig(0x72, 1, 0x42);
  EXPECT_LT(byteAt(0xa0000), 0) << "not enabled";
  bridge_.writeConfig(0x72, 1, 0x4a);
  EXPECT_EQ(byteAt(0xa0000), 0);
  EXPECT_TRUE(writable(0xbffff));
  EXPECT_FALSE(writable(0xc0000));
  ASSERT_TRUE(memory_->writeObject(Gpa{0xa8000}, std::uint8_t{0x5a}));
  bridge_.writeConfig(0x72, 1, 0x0a);
  EXPECT_LT(byteAt(0xa8000), 0) << "the display's again";
  bridge_.writeConfig(0x72, 1, 0x4a);
  EXPECT_EQ(byteAt(0xa8000), 0x5a);
  bridge_.writeConfig(0x72, 1, 0x5a);
  EXPECT_EQ(bridge_.readConfig(0x72, 1), 0x1au) << "locked, and closed by that";
  bridge_.writeConfig(0x72, 1, 0x4a);
  EXPECT_EQ(bridge_.readConfig(0x72, 1), 0x1au);
  EXPECT_LT(byteAt(0xa8000), 0);
  bridge_.reset();
  EXPECT_EQ(bridge_.readConfig(0x72, 1), 2u);
  bridge_.writeConfig(0x72, 1, 0x4a);
  EXPECT_EQ(byteAt(0xa8000), 0x5a);
}

TEST_F(I440FxTest, TheRomAtTheTopOf4GiBIsReadOnly) {
  memory_->mapRegion(0, Gpa{4_GiB - kRom}, memory_->romOffset(), kRom);
  EXPECT_EQ(byteAt(0xfffff000), 0x3f);
  EXPECT_EQ(byteAt(0xfffbffff), -1);
  EXPECT_EQ(memory_->span(Gpa{0xfffff000}, 16), nullptr);
  std::uint8_t byte = 1;
  EXPECT_FALSE(memory_->writeObject(Gpa{0xfffff000}, byte));
  memory_->discard(Gpa{0xfffff000}, kPageSize);
  EXPECT_EQ(byteAt(0xfffff000), 0x3f);
}

TEST(Piix3Test, RoutesPirqsToIsaInterrupts) {
  FakeLine irq10, irq11;
  Piix3::IsaLines lines{};
  lines[10] = &irq10;
  lines[11] = &irq11;
  Piix3 bridge(lines);
  bridge.pirq(0).set(true);
  EXPECT_FALSE(irq10.level);
  bridge.writeConfig(0x60, 4, 0x0b0b0a0a);
  EXPECT_TRUE(irq10.level);
  bridge.pirq(1).set(true);
  bridge.pirq(0).set(false);
  EXPECT_TRUE(irq10.level) << "PIRQB still asks";
  bridge.pirq(1).set(false);
  EXPECT_FALSE(irq10.level);
  bridge.pirq(2).set(true);
  EXPECT_TRUE(irq11.level);
  bridge.writeConfig(0x62, 1, 0x02);  // not an interrupt that PCI may have
  EXPECT_FALSE(irq11.level);
  bridge.reset();
  EXPECT_EQ(bridge.readConfig(0x60, 4), 0x80808080u);
}

TEST(Piix4PmTest, DecodesWhereFirmwarePutsIt) {
  struct Registers : IoDevice {
    std::uint64_t read(std::uint64_t offset, unsigned) override { return offset + 1; }
    void write(std::uint64_t, unsigned, std::uint64_t) override {}
  } registers;
  IoBus ports("port I/O");
  {
    Piix4Pm pm(ports, registers, 0x600);
    EXPECT_EQ(pm.readConfig(0x58, 4), 0x02000000u) << "no SMI handler is to be installed";
    pm.writeConfig(0x40, 4, 0xb001);
    EXPECT_EQ(ports.read(0xb008, 1), 0xffu);
    pm.writeConfig(0x80, 1, 1);
    EXPECT_EQ(ports.read(0xb008, 1), 9u);
    pm.writeConfig(0x40, 4, 0xc041);
    EXPECT_EQ(ports.read(0xb008, 1), 0xffu);
    EXPECT_EQ(ports.read(0xc048, 1), 9u);
    pm.apm().write(0, 2, 0x1234);
    EXPECT_EQ(pm.apm().read(1, 1), 0x12u);
    pm.reset();
    EXPECT_EQ(ports.read(0xc048, 1), 0xffu);
    pm.writeConfig(0x40, 2, 0x1000);
    pm.writeConfig(0x80, 1, 1);
  }
  EXPECT_EQ(ports.read(0x1008, 1), 0xffu);
}

}  // namespace
}  // namespace lodge
