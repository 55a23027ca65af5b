// SPDX-License-Identifier: Apache-2.0
// The floppy controller's commands that move data (82077AA, 5.1).
#include <algorithm>

#include "storage/floppy_controller.h"

namespace lodge {

namespace {
// Status registers 0, 1 and 2.
constexpr std::uint8_t kAbnormal = 0x40;
constexpr std::uint8_t kEndOfTrack = 0x80, kDataError = 0x20, kOverrun = 0x10, kNoData = 0x04, kNotWritable = 0x02,
                       kNoMark = 0x01;
constexpr std::uint8_t kControlMark = 0x40, kDataField = 0x20, kWrongCylinder = 0x10;
constexpr std::uint8_t kReadTrack = 0x02, kRead = 0x06, kReadDeleted = 0x0c, kVerify = 0x16;
constexpr std::uint8_t kSize512 = 2, kImpliedSeek = 0x40, kNotByDma = 0x01;
}  // namespace

/// What is in the way of finding this sector under the head.
FloppyController::Trouble FloppyController::lookForLocked(const Id& id) {
  if (!presentLocked() || !selectedLocked().medium) return {kNoMark, 0};
  const Drive& d = selectedLocked();
  const FloppyFormat& f = *d.format;
  unsigned head = command_[1] >> 2 & 1;
  // Disks with 40 tracks lie under every second one of the drive's.
  bool wide = f.cylinders == 40;
  unsigned recorded = wide && d.cylinder >= 40 ? d.cylinder / 2u : d.cylinder;
  if (f.rate != rate_ || head >= f.heads || recorded >= f.cylinders) return {kNoMark, 0};
  if (id.c != recorded && !(wide && id.c == d.cylinder / 2)) return {kNoData, kWrongCylinder};
  if (id.h != head || id.n != kSize512 || id.r == 0 || id.r > f.sectors) return {kNoData, 0};
  return {};
}

/// How many sectors there are from id_ on to where the command's end of track is.
std::size_t FloppyController::runLocked() const {
  const FloppyFormat& f = *drives_[command_[1] & 1].format;
  unsigned last = std::min(command_[6], f.sectors);
  bool bothSides = (command_[0] & 0x80) != 0 && id_.h == 0 && f.heads == 2;
  std::size_t run = id_.r <= last ? last - id_.r + 1u : 1u;
  return bothSides ? run + last : run;
}

FloppyController::Work FloppyController::beginTransferLocked() {
  std::uint8_t kind = command_[0] & 0x1f;
  transfer_ = kind == kVerify                                               ? Transfer::verify
              : kind == kRead || kind == kReadDeleted || kind == kReadTrack ? Transfer::read
                                                                            : Transfer::write;
  byFifo_ = (specify_[1] & kNotByDma) != 0;
  mark_ = kind == kReadDeleted ? kControlMark : 0;  // there are no deleted sectors
  lastSector_ = command_[6];
  id_ = {command_[2], command_[3], kind == kReadTrack ? std::uint8_t{1} : command_[4], command_[5]};
  if ((configure_[1] & kImpliedSeek) != 0 && presentLocked() && selectedLocked().medium) {
    selectedLocked().cylinder = id_.c;
    selectedLocked().changed = false;
  }
  Trouble trouble = lookForLocked(id_);
  if (trouble.status1 == 0 && transfer_ == Transfer::write && selectedLocked().medium->readOnly())
    trouble.status1 = kNotWritable;
  if (trouble.status1 != 0) {
    endLocked(trouble);
    return {};
  }
  const FloppyFormat& f = *selectedLocked().format;
  std::size_t run = mark_ != 0 ? 1 : runLocked();
  if (transfer_ == Transfer::verify) {
    bool counted = (command_[1] & 0x80) != 0;
    advanceLocked(counted ? std::min<std::size_t>(run, command_[8]) : run);
    endLocked({});
    return {};
  }
  offset_ = ((std::uint64_t{id_.c} * f.heads + id_.h) * f.sectors + id_.r - 1) * kSectorBytes;
  std::size_t bytes = run * kSectorBytes;
  if (!byFifo_) {
    using Direction = DmaController::Direction;
    wanted_ = dma_.remaining(kDmaChannel, transfer_ == Transfer::read ? Direction::toMemory : Direction::fromMemory);
    if (wanted_ == 0) {
      endLocked({kOverrun, 0});
      return {};
    }
    bytes = std::min(bytes, (wanted_ + kSectorBytes - 1) / kSectorBytes * kSectorBytes);
  }
  phase_ = Phase::execution;
  buffer_ = std::make_shared<std::vector<std::uint8_t>>(bytes);
  bufferAt_ = 0;
  if (transfer_ == Transfer::read) return diskLocked();
  if (byFifo_) {
    raiseLocked();
    return {};
  }
  dma_.transfer(kDmaChannel, *buffer_, DmaController::Direction::fromMemory);
  return diskLocked();
}

/// Asks the disk for the buffer's content, or to take it.
FloppyController::Work FloppyController::diskLocked() {
  ++inFlight_;
  auto disk = selectedLocked().medium;
  auto buffer = transfer_ == Transfer::read ? std::exchange(buffer_, nullptr) : buffer_;
  bool reads = transfer_ == Transfer::read;
  return [this, disk, buffer, reads, generation = generation_, offset = offset_] {
    auto vector = std::make_shared<iovec>(iovec{buffer->data(), buffer->size()});
    auto done = [this, disk, buffer, vector, reads, generation](int error) {
      if (reads) {
        std::lock_guard lock(mutex_);
        if (generation == generation_) buffer_ = buffer;
      }
      diskDone(generation, error);
    };
    if (reads)
      disk->read(offset, {vector.get(), 1}, done);
    else
      disk->write(offset, {vector.get(), 1}, done);
  };
}

void FloppyController::diskDone(std::uint64_t generation, int error) {
  std::lock_guard lock(mutex_);
  if (--inFlight_ == 0) landed_.notify_all();
  if (generation != generation_) return;
  if (error != 0) return endLocked({kDataError, kDataField});
  if (transfer_ == Transfer::read) return readDoneLocked();
  std::size_t bytes = buffer_->size();
  if (transfer_ == Transfer::write) advanceLocked(bytes / kSectorBytes);
  bool tooMuch = transfer_ == Transfer::write && (byFifo_ || wanted_ > bytes);
  endLocked({tooMuch ? kEndOfTrack : std::uint8_t{0}, 0});
}

void FloppyController::readDoneLocked() {
  if (byFifo_) {
    raiseLocked();
    return;
  }
  auto moved = dma_.transfer(kDmaChannel, *buffer_, DmaController::Direction::toMemory);
  advanceLocked((moved.bytes + kSectorBytes - 1) / kSectorBytes);
  // Without a terminal count the track ended first; or the channel was taken away meanwhile.
  std::uint8_t status = moved.ended ? 0 : moved.bytes == buffer_->size() ? kEndOfTrack : kOverrun;
  endLocked({status, mark_});
}

std::uint8_t FloppyController::fifoReadLocked() {
  if (phase_ == Phase::result) {
    if (resultAt_ == 0) lowerLocked();
    std::uint8_t value = result_[resultAt_++];
    if (resultAt_ == result_.size()) {
      phase_ = Phase::command;
      command_.clear();
    }
    return value;
  }
  if (phase_ != Phase::execution || transfer_ != Transfer::read || !byFifo_ || !buffer_) return 0;
  std::uint8_t value = (*buffer_)[bufferAt_++];
  if (bufferAt_ % kSectorBytes == 1) lowerLocked();
  if (bufferAt_ == buffer_->size()) {
    advanceLocked(buffer_->size() / kSectorBytes);
    endLocked({kEndOfTrack, mark_});  // nobody tells the controller to stop sooner
  } else if (bufferAt_ % kSectorBytes == 0) {
    raiseLocked();
  }
  return value;
}

FloppyController::Work FloppyController::fifoWriteLocked(std::uint8_t value) {
  bool takes = transfer_ == Transfer::write || transfer_ == Transfer::format;
  if (!takes || !byFifo_ || !buffer_ || bufferAt_ == buffer_->size()) return {};
  (*buffer_)[bufferAt_++] = value;
  if (bufferAt_ % kSectorBytes == 1) lowerLocked();
  if (bufferAt_ == buffer_->size()) return transfer_ == Transfer::format ? formatTrackLocked() : diskLocked();
  if (bufferAt_ % kSectorBytes == 0) raiseLocked();
  return {};
}

// Four bytes for each sector say what its address is to be.
FloppyController::Work FloppyController::beginFormatLocked() {
  transfer_ = Transfer::format;
  byFifo_ = (specify_[1] & kNotByDma) != 0;
  mark_ = 0;
  std::uint8_t cylinder = presentLocked() ? selectedLocked().cylinder : std::uint8_t{0};
  id_ = {cylinder, static_cast<std::uint8_t>(command_[1] >> 2 & 1), 1, command_[2]};
  lastSector_ = command_[3];
  Trouble trouble = lookForLocked(id_);
  if (trouble.status1 == 0 && selectedLocked().medium->readOnly()) trouble.status1 = kNotWritable;
  // An image has the sectors that it has.
  if (trouble.status1 == 0 && command_[3] != selectedLocked().format->sectors) trouble.status1 = kNoData;
  if (trouble.status1 != 0) {
    endLocked(trouble);
    return {};
  }
  phase_ = Phase::execution;
  buffer_ = std::make_shared<std::vector<std::uint8_t>>(std::size_t{4} * command_[3]);
  bufferAt_ = 0;
  if (byFifo_) {
    raiseLocked();
    return {};
  }
  auto moved = dma_.transfer(kDmaChannel, *buffer_, DmaController::Direction::fromMemory);
  if (moved.bytes == buffer_->size()) return formatTrackLocked();
  endLocked({kOverrun, 0});
  return {};
}

FloppyController::Work FloppyController::formatTrackLocked() {
  const FloppyFormat& f = *selectedLocked().format;
  for (std::size_t n = 0; n < buffer_->size(); n += 4) {
    const std::uint8_t* id = buffer_->data() + n;
    if (id[0] != id_.c || id[1] != id_.h || id[2] == 0 || id[2] > f.sectors || id[3] != kSize512) {
      endLocked({kNoData, 0});
      return {};
    }
  }
  offset_ = (std::uint64_t{id_.c} * f.heads + id_.h) * f.sectors * kSectorBytes;
  buffer_ = std::make_shared<std::vector<std::uint8_t>>(std::size_t{f.sectors} * kSectorBytes, command_[5]);
  bufferAt_ = buffer_->size();
  return diskLocked();
}

void FloppyController::readIdLocked() {
  transfer_ = Transfer::none;
  std::uint8_t cylinder = presentLocked() ? selectedLocked().cylinder : std::uint8_t{0};
  if (presentLocked() && selectedLocked().format && selectedLocked().format->cylinders == 40 && cylinder >= 40)
    cylinder /= 2;
  id_ = {cylinder, static_cast<std::uint8_t>(command_[1] >> 2 & 1), 1, kSize512};
  endLocked(lookForLocked(id_));
}

/// The address behind so many sectors, as the result shows it (5.1.1, table 5-3).
void FloppyController::advanceLocked(std::size_t sectors) {
  bool bothSides = (command_[0] & 0x80) != 0;
  for (; sectors != 0; --sectors) {
    if (id_.r++ != command_[6]) continue;
    id_.r = 1;
    bool second = bothSides && (id_.h & 1) == 0;
    if (!second) ++id_.c;
    if (bothSides) id_.h ^= 1;
  }
}

void FloppyController::endLocked(Trouble trouble) {
  transfer_ = Transfer::none;
  buffer_.reset();
  unsigned head = id_.h & 1u;
  auto status = static_cast<std::uint8_t>((trouble.status1 != 0 ? kAbnormal : 0) | head << 2 | (command_[1] & 3));
  resultLocked({status, trouble.status1, trouble.status2, id_.c, id_.h, id_.r, id_.n}, true);
}

}  // namespace lodge
