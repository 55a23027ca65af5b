// SPDX-License-Identifier: Apache-2.0
#include "device/acpi_pm.h"

namespace lodge {

namespace {
constexpr std::uint16_t kSleepEnable = 1 << 13;
constexpr unsigned kSleepTypeShift = 10, kSleepTypeMask = 7;
/// PM1_CNT bits that keep what is written; GBL_RLS and SLP_EN read as zero.
constexpr std::uint16_t kControlKept = kSleepTypeMask << kSleepTypeShift | 1 << 1;
constexpr std::uint8_t kGlobalSmi = 1, kApmSmi = 1 << 5;
constexpr std::uint64_t kHalf = std::uint64_t{1} << 31;

void replaceByte(std::uint16_t& word, unsigned index, std::uint8_t value) {
  word = static_cast<std::uint16_t>((word & ~(0xff << (8 * index))) | value << (8 * index));
}
void clearBits(std::uint16_t& word, unsigned index, std::uint8_t bits) {
  word = static_cast<std::uint16_t>(word & ~(bits << (8 * index)));
}
}  // namespace

AcpiPm::AcpiPm(TimerFactory& timers, InterruptLine& sci, std::function<void()> onPowerOff)
    : clock_(timers.clock()),
      sci_(sci),
      onPowerOff_(std::move(onPowerOff)),
      timer_(timers.makeTimer([this] { carry(); })) {}

/// Of the PM timer since the machine's start.
std::uint64_t AcpiPm::ticks() const {
  auto now = static_cast<unsigned __int128>(clock_.now());
  return static_cast<std::uint64_t>(now * kTimerHz / kNanosecondsPerSecond);
}

std::uint64_t AcpiPm::read(std::uint64_t offset, unsigned size) {
  std::uint64_t count = ticks();
  if (offset == kTimer && size == 4) return count & 0xffff'ffff;
  std::lock_guard lock(mutex_);
  collectCarryLocked(count);
  std::uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= std::uint64_t{readByteLocked(offset + i, count)} << (8 * i);
  return value;
}

std::uint8_t AcpiPm::readByteLocked(std::uint64_t offset, std::uint64_t count) const {
  auto byteOf = [&](std::uint16_t word) { return static_cast<std::uint8_t>(word >> (8 * (offset & 1))); };
  switch (offset & ~std::uint64_t{1}) {
    case kEvent:
      return byteOf(state_.status);
    case kEvent + 2:
      return byteOf(state_.enable);
    case kControl:
      return byteOf(state_.control);
    case kTimer:
    case kTimer + 2:
      return static_cast<std::uint8_t>(count >> (8 * (offset - kTimer)));
    case kGpe0:
      return byteOf(state_.gpeStatus);
    case kGpe0 + 2:
      return byteOf(state_.gpeEnable);
    case kSmiEnable:
    case kSmiEnable + 2:
      return static_cast<std::uint8_t>(state_.smiEnable >> (8 * (offset - kSmiEnable)));
    default:
      return 0;
  }
}

void AcpiPm::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  bool powerOff = false;
  {
    std::lock_guard lock(mutex_);
    collectCarryLocked(ticks());
    for (unsigned i = 0; i < size; ++i) {
      powerOff |= writeByteLocked(offset + i, static_cast<std::uint8_t>(value >> (8 * i)));
    }
    updateLocked();
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
      state_.control = static_cast<std::uint16_t>((state_.control & kControlKept) | kSciEnabled);
      return sleep && type == softOffType_;
    }
    case kGpe0:
      clearBits(state_.gpeStatus, index, value);
      break;
    case kGpe0 + 2:
      replaceByte(state_.gpeEnable, index, value);
      break;
    case kSmiEnable:
      if (smi_ != Smi::working || index != 0) break;
      if (smiLocked_) value = static_cast<std::uint8_t>((value & ~kGlobalSmi) | (state_.smiEnable & kGlobalSmi));
      state_.smiEnable = value & (kGlobalSmi | kApmSmi);
      break;
    default:
      break;
  }
  return false;
}

/// TMR_STS is set when the timer's highest bit changes (4.8.3.1.1).
void AcpiPm::collectCarryLocked(std::uint64_t count) {
  if (count / kHalf == halves_) return;
  halves_ = count / kHalf;
  state_.status |= kTimerStatus;
}

void AcpiPm::updateLocked() {
  constexpr std::uint16_t kEvents = kTimerStatus | kGlobalStatus | kPowerButton;
  sci_.set((state_.status & state_.enable & kEvents) != 0 || (state_.gpeStatus & state_.gpeEnable) != 0);
  if ((state_.enable & kTimerStatus) == 0) return timer_->cancel();
  auto next = static_cast<unsigned __int128>(halves_ + 1) * kHalf * kNanosecondsPerSecond;
  timer_->arm(static_cast<Nanoseconds>((next + kTimerHz - 1) / kTimerHz));
}

void AcpiPm::carry() {
  std::lock_guard lock(mutex_);
  collectCarryLocked(ticks());
  updateLocked();
}

void AcpiPm::pressPowerButton() {
  std::lock_guard lock(mutex_);
  state_.status |= kPowerButton;
  updateLocked();
}

void AcpiPm::raiseGeneralEvent(unsigned number) {
  std::lock_guard lock(mutex_);
  state_.gpeStatus |= static_cast<std::uint16_t>(1u << number);
  updateLocked();
}

void AcpiPm::enableSmi(bool smm) {
  smi_ = smm ? Smi::working : Smi::fixed;
  reset();
}

void AcpiPm::lockSmi(bool locked) {
  std::lock_guard lock(mutex_);
  smiLocked_ = locked;
}

bool AcpiPm::apmRaisesSmi() const {
  std::lock_guard lock(mutex_);
  return smi_ == Smi::working && state_.smiEnable == (kGlobalSmi | kApmSmi);
}

void AcpiPm::reset() {
  State state;
  if (smi_ == Smi::fixed) state.smiEnable = kApmSmi;
  restore(state);
}

AcpiPm::State AcpiPm::save() const {
  std::lock_guard lock(mutex_);
  return state_;
}

void AcpiPm::restore(const State& state) {
  std::lock_guard lock(mutex_);
  state_ = state;
  halves_ = ticks() / kHalf;
  updateLocked();
}

}  // namespace lodge
