// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lodge::translate {

/// Kicks a thread of this process some time later. Uses no vector registers.
class KickTimer {
 public:
  KickTimer() = default;
  ~KickTimer() { end(); }
  KickTimer(const KickTimer&) = delete;
  KickTimer& operator=(const KickTimer&) = delete;

  /// Once, in so many nanoseconds of the host's time from now on. False: the host has no more timers.
  bool kickIn(std::uint64_t nanoseconds, int threadId);

 private:
  void end();

  int threadId_ = 0;  ///< 0: there is no timer
  int id_ = 0;
};

}  // namespace lodge::translate
