// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "base/units.h"

namespace lodge {

/// The host's wall clock: nanoseconds since 1970-01-01 00:00 UTC.
Nanoseconds hostUtc();

/// Time as devices see it: nanoseconds since the machine's start, monotonic, standing still while the machine is
/// paused. Any thread may call it.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Nanoseconds now() const = 0;
};

/// One-shot timer. Its callback runs on the machine's I/O thread with no lock held; arm and cancel may be called from
/// any thread, also from the callback. A callback that is already running when cancel() is called may finish after it.
/// The destructor waits for a running callback (and so may not be called from it).
class Timer {
 public:
  virtual ~Timer() = default;
  /// Fires once when the clock reaches `deadline` (at once if that is past); replaces an earlier deadline.
  virtual void arm(Nanoseconds deadline) = 0;
  virtual void cancel() = 0;
};

/// Makes timers on a clock. The machine's is EventLoop; tests use FakeClock.
class TimerFactory {
 public:
  virtual ~TimerFactory() = default;
  virtual const Clock& clock() const = 0;
  virtual std::unique_ptr<Timer> makeTimer(std::function<void()> callback) = 0;
};

}  // namespace lodge
