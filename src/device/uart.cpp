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
constexpr std::uint8_t enable = 1, clearReceiver = 2, kept = 0xc9;
}
namespace iir {
constexpr std::uint8_t none = 1, modemStatus = 0, transmitterEmpty = 2, received = 4, lineStatus = 6, timeout = 0xc,
                       fifos = 0xc0, source = 0x0f;
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
constexpr std::uint8_t cts = 0x10, dsr = 0x20, ri = 0x40, dcd = 0x80, trailingRi = 4;
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
    : interrupt_(interrupt),
      clock_(timers.clock()),
      output_(std::move(output)),
      outputTimer_(timers.makeTimer([this] { flush(); })),
      inputTimer_(timers.makeTimer([this] { inputTime(); })) {}

std::size_t Uart::fifoDepthLocked() const {
  return (state_.fcr & fcr::enable) != 0 ? kFifoBytes : 1;
}

bool Uart::divisorLatchLocked() const {
  return (state_.lcr & lcr::divisorLatch) != 0;
}

std::uint64_t Uart::read(std::uint64_t offset, unsigned size) {
  std::uint64_t value = 0;
  std::function<void()> callback;
  {
    std::lock_guard lock(mutex_);
    for (unsigned i = 0; i < size; ++i) value |= std::uint64_t{readLocked(offset + i)} << (8 * i);
    callback = takeRoomCallbackLocked();
  }
  if (callback) callback();
  return value;
}

std::uint8_t Uart::readLocked(std::uint64_t offset) {
  std::uint8_t value = 0;
  switch (offset) {
    case 0:
      return divisorLatchLocked() ? static_cast<std::uint8_t>(state_.divisor) : readReceivedLocked();
    case 1:
      return divisorLatchLocked() ? static_cast<std::uint8_t>(state_.divisor >> 8) : state_.ier;
    case 2:
      value = identificationLocked();
      // Reading the identification ends a transmitter-empty interrupt (table II).
      if ((value & iir::source) == iir::transmitterEmpty) state_.transmitterEmptied = false;
      break;
    case 3:
      return state_.lcr;
    case 4:
      return state_.mcr;
    case 5:
      value = lsr::holdingEmpty | lsr::empty;
      if (state_.received != 0) value |= lsr::dataReady;
      if (state_.overrun) value |= lsr::overrun;
      state_.overrun = false;
      break;
    case 6:
      value = modemInputs(state_.mcr) | state_.modemDelta;
      state_.modemDelta = 0;
      break;
    default:
      return state_.scratch;
  }
  updateInterruptLocked();
  return value;
}

std::uint8_t Uart::readReceivedLocked() {
  if (state_.received == 0) return 0;
  std::uint8_t value = state_.fifo[0];
  std::copy(state_.fifo.begin() + 1, state_.fifo.begin() + state_.received, state_.fifo.begin());
  --state_.received;
  feedLocked();
  updateInterruptLocked();
  return value;
}

void Uart::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  std::unique_lock order(outputMutex_);
  std::string ready;
  std::function<void()> callback;
  {
    std::lock_guard lock(mutex_);
    for (unsigned i = 0; i < size; ++i) writeLocked(offset + i, static_cast<std::uint8_t>(value >> (8 * i)), ready);
    callback = takeRoomCallbackLocked();
  }
  if (!ready.empty()) output_(ready.data(), ready.size());
  order.unlock();
  if (callback) callback();
}

void Uart::writeLocked(std::uint64_t offset, std::uint8_t value, std::string& ready) {
  switch (offset) {
    case 0:
      if (!divisorLatchLocked()) {
        transmitLocked(value, ready);
      } else {
        state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0xff00) | value);
      }
      break;
    case 1:
      if (divisorLatchLocked()) {
        state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0xff) | value << 8);
        break;
      }
      // Enabling the transmitter-empty interrupt while it is empty raises it.
      if ((value & ~state_.ier & ier::transmitterEmpty) != 0) state_.transmitterEmptied = true;
      state_.ier = value & ier::all;
      feedLocked();
      break;
    case 2:
      writeFifoControlLocked(value);
      break;
    case 3:
      state_.lcr = value;
      break;
    case 4:
      writeModemControlLocked(value);
      break;
    case 5:
    case 6:
      break;  // read-only
    default:
      state_.scratch = value;
      break;
  }
  updateInterruptLocked();
}

void Uart::writeFifoControlLocked(std::uint8_t value) {
  if ((value & fcr::clearReceiver) != 0 || ((value ^ state_.fcr) & fcr::enable) != 0) state_.received = 0;
  state_.fcr = (value & fcr::enable) != 0 ? value & fcr::kept : 0;
  feedLocked();
}

