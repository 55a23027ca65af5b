// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/time_samples.h"

#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>

#include <cerrno>

#include "engine/translate/host_call.h"
#include "engine/translate/signals.h"

namespace lodge::translate {

namespace {

int sampleSignal() {
  return SIGRTMIN + 5;
}

std::uint64_t& placeOf(VcpuContext& context, std::uint64_t pc) {
  TimeSamples& samples = context.samples;
  if (context.store->cache().contains(pc)) return context.key().has(ModeKey::user) ? samples.user : samples.kernel;
  switch (context.cpu->work) {
    case x86::Work::translation:
      return samples.translator;
    case x86::Work::interpretation:
      return samples.interpreter;
    case x86::Work::device:
      return samples.devices;
    case x86::Work::other:
      break;
  }
  return samples.other;
}

void onSample(int, siginfo_t*, void* opaque) {
  VcpuContext* context = currentContext();
  if (!context) return;
  ++placeOf(*context, static_cast<std::uint64_t>(static_cast<ucontext_t*>(opaque)->uc_mcontext.gregs[REG_RIP]));
}

/// The kernel deletes a thread's timers not with the thread, but with the process.
struct ThreadTimer {
  bool tried = false, made = false;
  int id = 0;

  void start() {
    if (tried) return;
    tried = true;
    struct sigevent event {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = sampleSignal();
    event._sigev_un._tid = static_cast<int>(hostCall(SYS_gettid));
    auto address = [](const void* p) { return reinterpret_cast<std::uint64_t>(p); };
    made = hostCall(SYS_timer_create, CLOCK_THREAD_CPUTIME_ID, address(&event), address(&id)) == 0;
    if (!made) return;
    constexpr long kNanoseconds = static_cast<long>(kSampleMicroseconds) * 1000;
    struct itimerspec every {
      {0, kNanoseconds}, { 0, kNanoseconds }
    };
    hostCall(SYS_timer_settime, static_cast<std::uint64_t>(id), 0, address(&every), 0);
  }
  ~ThreadTimer() {
    if (made) hostCall(SYS_timer_delete, static_cast<std::uint64_t>(id));
  }
};
thread_local ThreadTimer threadTimer;

}  // namespace

Status installSampler() {
  struct sigaction action {};
  sigfillset(&action.sa_mask);
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  action.sa_sigaction = onSample;
  if (::sigaction(sampleSignal(), &action, nullptr) != 0)
    return Error::fromErrno(errno, "install the sampling signal's handler");
  return {};
}

void sampleThisThread() {
  threadTimer.start();
}

}  // namespace lodge::translate
