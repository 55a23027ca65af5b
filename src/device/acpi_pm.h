// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>

#include "base/clock.h"
#include "device/interrupt.h"
#include "memory/io_bus.h"

namespace lodge {

/// ACPI fixed hardware (ACPI 6.0, chapter 4.8.3): PM1a status, enable and control, the PM timer, GPE0. 64 ports:
///   0 PM1_STS (2), 2 PM1_EN (2), 4 PM1_CNT (2), 8 PM_TMR (4), 0x20 GPE0_STS (2), 0x22 GPE0_EN (2).
/// The system control interrupt is level-triggered and high while an enabled event's status is set. Always in ACPI
/// mode.
class AcpiPm : public IoDevice {
 public:
  static constexpr std::uint64_t kLength = 0x40;
  static constexpr std::uint64_t kEvent = 0, kControl = 4, kTimer = 8, kGpe0 = 0x20;
  static constexpr unsigned kGpe0Length = 4;
  static constexpr unsigned kS5SleepType = 5;
  static constexpr std::uint64_t kTimerHz = 3'579'545;

  struct State {
    std::uint16_t status = 0, enable = 0, control = kSciEnabled;
    std::uint16_t gpeStatus = 0, gpeEnable = 0;
  };

  /// `onPowerOff` is called on the vCPU's thread that asks for soft-off (S5).
  AcpiPm(const Clock& clock, InterruptLine& sci, std::function<void()> onPowerOff);

  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

  /// The power button was pressed. Any thread.
  void pressPowerButton();
  void reset();
  State state() const;

 private:
  static constexpr std::uint16_t kSciEnabled = 1, kTimerStatus = 1 << 0, kGlobalStatus = 1 << 5, kPowerButton = 1 << 8;

  std::uint8_t readByteLocked(std::uint64_t offset) const;
  bool writeByteLocked(std::uint64_t offset, std::uint8_t value);
  void updateSciLocked();

  const Clock& clock_;
  InterruptLine& sci_;
  std::function<void()> onPowerOff_;
  mutable std::mutex mutex_;
  State state_;
};

}  // namespace lodge
