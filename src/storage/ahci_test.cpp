// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "storage/ahci_controller.h"
#include "storage/ahci_defs.h"
#include "storage/ata_disk.h"
#include "storage/atapi_drive.h"
#include "storage/test_disk.h"

namespace lodge {
namespace {

using namespace ahci;

constexpr std::uint64_t kLists = 0x1000, kReceived = 0x4000, kTables = 0x10000, kData = 0x40000;

class AhciTest : public testing::Test {
 protected:
  AhciTest() {
    for (std::size_t n = 0; n < disk_->content.size(); n += 512) disk_->content[n] = static_cast<std::uint8_t>(n >> 9);
    for (std::size_t n = 0; n < cd_->content.size(); n += 2048) cd_->content[n] = static_cast<std::uint8_t>(n >> 11);
    hba_.port(0).attach(std::make_unique<AtaDisk>(disk_, "serial7", true), disk_);
    hba_.port(1).attach(std::make_unique<AtapiDrive>(cd_), nullptr);
    set(host::ghc, kAhciEnable | kInterruptEnable);
    for (unsigned n : {0u, 1u}) {
      setPort(n, port::clb, static_cast<std::uint32_t>(kLists + 0x400 * n));
      setPort(n, port::fb, static_cast<std::uint32_t>(kReceived + 0x100 * n));
      setPort(n, port::ie, ~0u);
      setPort(n, port::serr, ~0u);
      setPort(n, port::is, ~0u);
      setPort(n, port::cmd, kFisReceive | kStart);
    }
    set(host::is, ~0u);
  }
  void set(unsigned offset, std::uint32_t value) { hba_.registers().write(offset, 4, value); }
  std::uint32_t get(unsigned offset) { return static_cast<std::uint32_t>(hba_.registers().read(offset, 4)); }
  void setPort(unsigned n, unsigned offset, std::uint32_t value) { set(host::ports + 0x80 * n + offset, value); }
  std::uint32_t getPort(unsigned n, unsigned offset) { return get(host::ports + 0x80 * n + offset); }
  bool intx() { return (hba_.readConfig(6, 2) & 8) != 0; }
  struct Region {
    std::uint64_t address;
    std::uint32_t length;
  };
  void slot(unsigned n, unsigned number, std::array<std::uint8_t, 20> fis, std::vector<Region> regions,
            bool write = false, std::vector<std::uint8_t> packet = {}) {
    std::uint64_t table = kTables + 0x8000 * n + 0x400 * number;
    struct {
      std::uint32_t flags, count = 0;
      std::uint64_t table;
      std::uint64_t reserved[2] = {};
    } header{static_cast<std::uint32_t>(5 | (write ? kHeaderWrite : 0) | (packet.empty() ? 0 : kHeaderAtapi) |
                                        regions.size() << 16),
             0, table};
    ASSERT_TRUE(memory_->writeObject(Gpa{kLists + 0x400 * n + 32 * number}, header));
    fis[0] = kFisHostToDevice;
    fis[1] |= 0x80;
    ASSERT_TRUE(memory_->writeObject(Gpa{table}, fis));
    packet.resize(16);
    ASSERT_TRUE(memory_->write(Gpa{table + 0x40}, std::as_bytes(std::span(packet))));
    for (std::size_t r = 0; r < regions.size(); ++r) {
      struct {
        std::uint64_t address;
        std::uint32_t reserved = 0, length;
      } region{regions[r].address, 0, regions[r].length - 1};
      ASSERT_TRUE(memory_->writeObject(Gpa{table + 0x80 + 16 * r}, region));
    }
  }
  static std::array<std::uint8_t, 20> ata(std::uint8_t command, std::uint32_t lba, unsigned count) {
    auto byte = [lba](unsigned n) { return static_cast<std::uint8_t>(lba >> (8 * n)); };
    return {0,
            0,
            command,
            0,
            byte(0),
            byte(1),
            byte(2),
            0x40,
            byte(3),
            0,
            0,
            0,
            static_cast<std::uint8_t>(count),
            static_cast<std::uint8_t>(count >> 8)};
  }
  static std::array<std::uint8_t, 20> queued(bool write, std::uint32_t lba, unsigned count, unsigned tag) {
    auto fis = ata(write ? 0x61 : 0x60, lba, 0);
    fis[3] = static_cast<std::uint8_t>(count);
    fis[12] = static_cast<std::uint8_t>(tag << 3);
    return fis;
  }
  std::uint8_t byteAt(std::uint64_t gpa) {
    std::uint8_t value = 0;
    EXPECT_TRUE(memory_->readObject(Gpa{gpa}, value));
    return value;
  }

