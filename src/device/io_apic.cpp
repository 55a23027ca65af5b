// SPDX-License-Identifier: Apache-2.0
#include "device/io_apic.h"

namespace lodge {

namespace {
constexpr std::uint64_t kSelectOffset = 0x00, kWindowOffset = 0x10, kEoiOffset = 0x40;
constexpr std::uint32_t kRegisterId = 0, kRegisterVersion = 1, kRegisterArbitration = 2, kRegisterEntries = 0x10;
constexpr std::uint32_t kVersion = 0x20 | (IoApic::kPins - 1) << 16;

// Redirection table entry (data sheet, 3.2.4).
constexpr std::uint64_t kLogical = 1 << 11, kRemoteIrr = 1 << 14, kLevel = 1 << 15, kMasked = 1 << 16;
constexpr std::uint64_t kWritable = 0xff00'0000'0001'afff;

DeliveryMode modeOf(std::uint64_t entry) {
  return static_cast<DeliveryMode>((entry >> 8) & 7);
}
/// Only vectors have an EOI; a level-triggered NMI goes out on its rising edge.
bool isLevel(std::uint64_t entry) {
  return (entry & kLevel) != 0 &&
         (modeOf(entry) == DeliveryMode::fixed || modeOf(entry) == DeliveryMode::lowestPriority);
}
}  // namespace

IoApic::IoApic(ApicMessageSink& sink, std::uint8_t id) : sink_(sink), initialId_(id) {
  for (unsigned pin = 0; pin < kPins; ++pin) {
    lines_[pin].owner = this;
    lines_[pin].pin = pin;
  }
  reset();
}

void IoApic::reset() {
  std::lock_guard lock(mutex_);
  state_.select = 0;
  state_.id = initialId_;
  state_.entries.fill(kMasked);  // lines stay as their devices hold them
  for (unsigned pin = 0; pin < kPins; ++pin) tellLevelLocked(pin);
}

ApicMessage IoApic::messageLocked(unsigned pin) const {
  std::uint64_t entry = state_.entries[pin];
  return {static_cast<std::uint32_t>(entry >> 56),
          false,
          (entry & kLogical) != 0,
          modeOf(entry),
          static_cast<std::uint8_t>(entry),
          isLevel(entry),
          true};
}

bool IoApic::sendLocked(unsigned pin) {
  return sink_.deliver(messageLocked(pin));
}

bool IoApic::waits(unsigned pin) const {
  std::lock_guard lock(mutex_);
  return (state_.entries[pin] & kMasked) == 0 && sink_.waits(messageLocked(pin));
}

void IoApic::setLine(unsigned pin, bool level) {
  std::lock_guard lock(mutex_);
  if (highLocked(pin) == level) return;
  state_.levels ^= 1u << pin;
  if (!level) return;
  if (isLevel(state_.entries[pin])) {
    driveLevelLocked(pin);
  } else if ((state_.entries[pin] & kMasked) == 0) {
    sendLocked(pin);  // edges at a masked pin are lost
  }
}

void IoApic::tellLevelLocked(unsigned pin) {
  ApicMessage message = messageLocked(pin);
  sink_.setLevelMessage(pin, message.levelTriggered ? &message : nullptr);
}

/// Remote IRR is set when a CPU accepted the message, and holds further ones until the EOI.
void IoApic::driveLevelLocked(unsigned pin) {
  std::uint64_t& entry = state_.entries[pin];
  if (!isLevel(entry) || !highLocked(pin) || (entry & (kMasked | kRemoteIrr)) != 0) return;
  if (sendLocked(pin)) entry |= kRemoteIrr;
}

void IoApic::endOfInterrupt(std::uint8_t vector) {
  std::lock_guard lock(mutex_);
  endOfInterruptLocked(vector);
}

void IoApic::endOfInterruptLocked(std::uint8_t vector) {
  for (unsigned pin = 0; pin < kPins; ++pin) {
    std::uint64_t& entry = state_.entries[pin];
    if ((entry & 0xff) != vector || (entry & kRemoteIrr) == 0) continue;
    entry &= ~kRemoteIrr;
    driveLevelLocked(pin);
  }
}

std::uint64_t IoApic::read(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(mutex_);
  std::uint64_t value = 0;
  if ((offset & ~std::uint64_t{3}) == kSelectOffset) value = state_.select;
  if ((offset & ~std::uint64_t{3}) == kWindowOffset) value = readRegisterLocked();
  value >>= 8 * (offset & 3);
  return size >= 4 ? value : value & ((1u << (8 * size)) - 1);
}

void IoApic::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  std::lock_guard lock(mutex_);
  if (offset == kSelectOffset) state_.select = static_cast<std::uint8_t>(value);
  if (offset == kEoiOffset) endOfInterruptLocked(static_cast<std::uint8_t>(value));
  if (offset == kWindowOffset && size >= 4) writeRegisterLocked(static_cast<std::uint32_t>(value));
}

std::uint32_t IoApic::readRegisterLocked() const {
  std::uint32_t index = state_.select;
  if (index == kRegisterId || index == kRegisterArbitration) return state_.id << 24;
  if (index == kRegisterVersion) return kVersion;
  if (index < kRegisterEntries || index >= kRegisterEntries + 2 * kPins) return 0;
  std::uint64_t entry = state_.entries[(index - kRegisterEntries) / 2];
  return static_cast<std::uint32_t>(index & 1 ? entry >> 32 : entry);
}

void IoApic::writeRegisterLocked(std::uint32_t value) {
  std::uint32_t index = state_.select;
  if (index == kRegisterId) state_.id = (value >> 24) & 0xf;
  if (index < kRegisterEntries || index >= kRegisterEntries + 2 * kPins) return;
  unsigned pin = (index - kRegisterEntries) / 2;
  std::uint64_t entry = state_.entries[pin];
  if (index & 1) {
    writeEntryLocked(pin, (entry & 0xffff'ffff) | std::uint64_t{value} << 32);
  } else {
    writeEntryLocked(pin, (entry & ~std::uint64_t{0xffff'ffff}) | value);
  }
}

void IoApic::writeEntryLocked(unsigned pin, std::uint64_t entry) {
  std::uint64_t remoteIrr = state_.entries[pin] & kRemoteIrr;
  state_.entries[pin] = entry & kWritable;
  // A pin that becomes edge-triggered forgets its remote IRR; guests use that where they trust no EOI register.
  if (isLevel(entry)) state_.entries[pin] |= remoteIrr;
  tellLevelLocked(pin);
  driveLevelLocked(pin);
}

IoApic::State IoApic::save() const {
  std::lock_guard lock(mutex_);
  return state_;
}

void IoApic::restore(const State& state) {
  std::lock_guard lock(mutex_);
  state_ = state;
  for (unsigned pin = 0; pin < kPins; ++pin) tellLevelLocked(pin);
}

IoApic::State IoApic::surrender() {
  std::lock_guard lock(mutex_);
  State state = state_;
  state_.entries.fill(kMasked);
  for (unsigned pin = 0; pin < kPins; ++pin) tellLevelLocked(pin);
  return state;
}

void IoApic::adopt(const State& state) {
  restore(state);
  std::lock_guard lock(mutex_);
  for (unsigned pin = 0; pin < kPins; ++pin) driveLevelLocked(pin);
}

}  // namespace lodge
