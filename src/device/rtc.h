// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "base/clock.h"
#include "device/calendar.h"
#include "device/interrupt.h"
#include "device/io_window.h"

namespace lodge {

/// The MC146818 real-time clock and its CMOS memory (Motorola data sheet; PC use as in the ICH9 data sheet, 13.6):
/// index at port 0x70, data at 0x71. Time is the host's UTC plus what the guest set it off by. Any thread.
///
/// Flags of interrupts that are enabled are raised by a timer; those that are not are found out when register C is
/// read, so that a guest which does not use the clock costs nothing. Periodic interrupts that find the one before not
/// answered (register C not read) are owed, up to four seconds of them, and follow between the next ones.
class Rtc {
 public:
  struct Setup {
    TimerFactory& timers;
    InterruptLine& irq8;
    std::function<Nanoseconds()> utc;  ///< the host's time: nanoseconds since 1970-01-01 00:00 UTC
    std::uint64_t lowMemory;           ///< bytes of RAM below 4 GiB, for the CMOS bytes that firmware would fill in
    std::uint64_t highMemory;          ///< bytes of RAM from 4 GiB on
    unsigned cpus;
  };
  explicit Rtc(const Setup& setup);

  IoDevice& ports() { return ports_; }  ///< 2 bytes at 0x70
  /// A byte of CMOS memory, 0x0e to 0x7f, that the board fills in for firmware.
  void storeCmos(unsigned index, std::uint8_t value) {
    std::lock_guard lock(mutex_);
    state_.cmos.at(index & 0x7f) = value;
  }
  /// Machine reset: interrupts off; the time and CMOS memory stay.
  void reset();

  static constexpr unsigned kCenturyIndex = 0x32;  ///< for the FADT
  static constexpr std::uint8_t kShutdownIndex = 0x0f;

  struct State {
    std::array<std::uint8_t, 128> cmos;
    std::uint8_t index;
    Nanoseconds offset;  ///< guest time - host UTC
    Nanoseconds held;    ///< guest time at which the clock was stopped, if it stands
    Nanoseconds seen;    ///< guest time up to which flags are up to date
  };
  State save() const;
  void restore(const State& state);

 private:
  std::uint8_t readPort(unsigned offset);
  void writePort(unsigned offset, std::uint8_t value);
  std::uint8_t timeRegisterLocked(const CivilTime& time, unsigned index) const;
  Nanoseconds timeOfRegistersLocked() const;
  void fillTimeRegistersLocked();
  void writeTimeLocked(unsigned index, std::uint8_t value);
  void writeRegisterALocked(std::uint8_t value);
  void writeRegisterBLocked(std::uint8_t value);
  std::uint8_t readRegisterCLocked();
  void setRunningLocked(bool wasRunning, Nanoseconds before, bool afterDividerReset);

  bool runningLocked() const;
  Nanoseconds nowLocked() const;
  Nanoseconds periodLocked() const;
  bool alarmInLocked(std::int64_t firstSecond, std::int64_t lastSecond) const;
  void collectFlagsLocked();
  void updateLineLocked();
  void scheduleLocked();
  void tick();
  bool countsPeriodsLocked() const;

  std::uint8_t encodeLocked(unsigned value) const;
  unsigned decodeLocked(std::uint8_t value) const;
  unsigned decodeHourLocked(std::uint8_t value) const;
  std::uint8_t& reg(unsigned index) { return state_.cmos[index]; }
  std::uint8_t reg(unsigned index) const { return state_.cmos[index]; }

  const Clock& clock_;
  InterruptLine& irq8_;
  std::function<Nanoseconds()> utc_;
  ByteWindow<Rtc, &Rtc::readPort, &Rtc::writePort> ports_{*this};
  mutable std::mutex mutex_;
  State state_{};
  std::int64_t owed_ = 0;         ///< periodic interrupts
  std::unique_ptr<Timer> timer_;  // last: its destructor waits for tick()
};

}  // namespace lodge
