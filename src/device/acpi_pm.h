// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "base/clock.h"
#include "device/interrupt.h"
#include "memory/io_bus.h"

namespace lodge {

/// ACPI fixed hardware (ACPI 6.0, chapter 4.8.3): PM1a status, enable and control, the PM timer, GPE0. 64 ports:
///   0 PM1_STS (2), 2 PM1_EN (2), 4 PM1_CNT (2), 8 PM_TMR (4, 32 bits), 0x20 GPE0_STS (2), 0x22 GPE0_EN (2),
/// and on boards with system management mode 0x30 SMI_EN (4; ICH9 data sheet, 13.8.3.7).
/// The system control interrupt is level-triggered and high while an enabled event's status is set. Always in ACPI
/// mode. Any thread.
class AcpiPm : public IoDevice {
 public:
  static constexpr std::uint64_t kLength = 0x40;
  static constexpr std::uint64_t kEvent = 0, kControl = 4, kTimer = 8, kGpe0 = 0x20;
  static constexpr unsigned kGpe0Length = 4;
  static constexpr std::uint64_t kSmiEnable = 0x30;
  static constexpr unsigned kS5SleepType = 5;    ///< if nothing else is set
  static constexpr unsigned kPcS5SleepType = 0;  ///< of the PIIX4, and what firmware takes an ICH9's for
  static constexpr std::uint64_t kTimerHz = 3'579'545;

  struct State {
    std::uint16_t status = 0, enable = 0, control = kSciEnabled;
    std::uint16_t gpeStatus = 0, gpeEnable = 0;
    std::uint32_t smiEnable = 0;
  };

  /// `onPowerOff` is called on the vCPU's thread that asks for soft-off (S5).
  AcpiPm(TimerFactory& timers, InterruptLine& sci, std::function<void()> onPowerOff);

  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

  /// The power button was pressed.
  void pressPowerButton();
  /// Before the machine runs: the SLP_TYP that soft-off has.
  void setSoftOffType(unsigned type) { softOffType_ = type; }
  /// Before the machine runs: SMI_EN is there; with `smm`, its bits say what is a system management interrupt, else
  /// firmware finds its handler installed already.
  void enableSmi(bool smm);
  /// SMI_LOCK: GBL_SMI_EN stays as it is.
  void lockSmi(bool locked);
  /// Whether a write to the APM command port is a system management interrupt.
  bool apmRaisesSmi() const;
  /// General purpose event `number`, 0..15, happened.
  void raiseGeneralEvent(unsigned number);
  void reset();
  State save() const;
  void restore(const State& state);

 private:
  static constexpr std::uint16_t kSciEnabled = 1, kTimerStatus = 1 << 0, kGlobalStatus = 1 << 5, kPowerButton = 1 << 8;

  std::uint64_t ticks() const;
  std::uint8_t readByteLocked(std::uint64_t offset, std::uint64_t ticks) const;
  bool writeByteLocked(std::uint64_t offset, std::uint8_t value);
  void collectCarryLocked(std::uint64_t ticks);
  void updateLocked();
  void carry();

  enum class Smi : std::uint8_t { none, fixed, working };

  unsigned softOffType_ = kS5SleepType;
  Smi smi_ = Smi::none;
  bool smiLocked_ = false;
  const Clock& clock_;
  InterruptLine& sci_;
  std::function<void()> onPowerOff_;
  mutable std::mutex mutex_;
  State state_;
  std::uint64_t halves_ = 0;      // how often the PM timer's highest bit had changed when its status was looked at
  std::unique_ptr<Timer> timer_;  // last: its destructor waits for carry()
};

}  // namespace lodge
