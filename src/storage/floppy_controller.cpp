// SPDX-License-Identifier: Apache-2.0
#include "storage/floppy_controller.h"

#include <algorithm>

namespace lodge {

namespace {
// Registers (82077AA, 2.1).
constexpr unsigned kStatusA = 0, kStatusB = 1, kDigitalOutput = 2, kTapeDrive = 3, kMainStatus = 4, kFifo = 5;
constexpr std::uint8_t kNotReset = 0x04;                                                 // digital output register
constexpr std::uint8_t kRequest = 0x80, kToHost = 0x40, kNotByDma = 0x20, kBusy = 0x10;  // main status register
constexpr std::uint8_t kSeekEnd = 0x20, kAbnormal = 0x40, kInvalid = 0x80, kEquipment = 0x10;  // status register 0

/// How many bytes a command has with its first; by its lower five bits (5.1). 0: no such command.
unsigned lengthOf(std::uint8_t first) {
  switch (first & 0x1f) {
    case 0x02:  // READ TRACK
    case 0x05:  // WRITE DATA
    case 0x06:  // READ DATA
    case 0x09:  // WRITE DELETED DATA
    case 0x0c:  // READ DELETED DATA
    case 0x16:  // VERIFY
      return 9;
    case 0x0d:  // FORMAT TRACK
      return 6;
    case 0x13:  // CONFIGURE
      return 4;
    case 0x03:  // SPECIFY
    case 0x0f:  // SEEK
      return 3;
    case 0x04:  // SENSE DRIVE STATUS
    case 0x07:  // RECALIBRATE
    case 0x0a:  // READ ID
    case 0x12:  // PERPENDICULAR MODE
      return 2;
    case 0x08:  // SENSE INTERRUPT STATUS
    case 0x0e:  // DUMPREG
    case 0x10:  // VERSION
    case 0x14:  // LOCK
      return 1;
    default:
      return 0;
  }
}
}  // namespace

FloppyController::~FloppyController() {
  std::unique_lock lock(mutex_);
  landed_.wait(lock, [this] { return inFlight_ == 0; });
}

void FloppyController::attach(unsigned drive, std::uint8_t type, std::shared_ptr<Disk> medium) {
  Drive& d = drives_.at(drive);
  d.type = type;
  if (medium) d.format = floppyFormatOf(medium->sizeBytes());
  d.medium = std::move(medium);
}

bool FloppyController::change(unsigned drive, std::shared_ptr<Disk> medium) {
  auto format = medium ? floppyFormatOf(medium->sizeBytes()) : std::nullopt;
  if (medium && !format) return false;
  std::lock_guard lock(mutex_);
  Drive& d = drives_.at(drive);
  std::swap(d.medium, medium);
  d.format = format;
  d.changed = true;
  return true;
}

Status FloppyController::plugPorts(IoBus& ports) {
  if (Status s = ports.add(kPort, kBytes, registers_, "floppy controller"); !s) return s;
  return ports.add(kInputPort, 1, input_, "floppy controller's input register");
}

void FloppyController::reset() {
  std::lock_guard lock(mutex_);
  dor_ = 0;
  lock_ = false;
  resetLocked(true);
  resetsToSense_ = 0;
  lowerLocked();
}

// LOCK keeps what CONFIGURE has set over resets by software (5.2.7). After any the drives' state is to be asked for.
void FloppyController::resetLocked(bool hard) {
  ++generation_;
  phase_ = Phase::command;
  transfer_ = Transfer::none;
  command_.clear();
  result_.clear();
  sought_.reset();
  resetsToSense_ = 4;
  perpendicular_ = 0;
  if (hard || !lock_) configure_ = {};
  lowerLocked();
}

void FloppyController::raiseLocked() {
  raised_ = true;
  if ((dor_ & kGateBit) != 0) irq_.set(true);
}

void FloppyController::lowerLocked() {
  raised_ = false;
  irq_.set(false);
}

std::uint64_t FloppyController::Registers::read(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(owner->mutex_);
  std::uint64_t value = 0;
  for (unsigned n = 0; n < size; ++n)
    value |= std::uint64_t{owner->readLocked(static_cast<unsigned>(offset) + n)} << (8 * n);
  return value;
}

void FloppyController::Registers::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  for (unsigned n = 0; n < size; ++n) {
    Work work;
    {
      std::lock_guard lock(owner->mutex_);
      work = owner->writeLocked(static_cast<unsigned>(offset) + n, static_cast<std::uint8_t>(value >> (8 * n)));
    }
    if (work) work();
  }
}

