// SPDX-License-Identifier: Apache-2.0
#include "device/uart.h"

#include <algorithm>

namespace lodge {

namespace {
// Register bits, by the data sheet's names (section 8).
namespace ier {
constexpr std::uint8_t received = 1, transmitterEmpty = 2, lineStatus = 4, modemStatus = 8, all = 15;
}
namespace fcr {
constexpr std::uint8_t enable = 1, clearReceiver = 2, clearTransmitter = 4, kept = 0xc9;
}
namespace iir {
constexpr std::uint8_t none = 1, modemStatus = 0, transmitterEmpty = 2, received = 4, lineStatus = 6, timeout = 0xc,
                       fifos = 0xc0;
}
namespace lcr {
constexpr std::uint8_t divisorLatch = 0x80;
}
namespace lsr {
constexpr std::uint8_t dataReady = 1, overrun = 2, holdingEmpty = 0x20, empty = 0x40;
}
namespace mcr {
constexpr std::uint8_t dtr = 1, rts = 2, out1 = 4, out2 = 8, loopback = 16, all = 31;
}
namespace msr {
constexpr std::uint8_t cts = 0x10, dsr = 0x20, ri = 0x40, dcd = 0x80;
}

// In loopback the modem control outputs appear at the modem status inputs (data sheet 8.6).
std::uint8_t modemInputs(std::uint8_t control) {
  if ((control & mcr::loopback) == 0) return msr::cts | msr::dsr | msr::dcd;
  std::uint8_t status = 0;
  if ((control & mcr::rts) != 0) status |= msr::cts;
  if ((control & mcr::dtr) != 0) status |= msr::dsr;
  if ((control & mcr::out1) != 0) status |= msr::ri;
  if ((control & mcr::out2) != 0) status |= msr::dcd;
  return status;
}
}  // namespace

Uart::Uart(InterruptLine& interrupt, TimerFactory& timers, Output output)
    : interrupt_(interrupt), output_(std::move(output)), clock_(timers.clock()) {
  outputTimer_ = timers.makeTimer([this] { flush(); });
}

Uart::~Uart() {
  outputTimer_.reset();
}

std::size_t Uart::fifoDepthLocked() const {
  return (fcr_ & fcr::enable) != 0 ? kFifoBytes : 1;
}

std::uint64_t Uart::read(std::uint64_t offset, unsigned size) {
  std::uint64_t value = 0;
  bool roomMade = false;
  std::function<void()> callback;
  {
    std::lock_guard lock(mutex_);
    for (unsigned i = 0; i < size; ++i) value |= std::uint64_t{readLocked(offset + i, roomMade)} << (8 * i);
    if (roomMade && roomWanted_ && backlog_.size() <= kBacklogBytes / 2) {
      roomWanted_ = false;
      callback = onRoom_;
    }
  }
  if (callback) callback();
  return value;
}

std::uint8_t Uart::readLocked(std::uint64_t offset, bool& roomMade) {
  bool latch = (lcr_ & lcr::divisorLatch) != 0;
  std::uint8_t value = 0;
  switch (offset) {
    case 0:
      if (latch) return divisorLow_;
      if (fifo_.empty()) return 0;
      value = fifo_.front();
      fifo_.pop_front();
      receiveLocked();
      roomMade = true;
      updateInterruptLocked();
      return value;
    case 1:
      return latch ? divisorHigh_ : ier_;
    case 2:
      value = identificationLocked();
      // Reading the identification ends a transmitter-empty interrupt (table II).
      if ((value & 15) == iir::transmitterEmpty) transmitterEmptyPending_ = false;
      updateInterruptLocked();
      return value;
    case 3:
      return lcr_;
    case 4:
      return mcr_;
    case 5:
      value = lsr::holdingEmpty | lsr::empty;
      if (!fifo_.empty()) value |= lsr::dataReady;
      if (overrun_) value |= lsr::overrun;
      overrun_ = false;
      updateInterruptLocked();
      return value;
    case 6:
      value = static_cast<std::uint8_t>(modemInputs(mcr_) | msrDelta_);
      msrDelta_ = 0;
      updateInterruptLocked();
      return value;
    default:
      return scratch_;
  }
}

void Uart::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  std::unique_lock order(outputMutex_);
  std::string ready;
  {
    std::lock_guard lock(mutex_);
    for (unsigned i = 0; i < size; ++i) writeLocked(offset + i, static_cast<std::uint8_t>(value >> (8 * i)), ready);
  }
  if (!ready.empty()) output_(ready.data(), ready.size());
}

