// SPDX-License-Identifier: Apache-2.0
// The LINT pins (SDM vol. 3, 11.5.1).
#include "device/local_apic.h"

namespace lodge {

namespace {
constexpr std::uint32_t kRemoteIrr = 1 << 14, kLevelTriggered = 1 << 15;

DeliveryMode modeOf(std::uint32_t entry) {
  return static_cast<DeliveryMode>((entry >> 8) & 7);
}
bool isLevelFixed(std::uint32_t entry) {
  return modeOf(entry) == DeliveryMode::fixed && (entry & kLevelTriggered) != 0;
}
}  // namespace

void LocalApic::setLint(unsigned pin, bool level) {
  std::lock_guard lock(lintMutex_);
  bool rising = level && !lintLevel_[pin];
  lintLevel_[pin] = level;
  driveLintLocked(pin, rising);
}

void LocalApic::storeLint(unsigned index, std::uint32_t value) {
  std::lock_guard lock(lintMutex_);
  std::uint32_t old = lvt_[index].load(std::memory_order_relaxed);
  if (isLevelFixed(value)) value |= old & kRemoteIrr;
  lvt_[index].store(value, std::memory_order_relaxed);
  updateExtIntLocked();
  driveLintLocked(index - kLvtLint0, false);
}

void LocalApic::lintConfigured() {
  std::lock_guard lock(lintMutex_);
  updateExtIntLocked();
  for (unsigned pin = 0; pin < 2; ++pin) driveLintLocked(pin, false);
}

void LocalApic::updateExtIntLocked() {
  bool wanted = away_ && lintLevel_[0];
  for (unsigned pin = 0; pin < 2; ++pin) {
    std::uint32_t entry = lvt_[kLvtLint0 + pin].load(std::memory_order_relaxed);
    bool open = hardwareEnabled() ? (entry & kLvtMasked) == 0 && modeOf(entry) == DeliveryMode::extInt : pin == 0;
    wanted |= !away_ && open && lintLevel_[pin];
  }
  if (extInt_.exchange(wanted) != wanted && wanted) cpu_.raiseInterrupt();
}

void LocalApic::driveLintLocked(unsigned pin, bool rising) {
  if (away_ || !hardwareEnabled()) {  // the pins are the CPU's own INTR and NMI then
    if (pin == 0) updateExtIntLocked();
    if (pin == 1 && rising) cpu_.raiseNmi();
    return;
  }
  std::uint32_t entry = lvt_[kLvtLint0 + pin].load(std::memory_order_relaxed);
  if ((entry & kLvtMasked) != 0) return;
  if (modeOf(entry) == DeliveryMode::extInt) {
    updateExtIntLocked();
  } else if (!isLevelFixed(entry)) {
    if (rising) deliverLvt(kLvtLint0 + pin);
  } else if (lintLevel_[pin] && (entry & kRemoteIrr) == 0 && acceptVector(static_cast<std::uint8_t>(entry), true)) {
    lvt_[kLvtLint0 + pin].store(entry | kRemoteIrr, std::memory_order_relaxed);
  }
}

void LocalApic::lintEndOfInterrupt(std::uint8_t vector) {
  std::lock_guard lock(lintMutex_);
  for (unsigned pin = 0; pin < 2; ++pin) {
    std::uint32_t entry = lvt_[kLvtLint0 + pin].load(std::memory_order_relaxed);
    if (!isLevelFixed(entry) || (entry & 0xff) != vector || (entry & kRemoteIrr) == 0) continue;
    lvt_[kLvtLint0 + pin].store(entry & ~kRemoteIrr, std::memory_order_relaxed);
    driveLintLocked(pin, false);
  }
}

}  // namespace lodge
