// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "storage/ide_drive.h"

namespace lodge {

/// A CD-ROM drive (ATA/ATAPI-6 packet interface; MMC-3 and SPC-2 commands): reads with PIO and DMA, a table of contents
/// of one data track, eject and change of medium.
class AtapiDrive : public IdeDrive {
 public:
  static constexpr unsigned kSector = 2048;
  static constexpr unsigned kPacketBytes = 12;

  /// `medium`: null for an empty drive.
  explicit AtapiDrive(std::shared_ptr<Disk> medium);

  void command(std::uint8_t code) override;
  void blockMoved() override;
  void jobDone(int error) override;
  void dmaFailed() override { fail(sense::hardware, 0x4b00); }
  void reset() override;
  void transfer(state::Archive& a) override;

  /// Puts another medium in, or takes it out (null); the guest is told at its next command. False: the guest has locked
  /// the tray.
  bool change(std::shared_ptr<Disk> medium, bool force);
  bool locked() const { return locked_; }
  bool hasMedium() const { return disk_ != nullptr; }

 private:
  struct sense {
    static constexpr std::uint8_t none = 0, notReady = 2, medium = 3, hardware = 4, illegal = 5, attention = 6;
  };
  enum class Stage : std::uint8_t { none, packet, answer, reading };
  using Packet = std::array<std::uint8_t, kPacketBytes>;
  using Bytes = std::vector<std::uint8_t>;
  static constexpr std::uint32_t kReadAhead = 64;  ///< sectors read from the disk at once

  void identify();
  void execute(const Packet& packet);
  bool executeWithMedium(const Packet& packet);
  void inquiry(const Packet& packet);
  void requestSense(const Packet& packet);
  void startStop(const Packet& packet);
  void modeSense(const Packet& packet);
  void readToc(const Packet& packet);
  void readDiscInformation(const Packet& packet);
  void getConfiguration(const Packet& packet);
  void eventStatus(const Packet& packet);
  void readSectors(std::uint32_t lba, std::uint32_t count);
  void answer(Bytes bytes, std::size_t limit);
  void succeed();
  /// `code`: additional sense code and its qualifier.
  void fail(std::uint8_t key, unsigned code);
  void nextRead();
  void nextChunk();
  std::uint32_t sectors() const;

  /// Takes the medium out. A request that a reset has cut off may still use it, and must not be the last to.
  void removeMedium();

  std::shared_ptr<Disk> retired_;
  Stage stage_ = Stage::none;
  bool dma_ = false;
  std::size_t chunkLimit_ = 0;
  std::shared_ptr<Bytes> pending_;  ///< what the guest gets, in chunks
  std::size_t given_ = 0;
  std::uint32_t readLba_ = 0, readLeft_ = 0;
  std::uint8_t senseKey_ = 0;
  unsigned senseCode_ = 0;
  bool changed_ = false, changeEvent_ = false, locked_ = false, ejectWanted_ = false;
};

}  // namespace lodge
