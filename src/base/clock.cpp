// SPDX-License-Identifier: Apache-2.0
#include "base/clock.h"

#include <time.h>

namespace lodge {

Nanoseconds hostUtc() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return static_cast<Nanoseconds>(t.tv_sec) * kNanosecondsPerSecond + t.tv_nsec;
}

}  // namespace lodge
