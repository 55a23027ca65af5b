// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

namespace lodge::translate {

class ExecutorSeat;

/// On which processors of the host a machine's executors run. An executor is bound to the processor of its vCPU's
/// thread (ExecutorProcess::follow()), which sleeps meanwhile: the host's scheduler can move neither of them, and two
/// vCPUs that came to one processor would share it for as long as another program keeps the other busy.
///
/// Shared by the machine's vCPUs. Thread-safe.
class ExecutorSeats {
 public:
  /// Of the processors `allowed`, those that are in `taken` (one entry for each executor of the others) least often.
  /// Nothing if `now` is one of them, or none is allowed.
  static std::optional<cpu_set_t> better(int now, const cpu_set_t& allowed, std::span<const int> taken);

 private:
  friend class ExecutorSeat;
  std::vector<int> takenByOthers(const ExecutorSeat& mine, std::uint64_t ticks) const;

  mutable std::mutex mutex_;
  std::vector<const ExecutorSeat*> seats_;
};

/// A vCPU's place among them. Used by its thread.
class ExecutorSeat {
 public:
  /// `window`: how often it is looked at whether another processor is better, and how long a seat counts as taken after
  /// its executor has run, in ticks of the time stamp counter.
  ExecutorSeat(ExecutorSeats& seats, std::uint64_t window);
  ~ExecutorSeat();
  ExecutorSeat(const ExecutorSeat&) = delete;
  ExecutorSeat& operator=(const ExecutorSeat&) = delete;

  /// The executor is about to run; `ticks`: the time. If others of the machine run on this thread's processor, `now`,
  /// and fewer on another one that the thread may use, the thread goes there first. Whether it did.
  bool take(int now, std::uint64_t ticks);
  /// The executor has stopped.
  void leave(std::uint64_t ticks) { takenUntil_.store(ticks + window_, std::memory_order_relaxed); }
  /// The processor that it runs on, or ran on last; -1: none yet.
  int processor() const { return processor_.load(std::memory_order_relaxed); }
  bool isTaken(std::uint64_t ticks) const { return ticks < takenUntil_.load(std::memory_order_relaxed); }

 private:
  bool move(int now, std::uint64_t ticks);

  ExecutorSeats& seats_;
  const std::uint64_t window_;
  std::uint64_t lookAt_ = 0;
  std::atomic<int> processor_{-1};
  std::atomic<std::uint64_t> takenUntil_{0};  ///< ticks
};

}  // namespace lodge::translate