/// The digital input register: whether the medium was changed.
std::uint64_t FloppyController::InputRegister::read(std::uint64_t, unsigned) {
  std::lock_guard lock(owner->mutex_);
  unsigned selected = owner->dor_ & 3;
  bool there = selected < kDrives && owner->drives_[selected].type != 0;
  return there && owner->drives_[selected].changed ? 0x80 : 0;
}

/// The configuration control register: the data rate.
void FloppyController::InputRegister::write(std::uint64_t, unsigned, std::uint64_t value) {
  std::lock_guard lock(owner->mutex_);
  owner->rate_ = value & 3;
}

std::uint8_t FloppyController::readLocked(unsigned offset) {
  switch (offset) {
    case kDigitalOutput:
      return dor_;
    case kTapeDrive:
      return tapeDrive_;
    case kMainStatus: {
      if ((dor_ & kNotReset) == 0) return 0;
      switch (phase_) {
        case Phase::command:
          return static_cast<std::uint8_t>(kRequest | (command_.empty() ? 0 : kBusy));
        case Phase::result:
          return kRequest | kToHost | kBusy;
        case Phase::execution:
          break;
      }
      if (!byFifo_ || !buffer_) return kBusy;
      return static_cast<std::uint8_t>(kRequest | kNotByDma | kBusy | (transfer_ == Transfer::read ? kToHost : 0));
    }
    case kFifo:
      return fifoReadLocked();
    default:
      return 0xff;  // status registers A and B are of the PS/2's mode
  }
}

FloppyController::Work FloppyController::writeLocked(unsigned offset, std::uint8_t value) {
  constexpr std::uint8_t kSoftReset = 0x80;
  switch (offset) {
    case kDigitalOutput: {
      bool released = (dor_ & kNotReset) == 0 && (value & kNotReset) != 0;
      bool held = (value & kNotReset) == 0;
      dor_ = value;
      if (held) resetLocked(false);
      if (released) {
        resetsToSense_ = 4;
        raiseLocked();
      }
      if ((dor_ & kGateBit) == 0) irq_.set(false);
      break;
    }
    case kTapeDrive:
      tapeDrive_ = value & 3;
      break;
    case kMainStatus:  // the data rate select register
      rate_ = value & 3;
      if ((value & kSoftReset) == 0) break;
      resetLocked(false);
      raiseLocked();
      break;
    case kFifo:
      if ((dor_ & kNotReset) == 0) break;
      if (phase_ == Phase::command) return commandByteLocked(value);
      if (phase_ == Phase::execution) return fifoWriteLocked(value);
      break;
    case kStatusA:
    case kStatusB:
    default:
      break;
  }
  return {};
}

unsigned FloppyController::commandLengthLocked() const {
  return command_.empty() ? 0 : lengthOf(command_[0]);
}

FloppyController::Work FloppyController::commandByteLocked(std::uint8_t value) {
  command_.push_back(value);
  unsigned length = lengthOf(command_[0]);
  if (length == 0) {
    resultLocked({kInvalid}, false);
    return {};
  }
  return command_.size() == length ? beginLocked() : Work{};
}

