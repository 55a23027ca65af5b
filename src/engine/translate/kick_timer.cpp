// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/kick_timer.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>

#include "engine/translate/host_call.h"
#include "engine/translate/signals.h"

namespace lodge::translate {

bool KickTimer::kickIn(std::uint64_t nanoseconds, int threadId) {
  auto address = [](const void* p) { return reinterpret_cast<std::uint64_t>(p); };
  if (threadId_ != threadId) {
    end();
    struct sigevent event {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = kickSignal();
    event._sigev_un._tid = threadId;
    if (hostCall(SYS_timer_create, CLOCK_MONOTONIC, address(&event), address(&id_)) != 0) return false;
    threadId_ = threadId;
  }
  constexpr std::uint64_t kSecond = 1'000'000'000;
  struct itimerspec when {};
  when.it_value.tv_sec = static_cast<time_t>(nanoseconds / kSecond);
  when.it_value.tv_nsec = static_cast<long>(nanoseconds % kSecond);
  return hostCall(SYS_timer_settime, static_cast<std::uint64_t>(id_), 0, address(&when), 0) == 0;
}

void KickTimer::end() {
  if (threadId_ != 0) hostCall(SYS_timer_delete, static_cast<std::uint64_t>(id_));
  threadId_ = 0;
}

}  // namespace lodge::translate
