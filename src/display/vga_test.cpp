// SPDX-License-Identifier: Apache-2.0
#include "display/vga.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace lodge {
namespace {

class VgaTest : public testing::Test {
 protected:
  VgaTest() { EXPECT_TRUE(vga_.plugPorts(ports_, mmio_)); }
  void out(unsigned port, unsigned value) { ports_.write(port, 1, value); }
  unsigned in(unsigned port) { return static_cast<unsigned>(ports_.read(port, 1)); }
  void indexed(unsigned port, unsigned index, unsigned value) {
    out(port, index);
    out(port + 1, value);
  }
  void attribute(unsigned index, unsigned value) {
    in(0x3da);
    out(0x3c0, index);
    out(0x3c0, value);
  }
  void dispi(unsigned index, unsigned value) {
    ports_.write(0x1ce, 2, index);
    ports_.write(0x1cf, 2, value);
  }
  unsigned dispi(unsigned index) {
    ports_.write(0x1ce, 2, index);
    return static_cast<unsigned>(ports_.read(0x1cf, 2));
  }
  void color(unsigned index, unsigned red, unsigned green, unsigned blue) {
    out(0x3c8, index);
    for (unsigned part : {red, green, blue}) out(0x3c9, part);
  }
  void screenOn() {
    in(0x3da);
    out(0x3c0, 0x20);
  }
  void textMode() {
    indexed(0x3c4, 1, 1);  // cells of 8 pixels
    indexed(0x3c4, 2, 3);
    indexed(0x3c4, 4, 2);
    indexed(0x3ce, 5, 0x10);
    indexed(0x3ce, 6, 0x0e);
    indexed(0x3d4, 1, 79);
    indexed(0x3d4, 7, 2);
    indexed(0x3d4, 9, 15);
    indexed(0x3d4, 0x12, 0x8f);
    indexed(0x3d4, 0x13, 40);
    for (unsigned n = 0; n < 16; ++n) attribute(n, n);
    color(0, 0, 0, 0);
    color(7, 42, 42, 42);
    color(1, 0, 0, 63);
    screenOn();
  }

