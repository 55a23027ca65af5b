// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/futex.h>
#include <sys/syscall.h>

#include <atomic>
#include <cstdint>

namespace lodge {

/// A mutex all of whose functions are compiled with their callers and use general registers only, unlike std::mutex,
/// whose are libc's: code that runs while a guest's vector registers are live (cmake/lodge.cmake) may take it. Not
/// recursive; as much a std::lock_guard's as std::mutex.
class FutexMutex {
 public:
  FutexMutex() = default;
  FutexMutex(const FutexMutex&) = delete;
  FutexMutex& operator=(const FutexMutex&) = delete;

  bool try_lock() {
    std::uint32_t free = kFree;
    return state_.compare_exchange_strong(free, kHeld, std::memory_order_acquire, std::memory_order_relaxed);
  }
  void lock() {
    if (try_lock()) return;
    while (state_.exchange(kAwaited, std::memory_order_acquire) != kFree) futex(FUTEX_WAIT_PRIVATE, kAwaited);
  }
  void unlock() {
    if (state_.exchange(kFree, std::memory_order_release) == kAwaited) futex(FUTEX_WAKE_PRIVATE, 1);
  }

 private:
  enum : std::uint32_t { kFree, kHeld, kAwaited };

  /// FUTEX_WAIT while the state is `value`, or FUTEX_WAKE of `value` threads. Whoever waits looks again, whatever the
  /// kernel answers.
  void futex(long operation, std::uint32_t value) {
    long result = SYS_futex;
    register std::uint64_t noTimeout asm("r10") = 0;
    asm volatile("syscall"
                 : "+a"(result)
                 : "D"(&state_), "S"(operation), "d"(std::uint64_t{value}), "r"(noTimeout)
                 : "rcx", "r11", "memory");
  }

  std::atomic<std::uint32_t> state_{kFree};
};

}  // namespace lodge
