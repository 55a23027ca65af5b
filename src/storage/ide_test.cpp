// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <numeric>

#include "base/units.h"
#include "device/fakes.h"
#include "storage/ata_disk.h"
#include "storage/atapi_drive.h"
#include "storage/ide_channel.h"
#include "storage/test_disk.h"

namespace lodge {
namespace {

constexpr unsigned kBusy = 0x80, kReady = 0x50, kRequest = 0x58;

class IdeTest : public testing::Test {
 protected:
  IdeTest() {
    std::iota(disk_->content.begin(), disk_->content.end(), 0);
    for (std::size_t n = 0; n < disk_->content.size(); n += 512) disk_->content[n] = static_cast<std::uint8_t>(n >> 9);
    for (std::size_t n = 0; n < cd_->content.size(); n += 2048) cd_->content[n] = static_cast<std::uint8_t>(n >> 11);
    channel_.attach(0, std::make_unique<AtaDisk>(disk_, "serial7"));
    channel_.attach(1, std::make_unique<AtapiDrive>(cd_));
    channel_.reset();
  }
  unsigned in(unsigned port) { return static_cast<unsigned>(channel_.commandPorts().read(port, 1)); }
  void out(unsigned port, unsigned value) { channel_.commandPorts().write(port, 1, value); }
  unsigned alternate() { return static_cast<unsigned>(channel_.controlPort().read(0, 1)); }
  std::vector<std::uint8_t> readData(std::size_t bytes) {
    std::vector<std::uint8_t> data;
    while (data.size() < bytes) {
      std::uint64_t word = channel_.commandPorts().read(0, 2);
      data.push_back(static_cast<std::uint8_t>(word));
      data.push_back(static_cast<std::uint8_t>(word >> 8));
    }
    return data;
  }
  void lba28(unsigned lba, unsigned count, unsigned command) {
    out(2, count);
    out(3, lba & 0xff);
    out(4, lba >> 8 & 0xff);
    out(5, lba >> 16 & 0xff);
    out(6, 0xe0 | (lba >> 24 & 15));
    out(7, command);
  }
  void packet(std::vector<std::uint8_t> bytes, unsigned limit = 0xfffe, bool dma = false) {
    bytes.resize(12);
    out(6, 0xb0);
    out(1, dma ? 1 : 0);
    out(4, limit & 0xff);
    out(5, limit >> 8);
    out(7, 0xa0);
    ASSERT_EQ(in(7), kRequest);
    ASSERT_EQ(in(2), 1u);
    for (unsigned n = 0; n < 12; n += 2) channel_.commandPorts().write(0, 2, bytes[n] | bytes[n + 1] << 8);
  }
  /// The medium was just put in: the first command says so.
  void clearAttention() {
    packet({0});
    in(7);
  }
  void startBusMaster(std::uint32_t address, std::uint32_t count, bool toMemory) {
    struct {
      std::uint32_t address, count;
    } entry{address, count | 0x8000'0000u};
    ASSERT_TRUE(memory_->writeObject(Gpa{0x1000}, entry));
    channel_.writeBusMaster(4, 4, 0x1000);
    channel_.writeBusMaster(0, 1, toMemory ? 9 : 1);
  }

  std::shared_ptr<TestDisk> disk_ = std::make_shared<TestDisk>(1_MiB), cd_ = std::make_shared<TestDisk>(256_KiB);
  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(1_MiB));
  FakeLine irq_;
  IdeChannel channel_{*memory_, irq_};
};

TEST_F(IdeTest, ResetShowsTheSignatures) {
  channel_.controlPort().write(0, 1, 4);
  channel_.controlPort().write(0, 1, 0);
  EXPECT_EQ(in(1), 1u);
  EXPECT_EQ(in(2) << 24 | in(3) << 16 | in(4) << 8 | in(5), 0x01010000u);
  out(6, 0xb0);
  EXPECT_EQ(in(2) << 24 | in(3) << 16 | in(4) << 8 | in(5), 0x010114ebu);
}

TEST_F(IdeTest, IdentifyTellsTheSize) {
  lba28(0, 0, 0xec);
  EXPECT_TRUE(irq_.level);
  EXPECT_EQ(alternate(), kRequest);
  EXPECT_TRUE(irq_.level) << "the alternate status acknowledges nothing";
  EXPECT_EQ(in(7), kRequest);
  EXPECT_FALSE(irq_.level);
  auto id = readData(512);
  EXPECT_EQ(id[120] | id[121] << 8, 2048);
  EXPECT_EQ(std::string(id.begin() + 20, id.begin() + 26), "esirla");  // the bytes of each word are swapped
  EXPECT_EQ(in(7), kReady);
}

TEST_F(IdeTest, ReadsSectorBySector) {
  lba28(5, 2, 0x20);
  EXPECT_EQ(in(7), kRequest);
  auto first = readData(512);
  EXPECT_EQ(first[0], 5);
  EXPECT_TRUE(irq_.level) << "one interrupt a sector";
  EXPECT_EQ(in(7), kRequest);
  EXPECT_EQ(readData(512)[0], 6);
  EXPECT_EQ(in(7), kReady);
  EXPECT_EQ(irq_.rises, 2);
}

TEST_F(IdeTest, WritesWithoutAnInterruptBeforeTheFirstSector) {
  lba28(9, 1, 0x30);
  EXPECT_EQ(alternate(), kRequest);
  EXPECT_FALSE(irq_.level);
  for (unsigned n = 0; n < 256; ++n) channel_.commandPorts().write(0, 2, 0xabcd);
  EXPECT_TRUE(irq_.level);
  EXPECT_EQ(in(7), kReady);
  EXPECT_EQ(disk_->content[9 * 512], 0xcd);
  EXPECT_EQ(disk_->content[10 * 512 - 1], 0xab);
  EXPECT_EQ(disk_->content[10 * 512], 10);
}

TEST_F(IdeTest, AddressesBeyondTheEndAreErrors) {
  lba28(2047, 2, 0x20);
  EXPECT_EQ(in(7), kReady | 1);
  EXPECT_EQ(in(1), 0x10u);
  disk_->isReadOnly = true;
  lba28(1, 1, 0x30);
  EXPECT_EQ(in(7), kReady | 1);
  EXPECT_EQ(in(1), 4u);
  disk_->fail = EIO;
  lba28(1, 1, 0x20);
  EXPECT_EQ(in(1), 0x40u);
  lba28(0, 0, 0x77);
  EXPECT_EQ(in(1), 4u);
}

TEST_F(IdeTest, WideAddressesAndPreviousValues) {
  out(6, 0x40);
  for (unsigned high : {0u, 1u}) {  // the upper halves first
    out(2, high);
    out(3, high != 0 ? 0x34 : 0);
    out(4, high != 0 ? 0x02 : 0);
    out(5, 0);
  }
  out(7, 0x24);
  EXPECT_EQ(readData(512)[0], 0x34);
  out(2, 7);
  out(2, 8);
  EXPECT_EQ(in(2), 8u);
  channel_.controlPort().write(0, 1, 0x80);
  EXPECT_EQ(in(2), 7u);
}

TEST_F(IdeTest, DmaGoesByTheTable) {
  lba28(16, 4, 0xc8);
  EXPECT_EQ(alternate() & kBusy, 0u);
  EXPECT_FALSE(irq_.level) << "nothing moves before the bus master starts";
  startBusMaster(0x4000, 2048, true);
  EXPECT_TRUE(irq_.level);
  EXPECT_EQ(channel_.readBusMaster(2, 1), 4u);
  std::uint8_t byte = 0;
  ASSERT_TRUE(memory_->readObject(Gpa{0x4600}, byte));
  EXPECT_EQ(byte, 19);
  channel_.writeBusMaster(2, 1, 4);
  EXPECT_EQ(channel_.readBusMaster(2, 1), 0u);
  channel_.writeBusMaster(0, 1, 0);
  lba28(100, 1, 0xca);
  startBusMaster(0x4600, 512, false);
  EXPECT_EQ(disk_->content[100 * 512], 19);
}

TEST_F(IdeTest, AShortTableIsAnError) {
  lba28(16, 4, 0xc8);
  startBusMaster(0x4000, 1024, true);
  EXPECT_EQ(channel_.readBusMaster(2, 1), 6u);
  EXPECT_EQ(in(7), kReady | 1);
  channel_.writeBusMaster(0, 1, 0);
  lba28(16, 4, 0xc8);
  startBusMaster(0xfffffffe, 2048, true);
  EXPECT_EQ(channel_.readBusMaster(2, 1) & 2, 2u);
}

TEST_F(IdeTest, AResetCutsARequestOff) {
  disk_->hold = true;
  lba28(1, 1, 0x20);
  EXPECT_EQ(in(7), kBusy);
  out(7, 0xec);
  EXPECT_EQ(in(7), kBusy) << "a busy drive takes no command";
  channel_.controlPort().write(0, 1, 4);
  channel_.controlPort().write(0, 1, 0);
  disk_->completeHeld();
  EXPECT_EQ(in(7), kReady);
  EXPECT_FALSE(irq_.level);
}

TEST_F(IdeTest, ThePacketDriveReadsInChunks) {
  clearAttention();
  packet({0x28, 0, 0, 0, 0, 3, 0, 0, 2}, 2048);
  EXPECT_EQ(in(7), kRequest);
  EXPECT_EQ(in(2), 2u);
  EXPECT_EQ(in(4) | in(5) << 8, 2048u);
  EXPECT_EQ(readData(2048)[0], 3);
  EXPECT_EQ(in(7), kRequest);
  EXPECT_EQ(readData(2048)[0], 4);
  EXPECT_EQ(in(7), kReady);
  EXPECT_EQ(in(2), 3u);
}

TEST_F(IdeTest, ThePacketDriveReadsByDma) {
  clearAttention();
  packet({0x28, 0, 0, 0, 0, 0, 0, 0, 100}, 0xfffe, true);
  struct {
    std::uint32_t entry[8] = {0x10000, 0, 0x20000, 0, 0x30000, 0, 0x40000, 0x8000'0000u | 0x2000};
  } table;
  ASSERT_TRUE(memory_->writeObject(Gpa{0x1000}, table));
  channel_.writeBusMaster(4, 4, 0x1000);
  channel_.writeBusMaster(0, 1, 9);
  EXPECT_EQ(in(7), kReady);
  std::uint8_t byte = 0;
  ASSERT_TRUE(memory_->readObject(Gpa{0x10000 + 99 * 2048}, byte));
  EXPECT_EQ(byte, 99);
}

TEST_F(IdeTest, AChangedMediumIsReportedOnce) {
  auto other = std::make_shared<TestDisk>(64_KiB);
  EXPECT_TRUE(channel_.withDrive(1, [&](IdeDrive& d) { return static_cast<AtapiDrive&>(d).change(other, false); }));
  packet({0});
  EXPECT_EQ(in(7) & 1, 1u);
  packet({3, 0, 0, 0, 18});
  auto sense = readData(18);
  EXPECT_EQ(sense[2], 6);
  EXPECT_EQ(sense[12], 0x28);
  packet({0x25});
  auto capacity = readData(8);
  EXPECT_EQ(capacity[3], 31);
  packet({0x1e, 0, 0, 0, 1});
  EXPECT_FALSE(channel_.withDrive(1, [&](IdeDrive& d) { return static_cast<AtapiDrive&>(d).change(nullptr, false); }));
  packet({0x1b, 0, 0, 0, 2});
  EXPECT_EQ(in(7) & 1, 1u) << "the tray is locked";
  packet({0x1e});
  packet({0x1b, 0, 0, 0, 2});
  EXPECT_EQ(in(7), kReady);
  packet({0x28, 0, 0, 0, 0, 0, 0, 0, 1});
  EXPECT_EQ(in(1) >> 4, 2u) << "not ready";
}

TEST_F(IdeTest, AnEmptyPlaceReadsAsZero) {
  IdeChannel empty(*memory_, irq_);
  EXPECT_EQ(empty.commandPorts().read(7, 1), 0u);
  empty.commandPorts().write(7, 1, 0xec);
  EXPECT_EQ(empty.commandPorts().read(7, 1), 0u);
}

}  // namespace
}  // namespace lodge