  std::shared_ptr<TestDisk> disk_ = std::make_shared<TestDisk>(1_MiB), cd_ = std::make_shared<TestDisk>(256_KiB);
  std::unique_ptr<GuestMemory> memory_ = std::move(*GuestMemory::create(4_MiB));
  AhciController hba_{*memory_, "ahci"};
};

TEST_F(AhciTest, TellsWhatIsBehindItsPorts) {
  EXPECT_EQ(get(host::pi), 0x3fu);
  EXPECT_EQ(getPort(0, port::ssts), 0x133u);
  EXPECT_EQ(getPort(0, port::sig), kAtaSignature);
  EXPECT_EQ(getPort(1, port::sig), kAtapiSignature);
  EXPECT_EQ(getPort(2, port::ssts), 0u);
  EXPECT_EQ(getPort(0, port::tfd) & 0x89, 0u);
}

TEST_F(AhciTest, IdentifiesByPio) {
  slot(0, 0, ata(0xec, 0, 0), {{kData, 512}});
  setPort(0, port::ci, 1);
  EXPECT_EQ(getPort(0, port::ci), 0u);
  EXPECT_EQ(getPort(0, port::is), kPioSetupReceived);
  EXPECT_TRUE(intx());
  EXPECT_EQ(get(host::is), 1u);
  EXPECT_EQ(byteAt(kReceived + 0x20), kFisPioSetup);
  EXPECT_EQ(byteAt(kData + 2 * 76 + 1) & 1, 1) << "queuing";
  std::uint32_t count = 0;
  ASSERT_TRUE(memory_->readObject(Gpa{kLists + 4}, count));
  EXPECT_EQ(count, 512u);
  setPort(0, port::is, ~0u);
  EXPECT_TRUE(intx()) << "the controller's bit is its own";
  set(host::is, 1);
  EXPECT_FALSE(intx());
}

TEST_F(AhciTest, TransfersByDmaInPieces) {
  slot(0, 3, ata(0x25, 7, 4), {{kData, 512}, {kData + 0x2000, 1536}});
  setPort(0, port::ci, 8);
  EXPECT_EQ(getPort(0, port::is), kRegistersReceived);
  EXPECT_EQ(byteAt(kReceived + 0x40), kFisRegisters);
  EXPECT_EQ(byteAt(kData), 7);
  EXPECT_EQ(byteAt(kData + 0x2000), 8);
  EXPECT_EQ(byteAt(kData + 0x2400), 10);
  slot(0, 0, ata(0x35, 100, 1), {{kData + 0x2000, 512}}, true);
  setPort(0, port::ci, 1);
  EXPECT_EQ(disk_->content[100 * 512], 8);
  slot(0, 0, ata(0xea, 0, 0), {});
  setPort(0, port::ci, 1);
  EXPECT_EQ(disk_->flushes, 1);
}

TEST_F(AhciTest, QueuedCommandsEndInAnyOrder) {
  disk_->hold = true;
  for (unsigned tag : {0u, 1u, 5u}) slot(0, tag, queued(false, 10 + tag, 1, tag), {{kData + 512 * tag, 512}});
  setPort(0, port::sact, 0x23);
  setPort(0, port::ci, 0x23);
  EXPECT_EQ(getPort(0, port::ci), 0u) << "the slots are free while the commands are under way";
  EXPECT_EQ(getPort(0, port::sact), 0x23u);
  std::swap(disk_->held[0], disk_->held[2]);
  disk_->held.resize(3);
  auto rest = std::vector(disk_->held.begin() + 1, disk_->held.end());
  disk_->held.resize(1);
  disk_->completeHeld();
  EXPECT_EQ(getPort(0, port::sact), 0x03u);
  EXPECT_EQ(getPort(0, port::is), kDeviceBitsReceived);
  EXPECT_EQ(byteAt(kReceived + 0x58 + 4), 0x20);
  disk_->held = rest;
  disk_->completeHeld();
  EXPECT_EQ(getPort(0, port::sact), 0u);
  EXPECT_EQ(byteAt(kData + 512 * 5), 15);
  disk_->hold = false;
  slot(0, 2, queued(true, 50, 1, 2), {{kData + 512 * 5, 512}}, true);
  setPort(0, port::sact, 4);
  setPort(0, port::ci, 4);
  EXPECT_EQ(disk_->content[50 * 512], 15);
}

TEST_F(AhciTest, ErrorsHaltThePortUntilItIsStartedAgain) {
  slot(0, 1, queued(false, 5000, 1, 1), {{kData, 512}});
  setPort(0, port::sact, 2);
  setPort(0, port::ci, 2);
  EXPECT_EQ(getPort(0, port::is), kTaskFileError | kDeviceBitsReceived);
  EXPECT_EQ(getPort(0, port::tfd) & 1, 1u);
  EXPECT_EQ(getPort(0, port::sact), 2u);
  slot(0, 0, ata(0x25, 1, 1), {{kData, 512}});
  setPort(0, port::ci, 1);
  EXPECT_EQ(getPort(0, port::ci), 1u) << "nothing more happens";
  setPort(0, port::cmd, kFisReceive);
  EXPECT_EQ(getPort(0, port::ci) | getPort(0, port::sact), 0u);
  EXPECT_EQ(getPort(0, port::cmd) & kListRunning, 0u);
  setPort(0, port::cmd, kFisReceive | kStart);
  slot(0, 0, ata(0x2f, 0x10, 1), {{kData, 512}});
  setPort(0, port::ci, 1);
  EXPECT_EQ(byteAt(kData), 1) << "the tag that failed";
  EXPECT_EQ(byteAt(kData + 3), 0x10);
  slot(0, 0, ata(0x25, 9000, 1), {{kData, 512}});
  setPort(0, port::ci, 1);
  EXPECT_EQ(getPort(0, port::tfd), 0x1051u);
  EXPECT_EQ(getPort(0, port::ci), 1u);
}

TEST_F(AhciTest, TheLogDirectoryHasTheErrorsOfQueuedCommandsAlone) {
  slot(0, 0, ata(0x2f, 0, 1), {{kData, 512}});
  setPort(0, port::ci, 1);
  EXPECT_EQ(getPort(0, port::tfd) & 1, 0u);
  for (unsigned log = 0; log < 256; ++log) {
    unsigned pages = byteAt(kData + 2 * log) | byteAt(kData + 2 * log + 1) << 8;
    EXPECT_EQ(pages, log == 0 || log == 0x10 ? 1u : 0u) << log;  // of the directory itself: its version
  }
  slot(0, 0, ata(0x2f, 0x30, 1), {{kData, 512}});  // a log that is not there
  setPort(0, port::ci, 1);
  EXPECT_EQ(getPort(0, port::tfd) & 1, 1u);
}

TEST_F(AhciTest, WhatIsNotMemoryIsABusError) {
  slot(0, 0, ata(0x25, 1, 1), {{0xf000'0000, 512}});
  setPort(0, port::ci, 1);
  EXPECT_EQ(getPort(0, port::is) & kHostBusError, kHostBusError);
  setPort(0, port::cmd, 0);
  setPort(0, port::is, ~0u);
  setPort(0, port::cmd, kFisReceive | kStart);
  slot(0, 0, ata(0xea, 0, 0), {{0xf000'0000, 512}});
  setPort(0, port::ci, 1);
  EXPECT_EQ(getPort(0, port::is), kRegistersReceived) << "what is not used does no harm";
  setPort(0, port::cmd, 0);
  setPort(0, port::clb, 0xe000'0000);
  setPort(0, port::cmd, kStart);
  setPort(0, port::ci, 1);
  EXPECT_EQ(getPort(0, port::ci), 1u);
}

TEST_F(AhciTest, PacketsReachTheCdRom) {
  for (int n = 0; n < 2; ++n) {  // the first says that the medium is new
    slot(1, 0, ata(0xa0, 0, 0), {}, false, {0});
    setPort(1, port::cmd, 0);
    setPort(1, port::cmd, kFisReceive | kStart);
    setPort(1, port::ci, 1);
  }
  auto fis = ata(0xa0, 0, 0);
  fis[3] = 1;  // by DMA
  slot(1, 0, fis, {{kData, 0x8000}}, false, {0x28, 0, 0, 0, 0, 9, 0, 0, 2});
  setPort(1, port::ci, 1);
  EXPECT_EQ(getPort(1, port::tfd), 0x50u);
  EXPECT_EQ(byteAt(kData), 9);
  EXPECT_EQ(byteAt(kData + 2048), 10);
  EXPECT_EQ(getPort(1, port::is) & kRegistersReceived, kRegistersReceived);
}

TEST_F(AhciTest, AResetOfTheLinkCutsCommandsOff) {
  setPort(0, port::sctl, 0x301);
  EXPECT_EQ(getPort(0, port::ssts), 0u);
  setPort(0, port::sctl, 0x300);
  EXPECT_EQ(getPort(0, port::ssts), 0x133u);
  EXPECT_EQ(getPort(0, port::serr), kExchanged);
  EXPECT_EQ(getPort(0, port::is), kPortChanged);
  setPort(0, port::is, kPortChanged);
  EXPECT_EQ(getPort(0, port::is), kPortChanged) << "follows SERR";
  set(host::ghc, kHbaReset | kAhciEnable);
  EXPECT_EQ(get(host::ghc), kAhciEnable);
  EXPECT_EQ(getPort(0, port::clb), 0u);
  EXPECT_FALSE(intx());
}

TEST_F(AhciTest, GoesOnFromWhatWasSaved) {
  slot(0, 3, queued(false, 5, 1, 3), {{kData, 512}});
  setPort(0, port::sact, 1 << 3);
  setPort(0, port::ci, 1 << 3);
  EXPECT_TRUE(intx());
  hba_.quiesce();
  state::Archive saved(2);
  hba_.transfer(saved);
  std::uint32_t is = getPort(0, port::is);
  hba_.reset();
  EXPECT_EQ(getPort(0, port::clb), 0u);
  state::Archive loaded(saved.saved(), 2);
  hba_.transfer(loaded);
  ASSERT_TRUE(loaded.finish()) << loaded.finish().error().message();
  EXPECT_TRUE(intx());
  EXPECT_EQ(getPort(0, port::is), is);
  EXPECT_EQ(getPort(0, port::sact), 0u);
  slot(0, 1, ata(0x25, 7, 1), {{kData, 512}});
  setPort(0, port::ci, 2);
  EXPECT_EQ(byteAt(kData), 7);
  for (std::size_t at = 0; at < saved.saved().size(); ++at) {
    std::vector<std::byte> bytes = saved.saved();
    bytes[at] ^= std::byte{0xff};
    state::Archive bad(bytes, 2);
    hba_.transfer(bad);
    setPort(0, port::ci, 2);
    setPort(1, port::ci, 1);
    hba_.quiesce();
  }
}

}  // namespace
}  // namespace lodge
