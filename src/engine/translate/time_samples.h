// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/error.h"

namespace lodge::translate {

/// Where a vCPU's processor time goes, found out by a look every kSampleMicroseconds of it.
struct TimeSamples {
  std::uint64_t user = 0, kernel = 0;  ///< in translated code of the guest's user mode, and of its others
  std::uint64_t translator = 0, interpreter = 0, devices = 0;
  std::uint64_t other = 0;  ///< TLB misses, look-ups of code, events, the way in and out
};

inline constexpr std::uint64_t kSampleMicroseconds = 10'000;

/// Installs the signal handler that looks, once.
Status installSampler();

/// Has this thread's processor time sampled from now on, into the current context (signals.h). Without effect where the
/// host forbids timers: all samples stay 0 then.
void sampleThisThread();

}  // namespace lodge::translate
