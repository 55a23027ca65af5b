// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace lodge::translate {

/// Says when a machine has been idle for long, so that its translated code may go: many idle machines fit on a host
/// then, and one that wakes translates what it needs again. Thread-safe.
class IdleTrim {
 public:
  static constexpr std::uint64_t kWindow = 20'000'000'000;  ///< nanoseconds
  static constexpr std::uint64_t kBusyPart = 50;            ///< idle: processor time below a 50th of the window
  /// Both in nanoseconds: a clock, and the process's processor time. True at the end of an idle window. Called when a
  /// vCPU goes to sleep.
  bool isIdle(std::uint64_t now, std::uint64_t processorTime);

 private:
  std::atomic<std::uint64_t> start_{0}, used_{0};
};

}  // namespace lodge::translate
