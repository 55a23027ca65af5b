// SPDX-License-Identifier: Apache-2.0
#include "device/pcie_port.h"

#include <gtest/gtest.h>

#include <memory>

#include "base/units.h"
#include "device/fakes.h"

namespace lodge {
namespace {

constexpr std::uint64_t kEcam = 0xb000'0000, kAbsent = 0xffff'ffff;

struct Registers : IoDevice {
  std::uint64_t read(std::uint64_t, unsigned) override { return 0x5a; }
  void write(std::uint64_t, unsigned, std::uint64_t) override {}
};
struct NullSink : MsiSink {
  void sendMsi(std::uint64_t, std::uint32_t) override {}
};

struct Endpoint : PciFunction {
  Endpoint()
      : PciFunction({.vendor = 0x1af4,
                     .device = 0x1042,
                     .revision = 1,
                     .classCode = 0x018000,
                     .subsystemVendor = 0x1af4,
                     .subsystem = 2},
                    "endpoint") {
    addBar(0, BarKind::memory32, 4_KiB, registers);
    addBar(1, BarKind::io, 64, registers);
    addBar(2, BarKind::memory64Prefetchable, 1_MiB, registers);
    useIntx();
  }
  Registers registers;
};

class PciePortTest : public testing::Test {
 protected:
  PciePortTest() {
    auto made = PciHost::create({.ports = ports_,
                                 .memory = memory_,
                                 .msi = msi_,
                                 .intx = {&lines_[0], &lines_[1], &lines_[2], &lines_[3]},
                                 .ecamBase = 0,
                                 .window32Base = 0x8000'0000,
                                 .window32Size = 1_GiB,
                                 .window64Base = 64_GiB,
                                 .window64Size = 64_GiB,
                                 .firmwareAssigns = true});
    EXPECT_TRUE(made.ok());
    host_ = std::move(*made);
    host_->placeEcam(kEcam, 256);
    EXPECT_TRUE(host_->plugPort(6, port_, &endpoint_));
    EXPECT_TRUE(host_->plugPort(7, empty_, nullptr));
  }
  std::uint64_t config(unsigned bus, unsigned device, unsigned offset, unsigned size = 4) {
    return memory_.read(kEcam + (std::uint64_t{bus} << 20 | device << 15 | offset), size);
  }
  void setConfig(unsigned bus, unsigned device, unsigned offset, unsigned size, std::uint64_t value) {
    memory_.write(kEcam + (std::uint64_t{bus} << 20 | device << 15 | offset), size, value);
  }
  /// Bus 3 behind slot 6: memory at 0x90000000 (1 MiB), ports at 0x2000, prefetchable memory at 64 GiB (2 MiB).
  void open() {
    setConfig(0, 6, 0x18, 4, 0x0003'0300);
    setConfig(0, 6, 0x1c, 2, 0x2020);
    setConfig(0, 6, 0x20, 4, 0x9000'9000);
    setConfig(0, 6, 0x24, 4, 0x0010'0000);
    setConfig(0, 6, 0x28, 4, 16);
    setConfig(0, 6, 0x2c, 4, 16);
    setConfig(0, 6, 0x04, 2, 7);
  }
  bool answers(std::uint64_t address) { return memory_.read(address, 1) == 0x5a; }

  IoBus ports_{"port I/O"}, memory_{"memory"};
  FakeLine lines_[4];
  NullSink msi_;
  std::unique_ptr<PciHost> host_;
  PciePort port_{1, "port"}, empty_{2, "empty port"};
  Endpoint endpoint_;
};

TEST_F(PciePortTest, IsABridgeWithTheCapabilityOfARootPort) {
  EXPECT_EQ(config(0, 6, 0x08) >> 8, 0x060400u);
  EXPECT_EQ(config(0, 6, 0x0e, 1), 1u) << "type 1 header";
  EXPECT_EQ(config(0, 6, 0x2c), 0u) << "no subsystem there";
  std::uint64_t at = config(0, 6, 0x34, 1);
  ASSERT_EQ(config(0, 6, static_cast<unsigned>(at), 1), 0x10u);
  EXPECT_EQ(config(0, 6, static_cast<unsigned>(at) + 2, 2), 0x142u) << "version 2, root port, slot";
  EXPECT_EQ(config(0, 6, static_cast<unsigned>(at) + 0x14) >> 19, 1u) << "the number of the slot";
  EXPECT_EQ(config(0, 6, 0x100), 0u) << "no extended capability";
}

TEST_F(PciePortTest, TheBusBehindHasTheNumberThatSoftwareGaveIt) {
  EXPECT_EQ(config(0, 0, 0), 0x0d57'8086u);
  EXPECT_EQ(config(3, 0, 0), kAbsent);
  setConfig(0, 6, 0x18, 4, 0x0003'0300);
  EXPECT_EQ(config(3, 0, 0), 0x1042'1af4u);
  EXPECT_EQ(config(3, 1, 0), kAbsent) << "a link has one device";
  EXPECT_EQ(config(4, 0, 0), kAbsent);
  ports_.write(0xcf8, 4, 0x8003'0000);
  EXPECT_EQ(ports_.read(0xcfc, 4), 0x1042'1af4u) << "by mechanism 1, too";
  setConfig(0, 6, 0x18, 4, 0x0009'0900);
  EXPECT_EQ(config(3, 0, 0), kAbsent);
  EXPECT_EQ(config(9, 0, 0), 0x1042'1af4u);
  setConfig(0, 7, 0x18, 4, 0x000a'0a00);
  EXPECT_EQ(config(10, 0, 0), kAbsent) << "nothing is behind the other one";
  host_->reset();
  EXPECT_EQ(config(9, 0, 0), kAbsent);
  EXPECT_EQ(config(0, 6, 0x18), 0u);
}

TEST_F(PciePortTest, TheDeviceBehindIsAnEndpoint) {
  setConfig(0, 6, 0x18, 4, 0x0003'0300);
  auto at = static_cast<unsigned>(config(3, 0, 0x34, 1));
  EXPECT_EQ(config(3, 0, at, 1), 0x10u);
  EXPECT_EQ(config(3, 0, at + 2, 2), 2u);
}

TEST_F(PciePortTest, OnlyWhatItsWindowsLetThroughReachesTheDevice) {
  setConfig(0, 6, 0x18, 4, 0x0003'0300);
  setConfig(3, 0, 0x10, 4, 0x9000'0000);
  setConfig(3, 0, 0x14, 4, 0x2000);
  setConfig(3, 0, 0x18, 4, 0);
  setConfig(3, 0, 0x1c, 4, 16);
  setConfig(3, 0, 0x04, 2, 7);
  EXPECT_FALSE(answers(0x9000'0000)) << "the port's windows are closed";
  open();
  EXPECT_TRUE(answers(0x9000'0000));
  EXPECT_TRUE(answers(64_GiB));
  EXPECT_EQ(ports_.read(0x2000, 1), 0x5au);
  setConfig(0, 6, 0x04, 2, 4);
  EXPECT_FALSE(answers(0x9000'0000)) << "neither memory";
  EXPECT_EQ(ports_.read(0x2000, 1), 0xffu) << "nor ports go through";
}

TEST_F(PciePortTest, WindowsFollowTheirRegisters) {
  open();
  setConfig(3, 0, 0x10, 4, 0x9010'0000);
  setConfig(3, 0, 0x04, 2, 7);
  EXPECT_FALSE(answers(0x9010'0000)) << "beyond the limit";
  setConfig(0, 6, 0x22, 2, 0x9010);
  EXPECT_TRUE(answers(0x9010'0000));
  setConfig(0, 6, 0x20, 2, 0x9020);
  EXPECT_FALSE(answers(0x9010'0000)) << "the base lies behind the limit: closed";
  setConfig(3, 0, 0x18, 4, 0);
  setConfig(3, 0, 0x1c, 4, 17);
  EXPECT_FALSE(answers(68_GiB));
  setConfig(0, 6, 0x2c, 4, 17);
  EXPECT_TRUE(answers(68_GiB));
  setConfig(0, 6, 0x28, 4, 18);
  EXPECT_FALSE(answers(68_GiB));
}

TEST_F(PciePortTest, InterruptsArriveAsThoseOfThePortsSlot) {
  endpoint_.setIntx(true);
  EXPECT_TRUE(lines_[6 % 4].level);
  endpoint_.setIntx(false);
  EXPECT_FALSE(lines_[6 % 4].level);
}

TEST_F(PciePortTest, GoesOnFromWhatWasSaved) {
  open();
  setConfig(3, 0, 0x10, 4, 0x9000'0000);
  setConfig(3, 0, 0x04, 2, 7);
  state::Archive savedPort(1), savedEndpoint(1);
  port_.transfer(savedPort);
  endpoint_.transfer(savedEndpoint);
  host_->reset();
  EXPECT_FALSE(answers(0x9000'0000));
  state::Archive loadedEndpoint(savedEndpoint.saved(), 1), loadedPort(savedPort.saved(), 1);
  endpoint_.transfer(loadedEndpoint);
  port_.transfer(loadedPort);
  ASSERT_TRUE(loadedPort.finish()) << loadedPort.finish().error().message();
  EXPECT_TRUE(answers(0x9000'0000));
  EXPECT_EQ(config(3, 0, 0), 0x1042'1af4u);
}

TEST_F(PciePortTest, WantsFirmwareThatSetsItUp) {
  IoBus ports{"port I/O"}, memory{"memory"};
  auto host = PciHost::create({.ports = ports,
                               .memory = memory,
                               .msi = msi_,
                               .intx = {},
                               .ecamBase = 0,
                               .window32Base = 0xc000'0000,
                               .window32Size = 64_MiB,
                               .window64Base = 0,
                               .window64Size = 0});
  PciePort port(1, "port");
  EXPECT_EQ((*host)->plugPort(1, port, nullptr).error().kind(), ErrorKind::unsupported);
}

}  // namespace
}  // namespace lodge
