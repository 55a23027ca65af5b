// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "device/fakes.h"
#include "storage/floppy_controller.h"
#include "storage/test_disk.h"

namespace lodge {
namespace {

using Bytes = std::vector<std::uint8_t>;

class Floppy : public ::testing::Test {
 protected:
  Floppy() {
    for (std::size_t n = 0; n < disk_->content.size(); ++n) disk_->content[n] = static_cast<std::uint8_t>(n >> 9);
    floppy_.attach(0, kFloppy1440, disk_);
    EXPECT_TRUE(dma_.plugPorts(ports_));
    EXPECT_TRUE(floppy_.plugPorts(ports_));
    out(0x3f2, 0x1c);  // out of reset, interrupts, motor and drive 0
  }
  void out(unsigned port, unsigned value) { ports_.write(port, 1, value); }
  unsigned in(unsigned port) { return static_cast<unsigned>(ports_.read(port, 1)); }
  /// Sends a command; returns its result as the main status register announces it.
  Bytes command(const Bytes& bytes) {
    for (std::uint8_t byte : bytes) {
      EXPECT_EQ(in(0x3f4) & 0xc0, 0x80u) << "ready for a byte";
      out(0x3f5, byte);
    }
    return result();
  }
  Bytes result() {
    Bytes all;
    while ((in(0x3f4) & 0xf0) == 0xd0) all.push_back(static_cast<std::uint8_t>(in(0x3f5)));
    return all;
  }
  void dma(std::uint64_t address, unsigned bytes, unsigned mode) {
    out(0x0c, 0);
    out(0x04, address & 255);
    out(0x04, address >> 8 & 255);
    out(0x05, (bytes - 1) & 255);
    out(0x05, (bytes - 1) >> 8);
    out(0x81, static_cast<unsigned>(address >> 16));
    out(0x0b, mode | 2);
    out(0x0a, 2);
  }
  void senseReset() {
    for (unsigned drive = 0; drive < 4; ++drive) EXPECT_EQ(command({0x08})[0], 0xc0 | drive);
  }
  std::uint8_t at(std::uint64_t address) {
    std::uint8_t value = 0;
    EXPECT_TRUE(memory_->readObject(Gpa{address}, value));
    return value;
  }

  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(1_MiB));
  std::shared_ptr<TestDisk> disk_ = std::make_shared<TestDisk>(1440 * 1024);
  FakeLine irq_;
  IoBus ports_{"port I/O"};
  DmaController dma_{*memory_};
  FloppyController floppy_{dma_, irq_};
};

TEST_F(Floppy, ResetIsToldForEachDrive) {
  EXPECT_EQ(irq_.rises, 1);
  EXPECT_TRUE(irq_.level);
  senseReset();
  EXPECT_FALSE(irq_.level);
  EXPECT_EQ(command({0x08}), Bytes{0x80}) << "nothing is left to be told";
  out(0x3f2, 0x18);
  EXPECT_EQ(in(0x3f4), 0u) << "held in reset";
  out(0x3f2, 0x1c);
  EXPECT_EQ(irq_.rises, 2);
  out(0x3f4, 0x80);  // the data rate select register's own reset
  EXPECT_EQ(irq_.rises, 3);
  senseReset();
}

TEST_F(Floppy, IdentifiesItselfAndKeepsItsSettings) {
  senseReset();
  EXPECT_EQ(command({0x10}), Bytes{0x90});
  EXPECT_EQ(command({0x1f}), Bytes{0x80}) << "no such command";
  EXPECT_TRUE(command({0x03, 0xaf, 0x02}).empty());
  EXPECT_TRUE(command({0x13, 0x00, 0x57, 0x11}).empty());
  EXPECT_EQ(command({0x94}), Bytes{0x10});
  out(0x3f4, 0x80);
  senseReset();
  Bytes registers = command({0x0e});
  ASSERT_EQ(registers.size(), 10u);
  EXPECT_EQ(registers[4], 0xaf);
  EXPECT_EQ(registers[7] & 0x80, 0x80);
  EXPECT_EQ(registers[8], 0x57) << "locked";
  EXPECT_EQ(command({0x14}), Bytes{0});
  out(0x3f4, 0x80);
  senseReset();
  EXPECT_EQ(command({0x0e})[8], 0);
}

TEST_F(Floppy, SeeksAndTellsOfChanges) {
  senseReset();
  EXPECT_EQ(in(0x3f7) & 0x80, 0x80u) << "a new medium";
  EXPECT_TRUE(command({0x07, 0}).empty());
  EXPECT_EQ(command({0x08}), (Bytes{0x20, 0}));
  EXPECT_EQ(in(0x3f7) & 0x80, 0u);
  command({0x0f, 4, 33});
  EXPECT_EQ(command({0x08}), (Bytes{0x24, 33}));
  command({0xcf, 0, 2});
  EXPECT_EQ(command({0x08}), (Bytes{0x20, 35})) << "two inwards";
  EXPECT_EQ(command({0x04, 0}), Bytes{0x28});
  command({0x07, 1});
  EXPECT_EQ(command({0x08})[0], 0x71) << "there is no drive 1";
  EXPECT_TRUE(floppy_.change(0, nullptr));
  EXPECT_EQ(in(0x3f7) & 0x80, 0x80u);
  command({0x0f, 0, 1});
  EXPECT_EQ(in(0x3f7) & 0x80, 0x80u) << "still empty";
  EXPECT_FALSE(floppy_.change(0, std::make_shared<TestDisk>(1000)));
  EXPECT_TRUE(floppy_.change(0, disk_));
  command({0x0f, 0, 2});
  EXPECT_EQ(in(0x3f7) & 0x80, 0u);
}

TEST_F(Floppy, ReadsByDma) {
  senseReset();
  command({0x0f, 0, 2});
  command({0x08});
  dma(0x20000, 3 * 512, 0x44);
  int before = irq_.rises;
  // Both sides: the last two sectors of side 0, the first one of side 1.
  EXPECT_EQ(command({0xe6, 0, 2, 0, 17, 2, 18, 0x1b, 0xff}), (Bytes{4, 0, 0, 2, 1, 2, 2}));
  EXPECT_EQ(irq_.rises, before + 1);
  constexpr unsigned kSector = (2 * 2 * 18) + 16;
  EXPECT_EQ(at(0x20000), kSector & 255);
  EXPECT_EQ(at(0x20000 + 1024), (kSector + 2) & 255);
  EXPECT_EQ(at(0x20000 + 1536), 0);
  dma(0x20000, 4 * 512, 0x44);
  EXPECT_EQ(command({0x46, 0, 2, 0, 17, 2, 18, 0x1b, 0xff}), (Bytes{0x40, 0x80, 0, 3, 0, 1, 2})) << "the track ended";
  dma(0x20000, 512, 0x48);
  EXPECT_EQ(command({0x46, 0, 2, 0, 1, 2, 18, 0x1b, 0xff})[1], 0x10) << "no DMA: overrun";
}

TEST_F(Floppy, FindsNoWrongSectors) {
  senseReset();
  auto read = [&](Bytes id) {
    dma(0x20000, 512, 0x44);
    return command({0x46, static_cast<std::uint8_t>(id[1] << 2), id[0], id[1], id[2], id[3], 18, 0x1b, 0xff});
  };
  EXPECT_EQ(read({0, 0, 1, 2})[0], 0);
  EXPECT_EQ(read({0, 0, 19, 2})[1], 4);
  EXPECT_EQ(read({0, 0, 1, 3})[1], 4);
  EXPECT_EQ(read({5, 0, 1, 2})[2], 0x10) << "the head is elsewhere";
  command({0x13, 0, 0x40, 0});
  EXPECT_EQ(read({5, 0, 1, 2})[0], 0) << "it seeks by itself";
  EXPECT_EQ(command({0x4a, 4}), (Bytes{4, 0, 0, 5, 1, 1, 2}));
  out(0x3f7, 2);
  EXPECT_EQ(read({5, 0, 1, 2})[1], 1) << "another data rate";
  out(0x3f7, 0);
  disk_->fail = 5;
  EXPECT_EQ(read({5, 0, 1, 2})[1], 0x20);
  floppy_.change(0, nullptr);
  EXPECT_EQ(read({5, 0, 1, 2})[1], 1);
}

TEST_F(Floppy, WritesAndFormats) {
  senseReset();
  ASSERT_TRUE(memory_->fill(Gpa{0x30000}, std::byte{0x77}, 600));
  dma(0x30000, 600, 0x48);
  EXPECT_EQ(command({0x45, 0, 0, 0, 3, 2, 18, 0x1b, 0xff}), (Bytes{0, 0, 0, 0, 0, 5, 2}));
  EXPECT_EQ(disk_->content[2 * 512 + 599], 0x77);
  EXPECT_EQ(disk_->content[2 * 512 + 600], 0) << "the rest of the sector";
  EXPECT_EQ(disk_->content[4 * 512], 4);
  for (unsigned n = 0; n < 18; ++n) {
    const std::uint8_t id[4] = {0, 1, static_cast<std::uint8_t>(n + 1), 2};
    ASSERT_TRUE(memory_->writeObject(Gpa{0x31000 + 4 * n}, id));
  }
  dma(0x31000, 72, 0x48);
  EXPECT_EQ(command({0x4d, 4, 2, 18, 0x54, 0xf6})[0], 4);
  EXPECT_EQ(disk_->content[18 * 512], 0xf6);
  EXPECT_EQ(disk_->content[36 * 512 - 1], 0xf6);
  EXPECT_EQ(disk_->content[36 * 512], 36);
  disk_->isReadOnly = true;
  dma(0x30000, 512, 0x48);
  EXPECT_EQ(command({0x45, 0, 0, 0, 3, 2, 18, 0x1b, 0xff})[1], 2);
  EXPECT_EQ(command({0x04, 0})[0] & 0x40, 0x40);
}

TEST_F(Floppy, MovesDataByItsFifo) {
  senseReset();
  command({0x03, 0xdf, 0x03});
  int before = irq_.rises;
  for (std::uint8_t byte : {0x46, 0, 0, 0, 2, 2, 3, 0x1b, 0xff}) out(0x3f5, byte);
  for (unsigned n = 0; n < 1024; ++n) {
    ASSERT_EQ(in(0x3f4), 0xf0u) << n;
    ASSERT_EQ(in(0x3f5), n < 512 ? 1u : 2u);
  }
  EXPECT_EQ(result(), (Bytes{0x40, 0x80, 0, 1, 0, 1, 2})) << "nobody said stop";
  EXPECT_EQ(irq_.rises, before + 3);
  for (std::uint8_t byte : {0x45, 0, 0, 0, 2, 2, 2, 0x1b, 0xff}) out(0x3f5, byte);
  for (unsigned n = 0; n < 512; ++n) {
    ASSERT_EQ(in(0x3f4), 0xb0u) << n;
    out(0x3f5, 0x99);
  }
  EXPECT_EQ(result().size(), 7u);
  EXPECT_EQ(disk_->content[512], 0x99);
}

TEST_F(Floppy, RequestsOfBeforeAResetAreNotWaitedFor) {
  senseReset();
  disk_->hold = true;
  dma(0x20000, 512, 0x44);
  for (std::uint8_t byte : {0x46, 0, 0, 0, 1, 2, 18, 0x1b, 0xff}) out(0x3f5, byte);
  EXPECT_EQ(in(0x3f4), 0x10u) << "busy";
  out(0x3f4, 0x80);
  disk_->completeHeld();
  senseReset();
  EXPECT_EQ(in(0x3f4), 0x80u);
}

TEST(FloppyFormats, AreThoseOfDisks) {
  EXPECT_EQ(floppyFormatOf(1440 * 1024)->sectors, 18);
  EXPECT_EQ(floppyFormatOf(1200 * 1024)->drive, kFloppy1200);
  EXPECT_EQ(floppyFormatOf(360 * 1024)->cylinders, 40);
  EXPECT_FALSE(floppyFormatOf(1440 * 1024 + 512));
  EXPECT_FALSE(floppyFormatOf(0));
}

TEST_F(Floppy, GoesOnFromWhatWasSaved) {
  senseReset();
  command({0x03, 0xdf, 0x03});  // data by the FIFO
  for (std::uint8_t byte : Bytes{0x66, 0, 0, 0, 3, 2, 4, 0x1b, 0xff}) out(0x3f5, byte);
  for (int n = 0; n < 700; ++n) EXPECT_EQ(in(0x3f5), n < 512 ? 2u : 3u);
  floppy_.quiesce();
  state::Archive saved;
  floppy_.transfer(saved);
  floppy_.reset();
  state::Archive loaded(saved.saved(), 1);
  floppy_.transfer(loaded);
  ASSERT_TRUE(loaded.finish()) << loaded.finish().error().message();
  for (int n = 700; n < 1024; ++n) EXPECT_EQ(in(0x3f5), 3u);
  EXPECT_EQ(result().size(), 7u);
  for (std::size_t at = 0; at < saved.saved().size(); ++at) {
    std::vector<std::byte> bytes = saved.saved();
    bytes[at] ^= std::byte{0xff};
    state::Archive bad(bytes, 1);
    floppy_.transfer(bad);
    for (int n = 0; n < 20; ++n) in(0x3f5);
    out(0x3f5, 0x08);
    floppy_.quiesce();
  }
}

}  // namespace
}  // namespace lodge