  std::unique_ptr<GuestMemory> memory_ =
      std::move(*GuestMemory::create(2 << 20, {.rom = 0, .video = Vga::kMemoryBytes}));
  IoBus ports_{"port I/O"}, mmio_{"memory"};
  Vga vga_{*memory_, 1};
  Screen screen_;
};

TEST_F(VgaTest, DrawsTextWithItsFont) {
  textMode();
  // A glyph in plane 2, as software loads fonts.
  indexed(0x3ce, 8, 0xff);
  indexed(0x3c4, 2, 4);
  indexed(0x3c4, 4, 6);
  indexed(0x3ce, 5, 0);
  indexed(0x3ce, 6, 4);
  mmio_.write(0xa0000 + 'A' * 32 + 3, 1, 0x81);
  textMode();
  mmio_.write(0xb8000 + 160 + 2, 2, 0x1741);
  EXPECT_EQ(mmio_.read(0xb8000 + 160 + 2, 2), 0x1741u);
  ASSERT_TRUE(vga_.draw(screen_));
  ASSERT_EQ(screen_.width, 640u);
  ASSERT_EQ(screen_.height, 400u);
  const std::uint32_t* row = screen_.row(16 + 3) + 8;
  EXPECT_EQ(row[0], 0xaaaaaau);
  EXPECT_EQ(row[1], 0x0000ffu);
  EXPECT_EQ(row[7], 0xaaaaaau);
}

// One half of the accesses as vCPUs do them with vector registers live, all of them so in the other machine.
TEST_F(VgaTest, LiveAccessesAreTheSame) {
  auto memory = std::move(*GuestMemory::create(2 << 20, {.rom = 0, .video = Vga::kMemoryBytes}));
  IoBus ports{"port I/O"}, mmio{"memory"};
  Vga other(*memory, 1);
  ASSERT_TRUE(other.plugPorts(ports, mmio));
  std::mt19937_64 random(7);
  for (unsigned n = 0; n < 200000; ++n) {
    unsigned size = 1u << random() % 2;
    std::uint64_t value = random(), port = 0x3b0 + random() % 0x2f, at = 0xa0000 + random() % 0x1fff0, seen = 0;
    switch (random() % 4) {
      case 0:
        ports_.write(port, size, value);
        ASSERT_TRUE(ports.writeLive(port, size, value));
        break;
      case 1:
        ASSERT_TRUE(ports.readLive(port, size, seen));
        ASSERT_EQ(ports_.read(port, size), seen) << n;
        break;
      case 2:
        mmio_.write(at, size, value);
        ASSERT_TRUE(mmio.writeLive(at, size, value));
        break;
      default:
        ASSERT_TRUE(mmio.readLive(at, size, seen));
        ASSERT_EQ(mmio_.read(at, size), seen) << n;
    }
  }
  EXPECT_EQ(std::memcmp(memory_->deviceView() + memory_->videoOffset(), memory->deviceView() + memory->videoOffset(),
                        0x40000),
            0);
}

TEST_F(VgaTest, AnIdleScreenIsNotDrawnAgain) {
  textMode();
  EXPECT_TRUE(vga_.draw(screen_));
  vga_.draw(screen_);
  EXPECT_FALSE(vga_.draw(screen_));
  mmio_.write(0xb8000, 1, 'x');
  EXPECT_TRUE(vga_.draw(screen_));
  EXPECT_TRUE(vga_.draw(screen_)) << "stores may have followed unseen";
  EXPECT_FALSE(vga_.draw(screen_));
}

TEST_F(VgaTest, WriteModesOfThePlanes) {
  indexed(0x3ce, 6, 5);
  indexed(0x3c4, 4, 6);
  indexed(0x3c4, 2, 15);
  indexed(0x3ce, 8, 0xff);
  mmio_.write(0xa0000, 1, 0xf0);
  indexed(0x3ce, 4, 2);
  EXPECT_EQ(mmio_.read(0xa0000, 1), 0xf0u);
  // Set/reset in two planes, under a bit mask.
  indexed(0x3ce, 0, 0x2);
  indexed(0x3ce, 1, 0x3);
  indexed(0x3ce, 8, 0x0f);
  mmio_.write(0xa0000, 1, 0x00);
  auto plane = [&](unsigned number) {
    indexed(0x3ce, 4, number);
    return mmio_.read(0xa0000, 1);
  };
  EXPECT_EQ(plane(0), 0xf0u);
  EXPECT_EQ(plane(1), 0xffu);
  EXPECT_EQ(plane(2), 0xf0u);
  // Mode 1 copies what was read last; mode 2 takes a color; read mode 1 compares.
  indexed(0x3ce, 5, 1);
  mmio_.write(0xa0001, 1, 0);
  indexed(0x3ce, 5, 2);
  indexed(0x3ce, 8, 0xff);
  mmio_.write(0xa0002, 1, 0x5);
  EXPECT_EQ(plane(0), 0xf0u);
  indexed(0x3ce, 4, 1);
  EXPECT_EQ(mmio_.read(0xa0001, 1), 0xffu);
  EXPECT_EQ(mmio_.read(0xa0002, 1), 0u);
  indexed(0x3ce, 5, 8);
  indexed(0x3ce, 2, 0x5);
  indexed(0x3ce, 7, 0xf);
  EXPECT_EQ(mmio_.read(0xa0002, 1), 0xffu);
}

TEST_F(VgaTest, DispiModesAndTheLinearFrameBuffer) {
  EXPECT_EQ(dispi(0), 0xb0c5u);
  EXPECT_EQ(dispi(10), 256u);
  dispi(4, 2);
  EXPECT_EQ(dispi(1), Vga::kMaxWidth);
  dispi(4, 0);
  dispi(1, 1024);
  dispi(2, 768);
  dispi(3, 32);
  dispi(4, 0x41);
  dispi(1, 5000);
  EXPECT_EQ(dispi(1), 1024u);
  EXPECT_EQ(dispi(6), 1024u);
  std::uint32_t pixel = 0x00123456;
  memory_->mapRegion(1, Gpa{0xfd000000}, memory_->videoOffset(), Vga::kMemoryBytes);
  ASSERT_TRUE(memory_->writeObject(Gpa{0xfd000000 + (1024 * 5 + 7) * 4}, pixel));
  ASSERT_TRUE(vga_.draw(screen_));
  EXPECT_EQ(screen_.width, 1024u);
  EXPECT_EQ(screen_.row(5)[7], 0x123456u);
  // Scrolling down puts another line on top, and what lies beyond memory is dark.
  dispi(9, 5);
  ASSERT_TRUE(vga_.draw(screen_));
  EXPECT_EQ(screen_.row(0)[7], 0x123456u);
  dispi(9, 0xffff);
  EXPECT_TRUE(vga_.draw(screen_));
}

TEST(Png, HasThePictureInIt) {
  Screen screen;
  screen.resize(2, 2);
  std::string png = encodePng(screen);
  EXPECT_EQ(png.substr(0, 8), "\x89PNG\r\n\x1a\n");
  EXPECT_EQ(png.substr(12, 4), "IHDR");
  EXPECT_EQ(png.substr(16, 8), std::string("\0\0\0\2\0\0\0\2", 8));
  EXPECT_EQ(png.substr(png.size() - 8, 4), "IEND");
}

}  // namespace
}  // namespace lodge
