// SPDX-License-Identifier: Apache-2.0
#include "device/acpi_pm.h"

namespace lodge {

namespace {
constexpr std::uint16_t kSleepEnable = 1 << 13;
constexpr unsigned kSleepTypeShift = 10, kSleepTypeMask = 7;

void replaceByte(std::uint16_t& word, unsigned index, std::uint8_t value) {
  word = static_cast<std::uint16_t>((word & ~(0xff << (8 * index))) | value << (8 * index));
}
void clearBits(std::uint16_t& word, unsigned index, std::uint8_t bits) {
  word = static_cast<std::uint16_t>(word & ~(bits << (8 * index)));
}
}  // namespace

AcpiPm::AcpiPm(const Clock& clock, InterruptLine& sci, std::function<void()> onPowerOff)
    : clock_(clock), sci_(sci), onPowerOff_(std::move(onPowerOff)) {}

std::uint64_t AcpiPm::read(std::uint64_t offset, unsigned size) {
  if (offset == kTimer && size == 4) {
    // Seconds and rest apart: the product of the whole would overflow after an hour.
    auto now = static_cast<std::uint64_t>(clock_.now());
    std::uint64_t second = kNanosecondsPerSecond;
    return (now / second * kTimerHz + now % second * kTimerHz / second) & 0xffff'ffff;
  }
  std::lock_guard lock(mutex_);
  std::uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= std::uint64_t{readByteLocked(offset + i)} << (8 * i);
  return value;
}

std::uint8_t AcpiPm::readByteLocked(std::uint64_t offset) const {
  auto byteOf = [&](std::uint16_t word) { return static_cast<std::uint8_t>(word >> (8 * (offset & 1))); };
  switch (offset & ~std::uint64_t{1}) {
    case kEvent:
      return byteOf(state_.status);
    case kEvent + 2:
      return byteOf(state_.enable);
    case kControl:
      return byteOf(state_.control);
    case kGpe0:
      return byteOf(state_.gpeStatus);
    case kGpe0 + 2:
      return byteOf(state_.gpeEnable);
    default:
      return 0;
  }
}

void AcpiPm::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  bool powerOff = false;
  {
    std::lock_guard lock(mutex_);
    for (unsigned i = 0; i < size; ++i)
      powerOff |= writeByteLocked(offset + i, static_cast<std::uint8_t>(value >> (8 * i)));
    updateSciLocked();
  }
  if (powerOff) onPowerOff_();
}

bool AcpiPm::writeByteLocked(std::uint64_t offset, std::uint8_t value) {
  unsigned index = offset & 1;
  switch (offset & ~std::uint64_t{1}) {
    case kEvent:
      clearBits(state_.status, index, value);
      break;  // write one to clear
    case kEvent + 2:
      replaceByte(state_.enable, index, value);
      break;
    case kControl: {
      replaceByte(state_.control, index, value);
      bool sleep = (state_.control & kSleepEnable) != 0;
      unsigned type = (state_.control >> kSleepTypeShift) & kSleepTypeMask;
      state_.control = static_cast<std::uint16_t>((state_.control & ~kSleepEnable) | kSciEnabled);
      return sleep && type == kS5SleepType;
    }
    case kGpe0:
      clearBits(state_.gpeStatus, index, value);
      break;
    case kGpe0 + 2:
      replaceByte(state_.gpeEnable, index, value);
      break;
    default:
      break;
  }
  return false;
}

void AcpiPm::updateSciLocked() {
  std::uint16_t events = kTimerStatus | kGlobalStatus | kPowerButton;
  sci_.set((state_.status & state_.enable & events) != 0 || (state_.gpeStatus & state_.gpeEnable) != 0);
}

void AcpiPm::pressPowerButton() {
  std::lock_guard lock(mutex_);
  state_.status |= kPowerButton;
  updateSciLocked();
}

void AcpiPm::reset() {
  std::lock_guard lock(mutex_);
  state_ = State{};
  updateSciLocked();
}

AcpiPm::State AcpiPm::state() const {
  std::lock_guard lock(mutex_);
  return state_;
}

}  // namespace lodge
