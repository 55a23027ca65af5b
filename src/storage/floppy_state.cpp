// SPDX-License-Identifier: Apache-2.0
// How the floppy controller is saved and loaded: in any phase, but without a request to a disk.
#include <algorithm>

#include "storage/floppy_controller.h"

namespace lodge {

using state::Archive;

bool FloppyController::isQuiet() {
  std::lock_guard lock(mutex_);
  return inFlight_ == 0;
}

int FloppyController::quiesce() {
  std::unique_lock lock(mutex_);
  landed_.wait(lock, [this] { return inFlight_ == 0; });
  int error = 0;
  for (Drive& d : drives_) {
    if (int failed = d.medium ? d.medium->settle() : 0; error == 0) error = failed;
  }
  return error;
}

/// What the transfer under way would do must be what its command can have led to.
bool FloppyController::transferFitsLocked() const {
  if (transfer_ != Transfer::read && transfer_ != Transfer::write && transfer_ != Transfer::format) return false;
  if (!byFifo_ || command_.size() != (transfer_ == Transfer::format ? 6u : 9u) || !presentLocked()) return false;
  const Drive& d = drives_[command_[1] & 1];
  if (!d.medium || !d.format || !buffer_ || bufferAt_ >= buffer_->size()) return false;
  if (transfer_ == Transfer::format)
    return !d.medium->readOnly() && command_[3] == d.format->sectors && buffer_->size() == 4u * command_[3] &&
           id_.c < d.format->cylinders && id_.h < d.format->heads;
  if (transfer_ == Transfer::write && d.medium->readOnly()) return false;
  std::uint64_t size = d.medium->sizeBytes();
  return buffer_->size() % kSectorBytes == 0 && offset_ % kSectorBytes == 0 && buffer_->size() <= size &&
         offset_ <= size - buffer_->size();
}

void FloppyController::transfer(Archive& a) {
  std::lock_guard lock(mutex_);
  for (Drive& d : drives_) {
    std::uint8_t type = d.type;
    a(type, d.cylinder, d.changed);
    a.require(type == d.type, "the type of a floppy drive");
    a.require(d.cylinder <= kMaxCylinder, "a floppy drive's cylinder");
  }
  a(dor_, rate_, tapeDrive_, specify_, configure_, perpendicular_, lastSector_, lock_, raised_, phase_, command_,
    result_);
  std::uint64_t at = resultAt_, bufferAt = bufferAt_, wanted = wanted_;
  a(at, resetsToSense_, sought_, transfer_, byFifo_, mark_, id_.c, id_.h, id_.r, id_.n);
  bool buffered = buffer_ != nullptr;
  std::vector<std::uint8_t> buffer = buffered ? *buffer_ : std::vector<std::uint8_t>();
  a(buffered, buffer, bufferAt, offset_, wanted);
  a.require(phase_ <= Phase::result && transfer_ <= Transfer::format, "a floppy controller's phase");
  a.require(command_.size() <= 9 && result_.size() <= 16 && at <= result_.size(), "a floppy controller's bytes");
  a.require(phase_ != Phase::result || at < result_.size(), "a floppy controller's result");
  a.require(resetsToSense_ <= 4 && rate_ <= 3 && buffer.size() <= kMostBuffer, "a floppy controller's state");
  if (a.mayApply()) {
    resultAt_ = at;
    bufferAt_ = bufferAt;
    wanted_ = wanted;
    buffer_ = buffered ? std::make_shared<std::vector<std::uint8_t>>(std::move(buffer)) : nullptr;
  }
  a.require(phase_ != Phase::command || command_.size() < std::max(1u, commandLengthLocked()), "a floppy command");
  a.require(phase_ != Phase::execution || transferFitsLocked(), "a transfer to or from a floppy disk");
  if (!a.loading()) return;
  if (!a.ok()) {
    dor_ = 0;
    resultAt_ = 0;
    resetLocked(true);
  }
  irq_.set(raised_ && (dor_ & kGateBit) != 0);
}

}  // namespace lodge
