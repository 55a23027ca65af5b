// SPDX-License-Identifier: Apache-2.0
#include "storage/ide_channel.h"

#include <sys/uio.h>

namespace lodge {

namespace {
enum Register : unsigned { data, errorOrFeatures, sectorCount, lbaLow, lbaMid, lbaHigh, device, statusOrCommand };
constexpr std::uint8_t kNoInterrupts = 2, kSoftwareReset = 4, kShowPrevious = 0x80;  // control
constexpr std::uint8_t kSecond = 0x10;                                               // device
using Phase = IdeDrive::Phase;
}  // namespace

IdeChannel::IdeChannel(GuestMemory& memory, InterruptLine& interrupt) : memory_(memory), interrupt_(interrupt) {}

IdeChannel::~IdeChannel() {
  std::unique_lock lock(mutex_);
  ++generation_;
  landed_.wait(lock, [this] { return inFlight_ == 0; });
}

void IdeChannel::attach(unsigned unit, std::unique_ptr<IdeDrive> drive) {
  drives_.at(unit) = std::move(drive);
}

void IdeChannel::reset() {
  std::lock_guard lock(mutex_);
  resetDrivesLocked();
  control_ = 0;
  selected_ = 0;
  master_ = {};
}

void IdeChannel::resetDrivesLocked() {
  ++generation_;
  at_ = 0;
  for (auto& drive : drives_) {
    if (drive) drive->reset();
  }
  setLineLocked(false);
}

void IdeChannel::setLineLocked(bool level) {
  line_ = level;
  interrupt_.set(level && (control_ & kNoInterrupts) == 0);
}

std::uint64_t IdeChannel::readCommand(std::uint64_t offset, unsigned size) {
  std::uint64_t value = 0;
  IdeDrive::Job job;
  {
    std::lock_guard lock(mutex_);
    if (offset == data) {
      value = readDataLocked(size);
    } else {
      for (unsigned n = 0; n < size && offset + n <= statusOrCommand; ++n) {
        value |= std::uint64_t{readRegisterLocked(static_cast<unsigned>(offset) + n)} << (8 * n);
      }
    }
    job = settleLocked();
  }
  start(std::move(job));
  return value;
}

void IdeChannel::writeCommand(std::uint64_t offset, unsigned size, std::uint64_t value) {
  IdeDrive::Job job;
  {
    std::lock_guard lock(mutex_);
    if (offset == data) {
      writeDataLocked(size, value);
    } else {
      for (unsigned n = 0; n < size && offset + n <= statusOrCommand; ++n) {
        writeRegisterLocked(static_cast<unsigned>(offset) + n, static_cast<std::uint8_t>(value >> (8 * n)));
      }
    }
    job = settleLocked();
  }
  start(std::move(job));
}

std::uint8_t IdeChannel::readAlternateStatus() {
  std::lock_guard lock(mutex_);
  IdeDrive* drive = selectedLocked();
  return drive ? drive->registers().status : 0;
}

void IdeChannel::writeControl(std::uint8_t value) {
  std::lock_guard lock(mutex_);
  bool resets = (value & kSoftwareReset) != 0 && (control_ & kSoftwareReset) == 0;
  control_ = value;
  if (resets) {
    resetDrivesLocked();
    selected_ = 0;
  } else {
    setLineLocked(line_);
  }
}

std::uint8_t IdeChannel::readRegisterLocked(unsigned offset) {
  IdeDrive* drive = selectedLocked();
  if (!drive) return 0;
  IdeTaskFile& r = drive->registers();
  auto pick = [this](const IdeTaskFile::Register& reg) {
    return (control_ & kShowPrevious) != 0 ? reg.before : reg.now;
  };
  switch (offset) {
    case errorOrFeatures:
      return r.error;
    case sectorCount:
      return pick(r.count);
    case lbaLow:
      return pick(r.low);
    case lbaMid:
      return pick(r.mid);
    case lbaHigh:
      return pick(r.high);
    case device:
      return static_cast<std::uint8_t>((r.device & ~kSecond) | (selected_ != 0 ? kSecond : 0) | 0xa0);
    default:
      setLineLocked(false);
      return r.status;
  }
}

void IdeChannel::writeRegisterLocked(unsigned offset, std::uint8_t value) {
  control_ &= static_cast<std::uint8_t>(~kShowPrevious);
  if (offset == statusOrCommand) return commandLocked(value);
  if (offset == device) selected_ = (value & kSecond) != 0 ? 1 : 0;
  for (auto& drive : drives_) {
    if (!drive || drive->phase() == Phase::busy) continue;
    IdeTaskFile& r = drive->registers();
    switch (offset) {
      case errorOrFeatures:
        r.features.write(value);
        break;
      case sectorCount:
        r.count.write(value);
        break;
      case lbaLow:
        r.low.write(value);
        break;
      case lbaMid:
        r.mid.write(value);
        break;
      case lbaHigh:
        r.high.write(value);
        break;
      default:
        r.device = value;
        break;
    }
  }
}

void IdeChannel::commandLocked(std::uint8_t code) {
  constexpr std::uint8_t kDeviceReset = 0x08, kDiagnostic = 0x90;
  IdeDrive* drive = selectedLocked();
  if (!drive) return;
  bool busy = drive->phase() == Phase::busy;
  if (busy && code != kDeviceReset) return;
  if (busy) ++generation_;
  setLineLocked(false);
  working_ = selected_;
  at_ = 0;
  drive->command(code);
  // Both drives run their diagnostics; the answer is the first one's.
  if (code == kDiagnostic && drives_[1 - selected_] && drives_[1 - selected_]->phase() == Phase::idle) {
    IdeDrive& other = *drives_[1 - selected_];
    other.command(code);
    (void)other.takeInterrupt();
  }
}

std::uint64_t IdeChannel::readDataLocked(unsigned size) {
  IdeDrive* drive = selectedLocked();
  if (!drive || drive->phase() != Phase::pioIn) return 0;
  std::vector<std::uint8_t>& bytes = drive->data();
  std::uint64_t value = 0;
  for (unsigned n = 0; n < size && at_ < bytes.size(); ++n) value |= std::uint64_t{bytes[at_++]} << (8 * n);
  if (at_ >= bytes.size()) {
    at_ = 0;
    drive->blockMoved();
  }
  return value;
}

void IdeChannel::writeDataLocked(unsigned size, std::uint64_t value) {
  IdeDrive* drive = selectedLocked();
  if (!drive || drive->phase() != Phase::pioOut) return;
  std::vector<std::uint8_t>& bytes = drive->data();
  for (unsigned n = 0; n < size && at_ < bytes.size(); ++n) bytes[at_++] = static_cast<std::uint8_t>(value >> (8 * n));
  if (at_ < bytes.size()) return;
  at_ = 0;
  drive->blockMoved();
}

IdeDrive::Job IdeChannel::settleLocked() {
  constexpr std::uint8_t kInterrupt = 4, kActive = 1, kStart = 1;
  IdeDrive* drive = drives_[working_].get();
  if (!drive) return {};
  while ((master_.command & kStart) != 0 && (drive->phase() == Phase::dmaIn || drive->phase() == Phase::dmaOut)) {
    if (transferLocked(*drive, drive->phase() == Phase::dmaIn)) {
      drive->blockMoved();
    } else {
      master_.status |= 2;
      drive->dmaFailed();
    }
  }
  if (drive->takeInterrupt()) {
    master_.status |= kInterrupt;
    if (drive->phase() == Phase::idle) master_.status &= static_cast<std::uint8_t>(~kActive);
    setLineLocked(true);
  }
  IdeDrive::Job job = drive->takeJob();
  if (job.kind != IdeDrive::Job::Kind::none) ++inFlight_;
  return job;
}

void IdeChannel::start(IdeDrive::Job job) {
  if (job.kind == IdeDrive::Job::Kind::none) return;
  unsigned generation = 0;
  {
    std::lock_guard lock(mutex_);
    generation = generation_;
  }
  auto vector = std::make_shared<iovec>();
  if (job.data) *vector = {job.data->data(), job.data->size()};
  std::span<const iovec> span(vector.get(), 1);
  // Buffers and disk live as long as the request.
  auto done = [this, generation, vector, keep = job.data, disk = job.disk](int error) { ended(error, generation); };
  switch (job.kind) {
    case IdeDrive::Job::Kind::read:
      return job.disk->read(job.offset, span, std::move(done));
    case IdeDrive::Job::Kind::write:
      return job.disk->write(job.offset, span, std::move(done));
    default:
      return job.disk->flush(std::move(done));
  }
}

void IdeChannel::ended(int error, unsigned generation) {
  IdeDrive::Job next;
  {
    std::lock_guard lock(mutex_);
    if (generation == generation_ && drives_[working_]) {
      at_ = 0;
      drives_[working_]->jobDone(error);
      next = settleLocked();
    }
  }
  start(std::move(next));
  std::lock_guard lock(mutex_);
  if (--inFlight_ == 0) landed_.notify_all();
}

}  // namespace lodge
