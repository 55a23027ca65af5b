// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace lodge::translate {

/// Says when a machine is idle, so that its translated code may go: many idle machines fit on a host then, and one that
/// wakes translates what it needs again. What a boot left goes when its guest waits for the first time; later on, a
/// guest that is used now and then keeps its code for a while. Thread-safe.
class IdleTrim {
 public:
  static constexpr std::uint64_t kWindow = 3'000'000'000;    ///< nanoseconds
  static constexpr std::uint64_t kSpacing = 20'000'000'000;  ///< from one trim to the next, at least
  static constexpr std::uint64_t kBusyPart = 50;             ///< idle: processor time below a 50th of the window
  /// `now`: a clock; `processorTime`: gives the process's, and is asked at the end of a window only, as it is slow.
  /// Both in nanoseconds. True at the end of an idle window. Called whenever a vCPU goes to sleep.
  bool isIdle(std::uint64_t now, std::uint64_t (*processorTime)());
  /// Something went at `now`.
  void noteTrim(std::uint64_t now) { trimmed_.store(now, std::memory_order_release); }

 private:
  std::atomic<std::uint64_t> start_{0}, used_{0}, trimmed_{0};
};

}  // namespace lodge::translate
