// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <mutex>

namespace lodge {

/// Where vCPU threads wait while the machine is paused, and where the I/O thread waits until all of them do.
class RunGate {
 public:
  enum class Order : unsigned char { run, pause, leave };

  explicit RunGate(unsigned threads) : threads_(threads) {}

  /// vCPU threads: returns at once while the order is `run`; waits while it is `pause`. False: leave the thread.
  bool pass() {
    std::unique_lock lock(mutex_);
    if (order_ == Order::run) return true;
    ++parked_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return order_ != Order::pause; });
    --parked_;
    return order_ == Order::run;
  }

  void order(Order order) {
    std::lock_guard lock(mutex_);
    if (closed_ && order == Order::run) return;
    order_ = order;
    changed_.notify_all();
  }
  /// Pauses for good: no order lets anybody pass from here on.
  void close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    if (order_ == Order::run) order_ = Order::pause;
    changed_.notify_all();
  }
  bool isPaused() {
    std::lock_guard lock(mutex_);
    return order_ != Order::run;
  }
  /// After order(pause): returns when every vCPU thread waits in pass().
  void waitUntilParked() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return parked_ == threads_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Order order_ = Order::pause;
  bool closed_ = false;
  unsigned threads_;
  unsigned parked_ = 0;
};

}  // namespace lodge