void Uart::writeLocked(std::uint64_t offset, std::uint8_t value, std::string& ready) {
  bool latch = (lcr_ & lcr::divisorLatch) != 0;
  switch (offset) {
    case 0:
      if (latch)
        divisorLow_ = value;
      else
        transmitLocked(value, ready);
      break;
    case 1:
      if (latch) {
        divisorHigh_ = value;
        break;
      }
      // Enabling the transmitter-empty interrupt while it is empty raises it.
      if ((value & ~ier_ & ier::transmitterEmpty) != 0) transmitterEmptyPending_ = true;
      ier_ = value & ier::all;
      break;
    case 2:
      if ((value & fcr::clearReceiver) != 0 || ((value ^ fcr_) & fcr::enable) != 0) fifo_.clear();
      fcr_ = (value & fcr::enable) != 0 ? value & fcr::kept : 0;
      receiveLocked();
      break;
    case 3:
      lcr_ = value;
      break;
    case 4: {
      std::uint8_t before = modemInputs(mcr_);
      mcr_ = value & mcr::all;
      std::uint8_t changed = before ^ modemInputs(mcr_);
      msrDelta_ |= static_cast<std::uint8_t>((changed >> 4) & 0xb);
      if ((before & ~modemInputs(mcr_) & msr::ri) != 0) msrDelta_ |= 4;  // trailing edge only
      break;
    }
    case 5:
    case 6:
      break;  // read-only
    default:
      scratch_ = value;
      break;
  }
  updateInterruptLocked();
}

void Uart::transmitLocked(std::uint8_t byte, std::string& ready) {
  transmitterEmptyPending_ = true;
  if ((mcr_ & mcr::loopback) != 0) {
    if (fifo_.size() < fifoDepthLocked())
      fifo_.push_back(byte);
    else
      overrun_ = true;
    return;
  }
  pendingOutput_.push_back(static_cast<char>(byte));
  if (pendingOutput_.size() >= kOutputBatch) {
    ready += pendingOutput_;
    pendingOutput_.clear();
  } else if (!outputArmed_) {
    outputArmed_ = true;
    outputTimer_->arm(clock_.now() + kOutputDelay);
  }
}

void Uart::flush() {
  std::unique_lock order(outputMutex_);
  std::string ready;
  {
    std::lock_guard lock(mutex_);
    outputArmed_ = false;
    ready.swap(pendingOutput_);
  }
  if (!ready.empty()) output_(ready.data(), ready.size());
}

std::size_t Uart::input(const char* data, std::size_t length) {
  std::lock_guard lock(mutex_);
  std::size_t room = kBacklogBytes - std::min(kBacklogBytes, backlog_.size());
  std::size_t taken = std::min(room, length);
  backlog_.insert(backlog_.end(), data, data + taken);
  if (taken < length) roomWanted_ = true;
  receiveLocked();
  updateInterruptLocked();
  return taken;
}

void Uart::onRoom(std::function<void()> callback) {
  std::lock_guard lock(mutex_);
  onRoom_ = std::move(callback);
}

void Uart::receiveLocked() {
  if ((mcr_ & mcr::loopback) != 0) return;  // the line is disconnected
  while (!backlog_.empty() && fifo_.size() < fifoDepthLocked()) {
    fifo_.push_back(backlog_.front());
    backlog_.pop_front();
  }
}

std::uint8_t Uart::identificationLocked() const {
  std::uint8_t fifos = (fcr_ & fcr::enable) != 0 ? iir::fifos : 0;
  if ((ier_ & ier::lineStatus) != 0 && overrun_) return fifos | iir::lineStatus;
  if ((ier_ & ier::received) != 0 && !fifo_.empty()) {
    static constexpr std::uint8_t kTriggers[] = {1, 4, 8, 14};
    // Below the trigger level the character time-out follows; four character times are no time for a fast host.
    bool below = fifos != 0 && fifo_.size() < kTriggers[fcr_ >> 6];
    return static_cast<std::uint8_t>(fifos | (below ? iir::timeout : iir::received));
  }
  if ((ier_ & ier::transmitterEmpty) != 0 && transmitterEmptyPending_) return fifos | iir::transmitterEmpty;
  if ((ier_ & ier::modemStatus) != 0 && msrDelta_ != 0) return fifos | iir::modemStatus;
  return fifos | iir::none;
}

void Uart::updateInterruptLocked() {
  // OUT2 gates the interrupt onto the bus on a PC.
  bool gate = (mcr_ & (mcr::out2 | mcr::loopback)) == mcr::out2;
  interrupt_.set(gate && (identificationLocked() & 1) == 0);
}

void Uart::reset() {
  flush();
  std::lock_guard lock(mutex_);
  ier_ = fcr_ = lcr_ = mcr_ = scratch_ = divisorHigh_ = msrDelta_ = 0;
  divisorLow_ = 12;
  overrun_ = transmitterEmptyPending_ = false;
  fifo_.clear();
  updateInterruptLocked();
}

}  // namespace lodge
