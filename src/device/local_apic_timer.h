// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>

#include "base/clock.h"

namespace lodge {

/// The local APIC's timer (SDM vol. 3, 11.5.4): one-shot, periodic and TSC-deadline. It counts at 1 GHz before
/// division. Owned by a LocalApic. Registers are used on the vCPU's thread; `expired` is called on the I/O thread or,
/// for a deadline that is past already, on the vCPU's, with no lock held.
///
/// The host timer is moved only to earlier times: guests push their deadline forward all the time, and one early
/// wake-up costs less than a host timer set at each push.
class LocalApicTimer {
 public:
  enum class Mode : std::uint8_t { oneShot = 0, periodic = 1, tscDeadline = 2 };
  static constexpr std::uint64_t kHz = 1'000'000'000;
  /// A periodic timer fires no more often than this, whatever the guest asks for.
  static constexpr Nanoseconds kMinimumPeriod = 50'000;
  static constexpr Nanoseconds kNever = std::numeric_limits<Nanoseconds>::max();

  /// How long one count takes with that divide configuration register.
  static Nanoseconds tickLength(std::uint32_t divide);

  /// `timeOfTsc`: the clock's time at which the guest's TSC reaches a value; any value may come, so it saturates.
  LocalApicTimer(TimerFactory& timers, std::function<Nanoseconds(std::uint64_t)> timeOfTsc,
                 std::function<void()> expired);

  void setMode(Mode mode);
  Mode mode() const { return mode_; }
  /// The divide configuration register's bits 3, 1 and 0.
  void setDivide(std::uint32_t value);
  std::uint32_t divide() const { return divide_; }
  void setInitialCount(std::uint32_t value);
  std::uint32_t initialCount() const { return initialCount_; }
  std::uint32_t currentCount() const;
  /// IA32_TSC_DEADLINE: ignored in other modes, where it reads 0.
  void setTscDeadline(std::uint64_t tsc);
  std::uint64_t tscDeadline() const;
  /// The guest's TSC was changed: the deadline's time is computed again.
  void tscChanged();
  void reset();

  /// When the timer will expire next, or kNever. Lock-free, for a halted vCPU that sleeps until then by itself and
  /// calls poll() afterwards.
  Nanoseconds nextDeadline() const { return next_.load(std::memory_order_acquire); }
  /// Expires now if the deadline has come. Any thread.
  void poll();

  struct State {
    std::uint32_t divide, initialCount;
    Mode mode;
    std::uint64_t tscDeadline;
    Nanoseconds remaining;  ///< to the next expiry; kNever if none
  };
  State save() const;
  void restore(const State& state);

 private:
  void wakeUp();
  bool takeExpiryLocked(Nanoseconds now);
  void programLocked(Nanoseconds deadline);
  void stopLocked();
  void armDeadlineLocked(std::uint64_t tsc, bool& past);
  Nanoseconds periodLocked() const;

  const Clock& clock_;
  std::function<Nanoseconds(std::uint64_t)> timeOfTsc_;
  std::function<void()> expired_;
  mutable std::mutex mutex_;
  Mode mode_ = Mode::oneShot;
  std::uint32_t divide_ = 0;
  std::uint32_t initialCount_ = 0;
  std::uint64_t tscDeadline_ = 0;
  Nanoseconds zeroAt_ = 0;  ///< when the count that runs now reaches (or reached) zero
  std::atomic<Nanoseconds> next_{kNever};
  Nanoseconds hostArmedFor_ = kNever;
  std::unique_ptr<Timer> timer_;  // last: its destructor waits for the callback
};

}  // namespace lodge
