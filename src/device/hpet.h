// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "base/clock.h"
#include "device/interrupt.h"
#include "memory/io_bus.h"

namespace lodge {

/// High precision event timers (IA-PC HPET Specification 1.0a): a 64-bit counter at 100 MHz and three timers, each of
/// 64 bits or 32, periodic or not, with edge- or level-triggered interrupts at I/O APIC inputs 20 to 23 or, with legacy
/// replacement, at IRQ 0 and IRQ 8 instead of the PIT and the RTC. No interrupts by message (FSB). Any thread.
///
/// What a real one does not do: a comparator that is set up to 10 ms behind the counter matches at once, since a guest
/// that was held up between reading the counter and writing the comparator would otherwise wait for a whole turn.
class Hpet : public IoDevice {
 public:
  static constexpr std::uint64_t kLength = 0x400;
  static constexpr unsigned kTimers = 3, kFirstRoute = 20, kRoutes = 4;
  static constexpr Nanoseconds kTick = 10;
  /// Interrupts of a timer are not raised more often than this, whatever period the guest writes.
  static constexpr Nanoseconds kMinimumPeriod = 50'000;
  static constexpr std::uint32_t kId = 0x8086a201;  ///< vendor, legacy replacement, 64 bits, three timers, revision 1

  struct Setup {
    TimerFactory& timers;
    InterruptLine& irq0;
    InterruptLine& irq8;
    std::array<InterruptLine*, kRoutes> routes;  ///< I/O APIC inputs from kFirstRoute on
    /// Whether IRQs 0 and 8 are the HPET's now; with its lock held.
    std::function<void(bool)> onLegacyReplacement;
  };
  explicit Hpet(const Setup& setup);

  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  void reset();

  struct TimerState {
    std::uint64_t config = 0, comparator = ~std::uint64_t{0}, period = 0;
    std::optional<std::uint64_t> match;  ///< the counter's value at which it matches next
    Nanoseconds lastInterrupt = 0;
  };
  struct State {
    std::uint64_t config = 0;
    std::uint32_t status = 0;
    std::uint64_t counter = 0;  ///< its value at `since`
    std::array<TimerState, kTimers> timers;
  };
  State save() const;
  void restore(const State& state);
  /// Whether a guest could have brought one to this state: routes that there are, matches that are not too far.
  static bool isPossible(const State& state);

 private:
  std::uint64_t registerLocked(std::uint64_t offset) const;
  void writeLocked(std::uint64_t offset, std::uint64_t value, std::uint64_t mask);
  void writeConfigLocked(std::uint64_t value);
  void writeTimerLocked(unsigned number, unsigned offset, std::uint64_t value, std::uint64_t mask);
  void writeComparatorLocked(TimerState& timer, std::uint64_t value, std::uint64_t mask);
  std::uint64_t counterLocked() const;
  bool enabledLocked() const;
  void planLocked(TimerState& timer, bool mayBeLate) const;
  void matchLocked(unsigned number, std::uint64_t now);
  void catchUpLocked();
  InterruptLine* lineLocked(unsigned number) const;
  void updateLinesLocked();
  void scheduleLocked();
  void tick();

  const Setup setup_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  State state_;
  Nanoseconds since_ = 0;
  std::unique_ptr<Timer> timer_;  // last: its destructor waits for tick()
};

}  // namespace lodge