FloppyController::Work FloppyController::beginLocked() {
  unsigned drive = command_.size() > 1 ? command_[1] & 3 : 0, head = command_.size() > 1 ? command_[1] >> 2 & 1 : 0;
  switch (command_[0] & 0x1f) {
    case 0x0d:
      return beginFormatLocked();
    case 0x03:
      specify_ = {command_[1], command_[2]};
      break;
    case 0x13:
      configure_ = {command_[1], command_[2], command_[3]};
      break;
    case 0x12:
      perpendicular_ = command_[1];
      break;
    case 0x04: {
      constexpr std::uint8_t kProtected = 0x40, kTrack0 = 0x10, kAlways = 0x28;
      std::uint8_t status = static_cast<std::uint8_t>(kAlways | (command_[1] & 7));
      if (presentLocked() && selectedLocked().cylinder == 0) status |= kTrack0;
      if (presentLocked() && selectedLocked().medium && selectedLocked().medium->readOnly()) status |= kProtected;
      resultLocked({status}, false);
      return {};
    }
    case 0x07:
      seekLocked(drive, 0, true);
      break;
    case 0x0f: {
      int by = command_[2], at = presentLocked() ? selectedLocked().cylinder : 0;
      bool relative = (command_[0] & 0x80) != 0, up = (command_[0] & 0x40) != 0;
      seekLocked(drive | head << 2, relative ? (up ? at + by : at - by) : by, false);
      break;
    }
    case 0x08:
      senseInterruptLocked();
      return {};
    case 0x0e:
      resultLocked(
          {drives_[0].cylinder, drives_[1].cylinder, 0, 0, specify_[0], specify_[1], lastSector_,
           static_cast<std::uint8_t>((lock_ ? 0x80 : 0) | (perpendicular_ & 0x3f)), configure_[1], configure_[2]},
          false);
      return {};
    case 0x10:
      resultLocked({0x90}, false);  // an 82077AA
      return {};
    case 0x14:
      lock_ = (command_[0] & 0x80) != 0;
      resultLocked({static_cast<std::uint8_t>(lock_ ? 0x10 : 0)}, false);
      return {};
    case 0x0a:
      readIdLocked();
      return {};
    default:
      return beginTransferLocked();
  }
  command_.clear();
  return {};
}

void FloppyController::resultLocked(std::initializer_list<std::uint8_t> bytes, bool interrupts) {
  result_ = bytes;
  resultAt_ = 0;
  phase_ = Phase::result;
  if (interrupts) raiseLocked();
}

// Without a medium the heads move as well, but the change line stays.
void FloppyController::seekLocked(unsigned drive, int cylinder, bool recalibrate) {
  std::uint8_t status = static_cast<std::uint8_t>(kSeekEnd | (drive & 7));
  std::uint8_t at = 0;
  if ((drive & 3) < kDrives && drives_[drive & 1].type != 0) {
    Drive& d = drives_[drive & 1];
    auto target = static_cast<std::uint8_t>(std::clamp(cylinder, 0, int{kMaxCylinder}));
    // The change line goes off by a step with a medium.
    if (d.medium && (target != d.cylinder || recalibrate)) d.changed = false;
    at = d.cylinder = target;
  } else if (recalibrate) {
    status |= kAbnormal | kEquipment;  // track 0 was not found
  }
  sought_ = {status, at};
  raiseLocked();
}

void FloppyController::senseInterruptLocked() {
  constexpr std::uint8_t kPolled = 0xc0;
  lowerLocked();
  if (sought_) {
    auto [status, cylinder] = *sought_;
    sought_.reset();
    return resultLocked({status, cylinder}, false);
  }
  if (resetsToSense_ != 0) {
    unsigned drive = 4 - resetsToSense_--;
    std::uint8_t cylinder = drive < kDrives ? drives_[drive].cylinder : std::uint8_t{0};
    return resultLocked({static_cast<std::uint8_t>(kPolled | drive), cylinder}, false);
  }
  resultLocked({kInvalid}, false);
}

}  // namespace lodge
