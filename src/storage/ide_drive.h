// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "image/disk.h"
#include "state/archive.h"

namespace lodge {

/// The registers of an ATA device (ATA/ATAPI-6, chapter 7). Those that 48-bit addresses pass twice keep the value
/// before the last, too.
struct IdeTaskFile {
  struct Register {
    std::uint8_t now = 0, before = 0;
    void write(std::uint8_t value) {
      before = now;
      now = value;
    }
  };
  Register features, count, low, mid, high;
  std::uint8_t device = 0, status = 0, error = 0;
};

namespace ide {
inline constexpr std::uint8_t kBusy = 0x80, kReady = 0x40, kFault = 0x20, kSeekDone = 0x10, kDataRequest = 0x08,
                              kError = 0x01;                                             // status
inline constexpr std::uint8_t kAborted = 0x04, kNotFound = 0x10, kUncorrectable = 0x40;  // error
inline constexpr std::uint8_t kLba = 0x40;                                               // device
inline constexpr unsigned kSector = 512;
}  // namespace ide

/// A device on an IDE channel: takes commands, and asks for data to be moved and disk requests to be made. The channel
/// calls it with its mutex held, and looks at phase(), takeJob() and takeInterrupt() after each call.
class IdeDrive {
 public:
  /// What the device waits for. In the data phases, data() is to be moved between it and the guest, by the data
  /// register (pio) or by the bus master (dma); then comes blockMoved().
  enum class Phase : std::uint8_t { idle, busy, pioIn, pioOut, dmaIn, dmaOut };
  /// A request to the disk; after it comes jobDone().
  struct Job {
    enum class Kind : std::uint8_t { none, read, write, flush } kind = Kind::none;
    std::uint64_t offset = 0;
    std::shared_ptr<std::vector<std::uint8_t>> data{};
    std::shared_ptr<Disk> disk{};
  };

  virtual ~IdeDrive() = default;
  virtual void command(std::uint8_t code) = 0;
  virtual void blockMoved() = 0;
  virtual void jobDone(int error) = 0;
  /// The bus master's list was too short or not in memory: the command ends with an error.
  virtual void dmaFailed() = 0;
  /// Hardware or software reset: the signature (ATA/ATAPI-6, 9.12).
  virtual void reset();
  /// Saves or loads the device while it has no request to the disk.
  virtual void transfer(state::Archive& a);
  /// Disk::settle() of the medium, if there is one.
  int settle();

  Phase phase() const { return phase_; }
  std::vector<std::uint8_t>& data() { return *data_; }
  IdeTaskFile& registers() { return regs_; }
  Job takeJob() { return std::exchange(job_, Job{}); }
  bool takeInterrupt() { return std::exchange(interrupt_, false); }
  bool isPacketDevice() const { return packetDevice_; }

 protected:
  /// `isPacketDevice` decides the signature.
  IdeDrive(std::shared_ptr<Disk> disk, bool isPacketDevice) : disk_(std::move(disk)), packetDevice_(isPacketDevice) {}
  void setSignature();
  void complete(std::uint8_t error, bool interrupt = true);
  void wantData(Phase phase, std::size_t bytes);
  void offerData(Phase phase, std::shared_ptr<std::vector<std::uint8_t>> data);
  /// What the last read job brought.
  void offerRead(Phase phase);
  /// For reads, `data` becomes data() at once, and is full when jobDone() is called.
  void startJob(Job::Kind kind, std::uint64_t offset, std::shared_ptr<std::vector<std::uint8_t>> data);
  void raiseInterrupt() { interrupt_ = true; }

  IdeTaskFile regs_;
  std::shared_ptr<Disk> disk_;

 private:
  bool packetDevice_;
  Phase phase_ = Phase::idle;
  std::shared_ptr<std::vector<std::uint8_t>> data_ = std::make_shared<std::vector<std::uint8_t>>();
  Job job_;
  bool interrupt_ = false;
};

/// The words of an IDENTIFY answer (ATA/ATAPI-6, 8.12 and 8.13).
class IdentifyWords {
 public:
  IdentifyWords() : bytes_(std::make_shared<std::vector<std::uint8_t>>(ide::kSector)) {}
  IdentifyWords& word(unsigned index, unsigned value) {
    (*bytes_)[2 * index] = static_cast<std::uint8_t>(value);
    (*bytes_)[2 * index + 1] = static_cast<std::uint8_t>(value >> 8);
    return *this;
  }
  IdentifyWords& dword(unsigned index, std::uint64_t value) {
    return word(index, value & 0xffff).word(index + 1, value >> 16 & 0xffff);
  }
  /// Two characters a word, the first in the high byte; padded with spaces.
  IdentifyWords& text(unsigned index, unsigned words, const std::string& value) {
    for (unsigned n = 0; n < 2 * words; ++n) {
      (*bytes_)[2 * index + (n ^ 1)] = n < value.size() ? static_cast<std::uint8_t>(value[n]) : ' ';
    }
    return *this;
  }
  std::shared_ptr<std::vector<std::uint8_t>> take() { return bytes_; }

 private:
  std::shared_ptr<std::vector<std::uint8_t>> bytes_;
};

}  // namespace lodge
