// SPDX-License-Identifier: Apache-2.0
#include "device/i8042.h"

namespace lodge {

namespace {
namespace status {
constexpr std::uint8_t outputFull = 1, systemFlag = 4, command = 8, auxiliary = 0x20, timeout = 0x40;
}
namespace control {
constexpr std::uint8_t keyboardInterrupt = 1, auxiliaryInterrupt = 2, systemFlag = 4, keyboardOff = 0x10,
                       auxiliaryOff = 0x20, translate = 0x40;
}
namespace port {
constexpr std::uint8_t notReset = 1, a20 = 2;
}
constexpr std::uint8_t kResend = 0xfe, kSelfTestPassed = 0x55, kTestPassed = 0, kInputPort = 0x80;

bool takesData(std::uint8_t command) {
  return command == 0x60 || (command >= 0xd1 && command <= 0xd4);
}
}  // namespace

I8042::I8042(InterruptLine& irq1, std::function<void()> onReset) : irq1_(irq1), onReset_(std::move(onReset)) {}

void I8042::answerLocked(std::uint8_t value, std::uint8_t statusBits) {
  state_.data = value;
  constexpr std::uint8_t kOld = status::timeout | status::auxiliary;
  state_.status = static_cast<std::uint8_t>((state_.status & ~kOld) | status::outputFull | statusBits);
  updateLineLocked();
}

void I8042::updateLineLocked() {
  bool full = (state_.status & status::outputFull) != 0, auxiliary = (state_.status & status::auxiliary) != 0;
  irq1_.set(full && !auxiliary && (state_.control & control::keyboardInterrupt) != 0);
  if (irq12_) irq12_->set(full && auxiliary && (state_.control & control::auxiliaryInterrupt) != 0);
}

void I8042::setOutputPortLocked(std::uint8_t value) {
  state_.outputPort = value;
  if (a20_) a20_->set((value & port::a20) != 0);
}

// Port 0x92 may have turned the gate since.
std::uint8_t I8042::outputPortLocked() const {
  if (!a20_) return state_.outputPort;
  return static_cast<std::uint8_t>((state_.outputPort & ~port::a20) | (a20_->open() ? port::a20 : 0));
}

// The next byte of a device goes to the output buffer, if that is empty.
void I8042::pumpLocked() {
  if (!keyboard_ || (state_.status & status::outputFull) != 0) return;
  if (!keyboard_->empty() && (state_.control & control::keyboardOff) == 0) {
    answerLocked(keyboard_->take());
  } else if (!mouse_->empty() && (state_.control & control::auxiliaryOff) == 0) {
    answerLocked(mouse_->take(), status::auxiliary);
  }
}

void I8042::attachDevices(InterruptLine& irq12) {
  irq12_ = &irq12;
  keyboard_ = std::make_unique<Ps2Keyboard>();
  mouse_ = std::make_unique<Ps2Mouse>();
}

void I8042::key(unsigned code, bool down) {
  std::lock_guard lock(mutex_);
  if (!keyboard_) return;
  keyboard_->key(code, down, (state_.control & control::translate) != 0);
  pumpLocked();
}

void I8042::mouse(int dx, int dy, int wheel, unsigned buttons) {
  std::lock_guard lock(mutex_);
  if (!mouse_) return;
  mouse_->move(dx, dy, wheel, buttons);
  pumpLocked();
}

std::uint8_t I8042::readData(unsigned) {
  std::lock_guard lock(mutex_);
  std::uint8_t value = state_.data;
  state_.status &= static_cast<std::uint8_t>(~(status::outputFull | status::timeout | status::auxiliary));
  updateLineLocked();
  pumpLocked();
  return value;
}

std::uint8_t I8042::readStatus(unsigned) {
  std::lock_guard lock(mutex_);
  return state_.status;
}

void I8042::writeCommand(unsigned, std::uint8_t value) {
  bool resetWanted = false;
  {
    std::lock_guard lock(mutex_);
    state_.status |= status::command;
    state_.pendingCommand = takesData(value) ? value : std::uint8_t{0};
    resetWanted = commandLocked(value);
    pumpLocked();
  }
  if (resetWanted) onReset_();
}

/// Whether the machine is to be reset.
bool I8042::commandLocked(std::uint8_t command) {
  switch (command) {
    case 0x20:
      answerLocked(state_.control);
      break;
    case 0xa7:
      state_.control |= control::auxiliaryOff;
      break;
    case 0xa8:
      state_.control &= static_cast<std::uint8_t>(~control::auxiliaryOff);
      break;
    case 0xaa:
      state_.status |= status::systemFlag;
      answerLocked(kSelfTestPassed);
      break;
    case 0xa9:
    case 0xab:
      answerLocked(kTestPassed);
      break;
    case 0xad:
      state_.control |= control::keyboardOff;
      break;
    case 0xae:
      state_.control &= static_cast<std::uint8_t>(~control::keyboardOff);
      break;
    case 0xc0:
      answerLocked(kInputPort);
      break;
    case 0xd0:
      answerLocked(outputPortLocked());
      break;
    case 0xdd:
      setOutputPortLocked(static_cast<std::uint8_t>(outputPortLocked() & ~port::a20));
      break;
    case 0xdf:
      setOutputPortLocked(outputPortLocked() | port::a20);
      break;
    default:
      // 0xf0-0xff pulse the output port's bits that are 0 in the command; bit 0 is the CPU's reset.
      return command >= 0xf0 && (command & port::notReset) == 0;
  }
  return false;
}

void I8042::writeData(unsigned, std::uint8_t value) {
  bool resetWanted = false;
  {
    std::lock_guard lock(mutex_);
    state_.status &= static_cast<std::uint8_t>(~status::command);
    std::uint8_t command = state_.pendingCommand;
    state_.pendingCommand = 0;
    resetWanted = dataForCommandLocked(command, value);
    pumpLocked();
  }
  if (resetWanted) onReset_();
}

bool I8042::dataForCommandLocked(std::uint8_t command, std::uint8_t value) {
  switch (command) {
    case 0x60:
      state_.control = value;
      state_.status = static_cast<std::uint8_t>((state_.status & ~status::systemFlag) | (value & control::systemFlag));
      updateLineLocked();
      break;
    case 0xd1:
      setOutputPortLocked(value);
      return (value & port::notReset) == 0;
    case 0xd2:
      answerLocked(value);
      break;  // as if the keyboard had sent it
    case 0xd3:
      if (!mouse_) answerLocked(kResend, status::timeout);
      if (mouse_) answerLocked(value, status::auxiliary);
      break;
    case 0xd4:
      if (!mouse_) answerLocked(kResend, status::timeout);
      if (mouse_) mouse_->receive(value);
      break;
    default:
      if (!keyboard_) answerLocked(kResend, status::timeout);
      if (keyboard_) {
        // A byte for the keyboard also opens its clock line.
        state_.control &= static_cast<std::uint8_t>(~control::keyboardOff);
        keyboard_->receive(value, (state_.control & control::translate) != 0);
      }
      break;
  }
  return false;
}

void I8042::reset() {
  {
    std::lock_guard lock(mutex_);
    if (keyboard_) keyboard_->reset();
    if (mouse_) mouse_->reset();
  }
  restore(State{});
}

I8042::State I8042::save() const {
  std::lock_guard lock(mutex_);
  State state = state_;
  state.outputPort = outputPortLocked();
  return state;
}

void I8042::restore(const State& state) {
  std::lock_guard lock(mutex_);
  state_ = state;
  setOutputPortLocked(state.outputPort);
  updateLineLocked();
}

}  // namespace lodge
