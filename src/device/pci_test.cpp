// SPDX-License-Identifier: Apache-2.0
#include "device/pci.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <utility>

#include "base/units.h"

namespace lodge {
namespace {

constexpr std::uint64_t kEcam = 0xe000'0000, kWindow32 = 0xc000'0000, kWindow64 = 0x100'0000'0000;

struct Registers : IoDevice {
  std::uint64_t read(std::uint64_t offset, unsigned) override { return id << 16 | offset; }
  void write(std::uint64_t offset, unsigned, std::uint64_t value) override { last = {offset, value}; }
  std::uint64_t id = 0;
  std::pair<std::uint64_t, std::uint64_t> last{};
};

struct Line : InterruptLine {
  void set(bool value) override { level = value; }
  bool level = false;
};

struct Messages : MsiSink {
  void sendMsi(std::uint64_t address, std::uint32_t data) override { sent.emplace_back(address, data); }
  std::vector<std::pair<std::uint64_t, std::uint32_t>> sent;
};

struct ResetPort : IoDevice {
  std::uint64_t read(std::uint64_t, unsigned) override { return 0x5a; }
  void write(std::uint64_t, unsigned, std::uint64_t value) override { written = value; }
  std::uint64_t written = 0;
};

class TestFunction : public PciFunction {
 public:
  explicit TestFunction(std::uint64_t id = 1)
      : PciFunction({.vendor = 0x1af4,
                     .device = 0x1042,
                     .revision = 1,
                     .classCode = 0x018000,
                     .subsystemVendor = 0x1af4,
                     .subsystem = 2},
                    "test function") {
    memory.id = ports.id = id;
  }
  void configWritten(unsigned offset, unsigned size) override { hooks.emplace_back(offset, size); }
  std::vector<std::pair<unsigned, unsigned>> hooks;
  Registers memory, ports;
};

class PciTest : public testing::Test {
 protected:
  PciTest() {
    for (unsigned n = 0; n < 4; ++n) lineAt[n] = &line[n];
    auto made = PciHost::create({.ports = ports,
                                 .memory = memory,
                                 .msi = msi,
                                 .intx = lineAt,
                                 .ecamBase = kEcam,
                                 .window32Base = kWindow32,
                                 .window32Size = 64_MiB,
                                 .window64Base = kWindow64,
                                 .window64Size = 1_GiB,
                                 .resetControl = &resetPort});
    EXPECT_TRUE(made.ok());
    host = std::move(*made);
  }
  std::uint32_t config(unsigned slot, unsigned offset, unsigned size = 4) {
    ports.write(0xcf8, 4, 0x8000'0000 | slot << 11 | (offset & 0xfc));
    return static_cast<std::uint32_t>(ports.read(0xcfc + (offset & 3), size));
  }
  void setConfig(unsigned slot, unsigned offset, unsigned size, std::uint32_t value) {
    ports.write(0xcf8, 4, 0x8000'0000 | slot << 11 | (offset & 0xfc));
    ports.write(0xcfc + (offset & 3), size, value);
  }

  IoBus ports{"port I/O"}, memory{"memory"};
  Line line[4];
  std::array<InterruptLine*, 4> lineAt{};
  Messages msi;
  ResetPort resetPort;
  std::unique_ptr<PciHost> host;
};

TEST_F(PciTest, MechanismOneFindsTheBridgeAndNothingElse) {
  EXPECT_EQ(config(0, 0), 0x0d57'8086u);
  EXPECT_EQ(config(0, 8), 0x0600'0000u);
  EXPECT_EQ(config(0, 0x0e, 1), 0u);
  EXPECT_EQ(config(1, 0), 0xffff'ffffu);
  EXPECT_EQ(config(1, 0, 2), 0xffffu);
  ports.write(0xcf8, 4, 0x8001'0000);  // bus 1
  EXPECT_EQ(ports.read(0xcfc, 4), 0xffff'ffffu);
  ports.write(0xcf8, 4, 0x8000'0100);  // function 1
  EXPECT_EQ(ports.read(0xcfc, 4), 0xffff'ffffu);
  ports.write(0xcf8, 4, 0);  // disabled
  EXPECT_EQ(ports.read(0xcfc, 4), 0xffff'ffffu);
}

TEST_F(PciTest, AddressRegisterReadsBackAndIgnoresSmallWrites) {
  ports.write(0xcf8, 4, 0xffff'ffff);
  EXPECT_EQ(ports.read(0xcf8, 4), 0x80ff'fffcu);
  ports.write(0xcf8, 4, 0x8000'0000);
  ports.write(0xcfb, 1, 1);
  ports.write(0xcf8, 2, 0xffff);
  EXPECT_EQ(ports.read(0xcf8, 4), 0x8000'0000u);
  EXPECT_EQ(ports.read(0xcf8, 1), 0xffu);
}

TEST_F(PciTest, ResetControlInsideTheAddressRegister) {
  EXPECT_EQ(ports.read(0xcf9, 1), 0x5au);
  ports.write(0xcf9, 1, 6);
  EXPECT_EQ(resetPort.written, 6u);
}

TEST_F(PciTest, HeaderIdentityBytesAndWords) {
  TestFunction f;
  ASSERT_TRUE(host->plug(3, f).ok());
  EXPECT_EQ(config(3, 0), 0x1042'1af4u);
  EXPECT_EQ(config(3, 2, 2), 0x1042u);
  EXPECT_EQ(config(3, 1, 1), 0x1au);
  EXPECT_EQ(config(3, 1, 2), 0x421au);
  EXPECT_EQ(config(3, 8), 0x0180'0001u);
  EXPECT_EQ(config(3, 0x2c), 0x0002'1af4u);
  setConfig(3, 0, 4, 0xdead'beef);
  EXPECT_EQ(config(3, 0), 0x1042'1af4u);
  setConfig(3, 0x3c, 2, 0x55aa);
  EXPECT_EQ(config(3, 0x3c, 2), 0xaau) << "interrupt line is writable, the pin is not";
}

TEST_F(PciTest, EcamSeesTheSameSpaceAndZeroesAbove256) {
  TestFunction f;
  ASSERT_TRUE(host->plug(3, f).ok());
  std::uint64_t base = kEcam + (3 << 15);
  EXPECT_EQ(memory.read(base, 4), 0x1042'1af4u);
  EXPECT_EQ(memory.read(base, 8), 0x0000'0007'1042'1af4u) << "identity and command";
  EXPECT_EQ(memory.read(base + 0x100, 4), 0u);
  EXPECT_EQ(memory.read(base + 0xfff, 1), 0u);
  EXPECT_EQ(memory.read(base + (1 << 12), 4), 0xffff'ffffu) << "function 1";
  memory.write(base + 0x3c, 1, 0x77);
  memory.write(base + 0x100, 4, ~0u);
  EXPECT_EQ(config(3, 0x3c, 1), 0x77u);
  EXPECT_EQ(memory.read(kEcam + 1_MiB - 8, 8), ~std::uint64_t{0});
}

TEST_F(PciTest, PlugPlacesAndEnablesBars) {
  TestFunction f;
  f.addBar(0, PciFunction::BarKind::io, 64, f.ports);
  f.addBar(1, PciFunction::BarKind::memory32, 4096, f.memory);
  f.addBar(2, PciFunction::BarKind::memory64Prefetchable, 256_MiB, f.memory);
  ASSERT_TRUE(host->plug(1, f).ok());
  EXPECT_EQ(config(1, 0x10), 0xc001u);
  EXPECT_EQ(config(1, 0x14), kWindow32);
  EXPECT_EQ(config(1, 0x18), 0xcu);
  EXPECT_EQ(config(1, 0x1c), kWindow64 >> 32);
  EXPECT_EQ(config(1, 4, 2), 7u);
  EXPECT_EQ(ports.read(0xc004, 4), 0x1'0004u);
  EXPECT_EQ(memory.read(kWindow32 + 8, 4), 0x1'0008u);
  memory.write(kWindow64 + 0x100, 4, 42);
  EXPECT_EQ(f.memory.last, (std::pair<std::uint64_t, std::uint64_t>{0x100, 42}));
}

TEST_F(PciTest, SizingWhileDecodingLeavesNothingMappedThenMoves) {
  TestFunction f;
  f.addBar(0, PciFunction::BarKind::memory64, 64_KiB, f.memory);
  ASSERT_TRUE(host->plug(1, f).ok());
  EXPECT_EQ(config(1, 0x10), kWindow32 | 4) << "small 64-bit BARs go below 4 GiB";
  setConfig(1, 0x10, 4, ~0u);
  setConfig(1, 0x14, 4, ~0u);
  EXPECT_EQ(config(1, 0x10), 0xffff'0004u);
  EXPECT_EQ(config(1, 0x14), 0xffff'ffffu);
  EXPECT_EQ(memory.read(kWindow32, 4), 0xffff'ffffu);
  setConfig(1, 0x14, 4, kWindow64 >> 32);
  setConfig(1, 0x10, 4, 0x10'0000);
  EXPECT_EQ(memory.read(kWindow64 + 0x10'0010, 4), 0x1'0010u);
  setConfig(1, 4, 2, 0);
  EXPECT_EQ(memory.read(kWindow64 + 0x10'0010, 4), 0xffff'ffffu);
  setConfig(1, 4, 2, 2);
  EXPECT_EQ(memory.read(kWindow64 + 0x10'0010, 4), 0x1'0010u);
}

TEST_F(PciTest, BarsAnswerOnlyInsideTheWindows) {
  TestFunction f;
  f.addBar(0, PciFunction::BarKind::memory32, 4096, f.memory);
  f.addBar(1, PciFunction::BarKind::io, 16, f.ports);
  ASSERT_TRUE(host->plug(1, f).ok());
  for (std::uint32_t base : {0u, 0x10'0000u, 0xfee0'0000u, 0xffff'f000u}) {
    setConfig(1, 0x10, 4, base);
    EXPECT_EQ(memory.read(base, 4), 0xffff'ffffu) << std::hex << base;
  }
  setConfig(1, 0x14, 4, 0x3f8);
  EXPECT_EQ(ports.read(0x3f8, 1), 0xffu);
  setConfig(1, 0x14, 4, 0x1'2340);
  EXPECT_EQ(ports.read(0x2340, 1), 0xffu) << "an I/O BAR above 64 KiB";
}

TEST_F(PciTest, OverlapFirstOneWinsAndTheOtherFollowsWhenItLeaves) {
  TestFunction a(1), b(2);
  a.addBar(0, PciFunction::BarKind::memory32, 4096, a.memory);
  b.addBar(0, PciFunction::BarKind::memory32, 8192, b.memory);
  ASSERT_TRUE(host->plug(1, a).ok());
  ASSERT_TRUE(host->plug(2, b).ok());
  std::uint32_t first = config(1, 0x10);
  setConfig(2, 0x10, 4, first);
  EXPECT_EQ(memory.read(first, 4), 0x1'0000u);
  EXPECT_EQ(memory.read(first + 4096, 4), 0xffff'ffffu);
  setConfig(1, 4, 2, 0);
  EXPECT_EQ(memory.read(first, 4), 0x2'0000u);
  EXPECT_EQ(memory.read(first + 4096, 4), 0x2'1000u);
}

TEST_F(PciTest, PlugErrors) {
  TestFunction a, b, big;
  EXPECT_EQ(host->plug(0, a).error().kind(), ErrorKind::invalidArgument);
  EXPECT_EQ(host->plug(32, a).error().kind(), ErrorKind::invalidArgument);
  ASSERT_TRUE(host->plug(1, a).ok());
  EXPECT_EQ(host->plug(1, b).error().kind(), ErrorKind::alreadyExists);
  big.addBar(0, PciFunction::BarKind::memory32, 128_MiB, big.memory);
  EXPECT_EQ(host->plug(2, big).error().kind(), ErrorKind::outOfMemory);
}

TEST_F(PciTest, CapabilityListAndHooks) {
  TestFunction f;
  const std::uint8_t first[] = {1, 2, 3}, second[] = {4, 5}, mask[] = {0, 0xf0};
  EXPECT_EQ(f.addCapability(9, first), 0x40);
  EXPECT_EQ(f.addCapability(9, second, mask), 0x48);
  ASSERT_TRUE(host->plug(1, f).ok());
  EXPECT_EQ(config(1, 6, 2) & 0x10, 0x10u);
  EXPECT_EQ(config(1, 0x34, 1), 0x40u);
  EXPECT_EQ(config(1, 0x40), 0x0201'4809u);
  EXPECT_EQ(config(1, 0x48), 0x0504'0009u);
  f.hooks.clear();
  setConfig(1, 0x48, 4, ~0u);
  EXPECT_EQ(config(1, 0x48), 0xf504'0009u);
  EXPECT_EQ(f.hooks, (std::vector<std::pair<unsigned, unsigned>>{{0x48, 4}}));
  const std::uint8_t stored[] = {0xab};
  f.storeConfig(0x4a, stored);
  EXPECT_EQ(config(1, 0x48), 0xf5ab'0009u);
}

TEST_F(PciTest, MsixMasksPendsAndSends) {
  TestFunction f;
  f.addMsix(4, 3);
  ASSERT_TRUE(host->plug(1, f).ok());
  std::uint64_t table = config(1, 0x20);
  unsigned capability = config(1, 0x34, 1);
  EXPECT_EQ(config(1, capability), 0x0002'0011u);
  EXPECT_EQ(config(1, capability + 4), 4u);
  std::uint64_t pba = table + (config(1, capability + 8) & ~7u);
  f.signalMsix(0);
  EXPECT_TRUE(msi.sent.empty());
  EXPECT_FALSE(f.msixEnabled());
  setConfig(1, capability + 2, 2, 0x8000);
  EXPECT_TRUE(f.msixEnabled());
  f.signalMsix(1);
  EXPECT_EQ(memory.read(pba, 8), 2u) << "entries are masked after reset";
  memory.write(table + 16, 8, 0xfee0'1000);
  memory.write(table + 24, 4, 0x4041);
  EXPECT_TRUE(msi.sent.empty());
  memory.write(table + 28, 4, 0);
  ASSERT_EQ(msi.sent.size(), 1u);
  EXPECT_EQ(msi.sent[0], (std::pair<std::uint64_t, std::uint32_t>{0xfee0'1000, 0x4041}));
  EXPECT_EQ(memory.read(pba, 4), 0u);
  setConfig(1, capability + 2, 2, 0xc000);
  f.signalMsix(1);
  f.signalMsix(1);
  EXPECT_EQ(msi.sent.size(), 1u);
  setConfig(1, capability + 2, 2, 0x8000);
  EXPECT_EQ(msi.sent.size(), 2u);
  setConfig(1, 4, 2, 2);
  f.signalMsix(1);
  EXPECT_EQ(msi.sent.size(), 2u) << "no bus mastering, no message";
  setConfig(1, 4, 2, 6);
  EXPECT_EQ(msi.sent.size(), 3u);
  f.signalMsix(3);
  f.signalMsix(4000);
  memory.write(pba, 8, ~std::uint64_t{0});
  EXPECT_EQ(memory.read(pba, 8), 0u);
  EXPECT_EQ(memory.read(table + 48, 8), 0u) << "past the last entry";
  host->reset();
  EXPECT_FALSE(f.msixEnabled());
  EXPECT_EQ(memory.read(table + 28, 4), 1u);
  EXPECT_EQ(memory.read(table + 16, 8), 0u);
}

TEST_F(PciTest, MsixFullTableFits) {
  TestFunction f;
  f.addMsix(0, 2048);
  ASSERT_TRUE(host->plug(1, f).ok());
  std::uint64_t table = config(1, 0x10);
  setConfig(1, 0x42, 2, 0x8000);
  f.signalMsix(2047);
  EXPECT_EQ(memory.read(table + 2048 * 16 + 252, 4), 0x8000'0000u);
}

TEST_F(PciTest, IntxSharingSwizzleAndDisable) {
  TestFunction a, b;
  a.useIntx();
  b.useIntx();
  b.addMsix(0, 1);
  ASSERT_TRUE(host->plug(1, a).ok());
  ASSERT_TRUE(host->plug(5, b).ok());
  EXPECT_EQ(config(1, 0x3d, 1), 1u);
  a.setIntx(true);
  EXPECT_TRUE(line[1].level);
  EXPECT_EQ(config(1, 6, 2) & 8, 8u);
  b.setIntx(true);
  a.setIntx(false);
  EXPECT_TRUE(line[1].level);
  EXPECT_EQ(config(1, 6, 2) & 8, 0u);
  setConfig(5, 4, 2, 0x407);
  EXPECT_FALSE(line[1].level);
  EXPECT_EQ(config(5, 6, 2) & 8, 8u) << "the status bit shows it, disabled or not";
  setConfig(5, 4, 2, 7);
  EXPECT_TRUE(line[1].level);
  setConfig(5, 0x42, 2, 0x8000);
  EXPECT_FALSE(line[1].level) << "MSI-X on";
  setConfig(5, 0x42, 2, 0);
  EXPECT_TRUE(line[1].level);
  host->reset();
  EXPECT_FALSE(line[1].level);
}

TEST_F(PciTest, ResetRestoresTheFirstPlacement) {
  TestFunction f;
  f.addBar(0, PciFunction::BarKind::memory32, 4096, f.memory);
  ASSERT_TRUE(host->plug(1, f).ok());
  std::uint32_t first = config(1, 0x10);
  setConfig(1, 0x10, 4, first + 0x1000);
  EXPECT_EQ(memory.read(first + 0x1000, 4), 0x1'0000u);
  host->reset();
  EXPECT_EQ(config(1, 0x10), first);
  EXPECT_EQ(memory.read(first, 4), 0x1'0000u);
  EXPECT_EQ(memory.read(first + 0x1000, 4), 0xffff'ffffu);
}

TEST_F(PciTest, BarsMoveWhileOthersAccess) {
  TestFunction f;
  f.addBar(0, PciFunction::BarKind::memory32, 4096, f.memory);
  ASSERT_TRUE(host->plug(1, f).ok());
  std::uint32_t first = config(1, 0x10);
  std::atomic<bool> stop{false};
  std::thread reader([&] {
    while (!stop) {
      std::uint64_t value = memory.read(first + 0x10, 4);
      EXPECT_TRUE(value == 0x1'0010 || value == 0xffff'ffff);
    }
  });
  for (unsigned n = 0; n < 2000; ++n) setConfig(1, 0x10, 4, first + (n & 1) * 0x1000);
  stop = true;
  reader.join();
}

}  // namespace
}  // namespace lodge
