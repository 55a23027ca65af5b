// SPDX-License-Identifier: Apache-2.0
#include "device/local_apic_timer.h"

#include <algorithm>

namespace lodge {

LocalApicTimer::LocalApicTimer(TimerFactory& timers, std::function<Nanoseconds(std::uint64_t)> timeOfTsc,
                               std::function<void()> expired)
    : clock_(timers.clock()),
      timeOfTsc_(std::move(timeOfTsc)),
      expired_(std::move(expired)),
      timer_(timers.makeTimer([this] { wakeUp(); })) {}

/// Figure 11-10: 000 divides by 2, 001 by 4, ... 110 by 128, 111 by 1.
Nanoseconds LocalApicTimer::tickLength(std::uint32_t divide) {
  unsigned code = (divide & 3) | (divide & 8) >> 1;
  return Nanoseconds{1} << ((code + 1) & 7);
}

Nanoseconds LocalApicTimer::periodLocked() const {
  return tickLength(divide_) * static_cast<Nanoseconds>(initialCount_);
}

void LocalApicTimer::programLocked(Nanoseconds deadline) {
  next_.store(deadline, std::memory_order_release);
  if (deadline >= hostArmedFor_) return;
  hostArmedFor_ = deadline;
  timer_->arm(deadline);
}

void LocalApicTimer::stopLocked() {
  next_.store(kNever, std::memory_order_release);
  tscDeadline_ = 0;
}

void LocalApicTimer::setMode(Mode mode) {
  std::lock_guard lock(mutex_);
  if (mode == mode_) return;
  bool wasCounting = mode_ != Mode::tscDeadline;
  bool counts = mode != Mode::tscDeadline;
  mode_ = mode;
  if (wasCounting != counts) {  // "disarms the timer" (11.5.4.1)
    stopLocked();
    initialCount_ = 0;
  }
}

void LocalApicTimer::setDivide(std::uint32_t value) {
  std::lock_guard lock(mutex_);
  if (value == divide_) return;
  Nanoseconds oldTick = tickLength(divide_);
  divide_ = value;
  Nanoseconds deadline = next_.load(std::memory_order_relaxed);
  if (mode_ == Mode::tscDeadline || deadline == kNever) return;
  // The rest of the count runs on at the new rate.
  Nanoseconds now = clock_.now();
  zeroAt_ = now + std::max<Nanoseconds>(0, deadline - now) / oldTick * tickLength(divide_);
  programLocked(zeroAt_);
}

void LocalApicTimer::setInitialCount(std::uint32_t value) {
  std::lock_guard lock(mutex_);
  if (mode_ == Mode::tscDeadline) return;
  initialCount_ = value;
  if (value == 0) return stopLocked();
  zeroAt_ = clock_.now() + periodLocked();
  programLocked(zeroAt_);
}

std::uint32_t LocalApicTimer::currentCount() const {
  std::lock_guard lock(mutex_);
  if (mode_ == Mode::tscDeadline || initialCount_ == 0) return 0;
  Nanoseconds left = zeroAt_ - clock_.now();
  if (left <= 0) {
    if (mode_ == Mode::oneShot || next_.load(std::memory_order_relaxed) == kNever) return 0;
    left = periodLocked() - (-left) % periodLocked();
  }
  return static_cast<std::uint32_t>(
      std::min<Nanoseconds>((left + tickLength(divide_) - 1) / tickLength(divide_), initialCount_));
}

void LocalApicTimer::armDeadlineLocked(std::uint64_t tsc, bool& past) {
  Nanoseconds at = timeOfTsc_(tsc);
  past = at <= clock_.now();
  if (past) {
    stopLocked();
  } else {
    programLocked(std::min(at, kNever - 1));
  }
}

void LocalApicTimer::setTscDeadline(std::uint64_t tsc) {
  bool past = false;
  {
    std::lock_guard lock(mutex_);
    if (mode_ != Mode::tscDeadline) return;
    tscDeadline_ = tsc;
    if (tsc == 0) return stopLocked();
    armDeadlineLocked(tsc, past);
  }
  if (past) expired_();
}

std::uint64_t LocalApicTimer::tscDeadline() const {
  std::lock_guard lock(mutex_);
  return mode_ == Mode::tscDeadline ? tscDeadline_ : 0;
}

void LocalApicTimer::tscChanged() {
  bool past = false;
  {
    std::lock_guard lock(mutex_);
    if (mode_ != Mode::tscDeadline || tscDeadline_ == 0) return;
    armDeadlineLocked(tscDeadline_, past);
  }
  if (past) expired_();
}

bool LocalApicTimer::takeExpiryLocked(Nanoseconds now) {
  Nanoseconds deadline = next_.load(std::memory_order_relaxed);
  if (deadline > now) return false;
  if (mode_ != Mode::periodic) {
    stopLocked();
    return true;
  }
  // Periods that nobody had time for are left out; the phase stays.
  Nanoseconds period = periodLocked();
  zeroAt_ += (now - zeroAt_) / period * period + period;
  if (period < kMinimumPeriod) zeroAt_ += (kMinimumPeriod - (zeroAt_ - now) + period - 1) / period * period;
  next_.store(zeroAt_, std::memory_order_release);
  return true;
}

void LocalApicTimer::wakeUp() {
  bool expiry = false;
  {
    std::lock_guard lock(mutex_);
    hostArmedFor_ = kNever;
    expiry = takeExpiryLocked(clock_.now());
    Nanoseconds deadline = next_.load(std::memory_order_relaxed);
    if (deadline != kNever) programLocked(deadline);
  }
  if (expiry) expired_();
}

void LocalApicTimer::poll() {
  if (nextDeadline() == kNever) return;
  bool expiry = false;
  {
    std::lock_guard lock(mutex_);
    expiry = takeExpiryLocked(clock_.now());
    Nanoseconds deadline = next_.load(std::memory_order_relaxed);
    if (expiry && deadline != kNever) programLocked(deadline);
  }
  if (expiry) expired_();
}

void LocalApicTimer::reset() {
  std::lock_guard lock(mutex_);
  stopLocked();
  mode_ = Mode::oneShot;
  divide_ = 0;
  initialCount_ = 0;
}

LocalApicTimer::State LocalApicTimer::save() const {
  std::lock_guard lock(mutex_);
  Nanoseconds deadline = next_.load(std::memory_order_relaxed);
  Nanoseconds remaining = deadline == kNever ? kNever : std::max<Nanoseconds>(0, deadline - clock_.now());
  return {divide_, initialCount_, mode_, tscDeadline_, remaining};
}

void LocalApicTimer::restore(const State& state) {
  std::lock_guard lock(mutex_);
  stopLocked();
  divide_ = state.divide;
  initialCount_ = state.initialCount;
  mode_ = state.mode;
  tscDeadline_ = state.tscDeadline;
  if (state.remaining == kNever) return;
  zeroAt_ = clock_.now() + state.remaining;
  programLocked(zeroAt_);
}

}  // namespace lodge