void Uart::writeModemControlLocked(std::uint8_t value) {
  std::uint8_t before = modemInputs(state_.mcr);
  state_.mcr = value & mcr::all;
  std::uint8_t after = modemInputs(state_.mcr);
  std::uint8_t changed = (before ^ after) & (msr::cts | msr::dsr | msr::dcd);
  state_.modemDelta |= static_cast<std::uint8_t>(changed >> 4);
  if ((before & ~after & msr::ri) != 0) state_.modemDelta |= msr::trailingRi;
  feedLocked();
}

void Uart::transmitLocked(std::uint8_t byte, std::string& ready) {
  state_.transmitterEmptied = true;
  if ((state_.mcr & mcr::loopback) != 0) {
    if (state_.received < fifoDepthLocked()) {
      state_.fifo[state_.received++] = byte;
    } else {
      state_.overrun = true;
    }
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
  feedLocked();
  updateInterruptLocked();
  return taken;
}

void Uart::onRoom(std::function<void()> callback) {
  std::lock_guard lock(mutex_);
  onRoom_ = std::move(callback);
}

std::function<void()> Uart::takeRoomCallbackLocked() {
  if (!roomWanted_ || backlog_.size() > kBacklogBytes / 2) return {};
  roomWanted_ = false;
  return onRoom_;
}

/// Moves input into the FIFO, as far as the guest wants it, there is room, and the line would have brought it by now.
void Uart::feedLocked() {
  bool wanted = (state_.mcr & mcr::rts) != 0 || (state_.ier & ier::received) != 0;
  if (backlog_.empty() || !wanted || (state_.mcr & mcr::loopback) != 0) return;
  Nanoseconds now = clock_.now();
  if (now >= lineFreeAt_) {
    Nanoseconds fed = 0;
    for (; !backlog_.empty() && state_.received < fifoDepthLocked(); ++fed) {
      state_.fifo[state_.received++] = backlog_.front();
      backlog_.pop_front();
    }
    lineFreeAt_ = now + fed * kCharacterTime;
  }
  // While the FIFO is full, the guest's next read comes here again.
  if (backlog_.empty() || inputArmed_ || state_.received == fifoDepthLocked()) return;
  inputArmed_ = true;
  inputTimer_->arm(lineFreeAt_);
}

void Uart::inputTime() {
  std::function<void()> callback;
  {
    std::lock_guard lock(mutex_);
    inputArmed_ = false;
    feedLocked();
    updateInterruptLocked();
    callback = takeRoomCallbackLocked();
  }
  if (callback) callback();
}

std::uint8_t Uart::identificationLocked() const {
  std::uint8_t fifos = (state_.fcr & fcr::enable) != 0 ? iir::fifos : 0;
  if ((state_.ier & ier::lineStatus) != 0 && state_.overrun) return fifos | iir::lineStatus;
  if ((state_.ier & ier::received) != 0 && state_.received != 0) {
    static constexpr std::uint8_t kTriggers[] = {1, 4, 8, 14};
    // Below the trigger level the character time-out comes, at once: no time is saved for whoever types.
    bool below = fifos != 0 && state_.received < kTriggers[state_.fcr >> 6];
    return static_cast<std::uint8_t>(fifos | (below ? iir::timeout : iir::received));
  }
  if ((state_.ier & ier::transmitterEmpty) != 0 && state_.transmitterEmptied) return fifos | iir::transmitterEmpty;
  if ((state_.ier & ier::modemStatus) != 0 && state_.modemDelta != 0) return fifos | iir::modemStatus;
  return fifos | iir::none;
}

void Uart::updateInterruptLocked() {
  // OUT2 gates the interrupt onto the bus on a PC.
  bool gate = (state_.mcr & (mcr::out2 | mcr::loopback)) == mcr::out2;
  interrupt_.set(gate && (identificationLocked() & iir::none) == 0);
}

void Uart::reset() {
  flush();
  std::lock_guard lock(mutex_);
  state_ = State{};
  updateInterruptLocked();
}

Uart::State Uart::save() const {
  std::lock_guard lock(mutex_);
  State state = state_;
  state.waiting.assign(backlog_.begin(), backlog_.end());
  return state;
}

void Uart::restore(const State& state) {
  std::lock_guard lock(mutex_);
  state_ = state;
  state_.received = std::min<std::uint8_t>(state_.received, kFifoBytes);
  backlog_.assign(state.waiting.begin(), state.waiting.end());
  state_.waiting.clear();
  feedLocked();
  updateInterruptLocked();
}

}  // namespace lodge
