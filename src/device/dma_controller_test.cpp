// SPDX-License-Identifier: Apache-2.0
#include "device/dma_controller.h"

#include <gtest/gtest.h>

#include <numeric>

namespace lodge {
namespace {

class Dma : public ::testing::Test {
 protected:
  using Direction = DmaController::Direction;
  Dma() {
    EXPECT_TRUE(dma_.plugPorts(ports_));
    std::iota(data_.begin(), data_.end(), std::uint8_t{1});
  }
  void out(unsigned port, unsigned value) { ports_.write(port, 1, value); }
  unsigned in(unsigned port) { return static_cast<unsigned>(ports_.read(port, 1)); }
  /// Channel 2: page 1, an address, a count, a mode.
  void program(unsigned address, unsigned bytes, unsigned mode) {
    out(0x0c, 0);
    out(0x04, address & 255);
    out(0x04, address >> 8);
    out(0x05, (bytes - 1) & 255);
    out(0x05, (bytes - 1) >> 8);
    out(0x81, 1);
    out(0x0b, mode | 2);
    out(0x0a, 2);
  }
  std::uint8_t at(std::uint64_t address) {
    std::uint8_t value = 0;
    EXPECT_TRUE(memory_->readObject(Gpa{address}, value));
    return value;
  }

  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(1_MiB));
  IoBus ports_{"port I/O"};
  DmaController dma_{*memory_};
  std::array<std::uint8_t, 64> data_{};
};

TEST_F(Dma, MovesUntilTheTerminalCount) {
  program(0x1234, 48, 0x44);
  EXPECT_EQ(dma_.remaining(2, Direction::toMemory), 48u);
  EXPECT_EQ(dma_.remaining(2, Direction::fromMemory), 0u) << "it is programmed for the other direction";
  auto moved = dma_.transfer(2, std::span(data_).first(40), Direction::toMemory);
  EXPECT_EQ(moved.bytes, 40u);
  EXPECT_FALSE(moved.ended);
  EXPECT_EQ(at(0x11234), 1);
  out(0x0c, 0);
  EXPECT_EQ(in(0x04), 0x5cu);
  EXPECT_EQ(in(0x04), 0x12u);
  EXPECT_EQ(in(0x05), 7u);
  EXPECT_EQ(in(0x05), 0u);
  EXPECT_EQ(in(0x08) & 0xf, 0u);
  moved = dma_.transfer(2, data_, Direction::toMemory);
  EXPECT_EQ(moved.bytes, 8u);
  EXPECT_TRUE(moved.ended);
  EXPECT_EQ(in(0x08) & 0xf, 4u);
  EXPECT_EQ(in(0x08) & 0xf, 0u) << "told once";
  EXPECT_EQ(dma_.transfer(2, data_, Direction::toMemory).bytes, 0u) << "masked now";
}

TEST_F(Dma, BeginsAgainByItself) {
  program(0x2000, 4, 0x54);
  EXPECT_TRUE(dma_.transfer(2, data_, Direction::toMemory).ended);
  EXPECT_EQ(dma_.remaining(2, Direction::toMemory), 4u);
}

TEST_F(Dma, AddressesWrapInTheirPage) {
  program(0xfffe, 4, 0x44);
  EXPECT_EQ(dma_.transfer(2, data_, Direction::toMemory).bytes, 4u);
  EXPECT_EQ(at(0x1ffff), 2);
  EXPECT_EQ(at(0x10000), 3);
  EXPECT_EQ(at(0x20000), 0);
}

TEST_F(Dma, GoesDownAndReadsMemory) {
  program(0x3003, 4, 0x68);
  for (unsigned n = 0; n < 4; ++n) (void)memory_->writeObject(Gpa{0x13000 + n}, static_cast<std::uint8_t>(n));
  EXPECT_EQ(dma_.transfer(2, data_, Direction::fromMemory).bytes, 4u);
  EXPECT_EQ(data_[0], 3);
  EXPECT_EQ(data_[3], 0);
}

TEST_F(Dma, MaskedOrDisabledMovesNothing) {
  program(0x2000, 4, 0x44);
  out(0x0a, 6);
  EXPECT_EQ(dma_.transfer(2, data_, Direction::toMemory).bytes, 0u);
  out(0x0e, 0);
  out(0x08, 4);
  EXPECT_EQ(dma_.transfer(2, data_, Direction::toMemory).bytes, 0u);
  out(0x0d, 0);
  EXPECT_EQ(dma_.transfer(2, data_, Direction::toMemory).bytes, 0u) << "a master clear masks all";
  out(0x0f, 0xb);
  EXPECT_EQ(dma_.transfer(2, data_, Direction::toMemory).bytes, 4u);
}

TEST_F(Dma, SecondControllersRegistersAreTwoApart) {
  out(0xd8, 0);
  out(0xc4, 0x34);
  out(0xc4, 0x12);
  out(0xd8, 0);
  EXPECT_EQ(in(0xc4), 0x34u);
  EXPECT_EQ(in(0xc4), 0x12u);
  out(0x8b, 0x55);
  EXPECT_EQ(in(0x8b), 0x55u);
}

}  // namespace
}  // namespace lodge
