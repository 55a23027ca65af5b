// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "storage/ide_drive.h"

namespace lodge {

/// A hard disk (ATA/ATAPI-6): PIO, multiple-sector and DMA transfers with 28- and 48-bit addresses and the cylinders,
/// heads and sectors of old; flush, identification, power commands.
class AtaDisk : public IdeDrive {
 public:
  /// `serial`: up to 20 characters. `serialAta`: identifies as a device behind a SATA link with native command queuing,
  /// which its port does (storage/ahci_port.h).
  AtaDisk(std::shared_ptr<Disk> disk, std::string serial, bool serialAta = false);

  void command(std::uint8_t code) override;
  void blockMoved() override;
  void jobDone(int error) override;
  void dmaFailed() override { complete(ide::kAborted); }
  void reset() override;
  void transfer(state::Archive& a) override;

 private:
  /// The command's transfer; nothing for commands without one.
  struct Transfer {
    std::uint64_t lba = 0;
    std::uint32_t left = 0;   ///< sectors
    std::uint32_t block = 1;  ///< sectors between two interrupts
    bool write = false, dma = false, data = false;
  };
  static constexpr unsigned kMaxMultiple = 16;
  static constexpr std::uint32_t kDmaBlock = 2048;

  std::uint64_t sectors() const { return disk_->sizeBytes() / ide::kSector; }
  bool startTransfer(std::uint8_t code);
  void begin(bool write, bool wide, bool dma, std::uint32_t block);
  bool address(bool wide, std::uint64_t& lba) const;
  void nextBlock(bool first);
  std::uint32_t blockSectors() const { return std::min(transfer_.left, transfer_.block); }
  void identify();
  void setFeatures();
  void nativeMax(bool wide);
  void showAddress(std::uint64_t lba, bool wide);
  void setMultiple();

  std::string serial_;
  bool serialAta_;
  Transfer transfer_;
  unsigned multiple_ = 0;
  unsigned heads_ = 16, sectorsPerTrack_ = 63;
  unsigned cylinders_ = 0;
};

}  // namespace lodge
