// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <mutex>

namespace lodge::translate {

/// A mutex that tells how busy it is: what many vCPUs would do to it can be reckoned from a few.
class CountedMutex {
 public:
  struct Counters {
    std::uint64_t taken = 0;
    std::uint64_t waited = 0;     ///< how often it was held by another
    std::uint64_t heldTicks = 0;  ///< of the host's TSC
  };

  void lock() {
    bool free = mutex_.try_lock();
    if (!free) mutex_.lock();
    ++counters_.taken;
    if (!free) ++counters_.waited;
    since_ = __builtin_ia32_rdtsc();
  }
  void unlock() {
    counters_.heldTicks += __builtin_ia32_rdtsc() - since_;
    mutex_.unlock();
  }
  /// Approximate while others use it.
  Counters counters() const { return counters_; }

 private:
  std::mutex mutex_;
  std::uint64_t since_ = 0;
  Counters counters_;
};

}  // namespace lodge::translate
