// SPDX-License-Identifier: Apache-2.0
#include "machine/vcpu_thread.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include <string>

namespace lodge {

namespace {
std::uint64_t monotonicNanoseconds() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(t.tv_nsec);
}
}  // namespace

VcpuThread::VcpuThread(std::unique_ptr<Vcpu> vcpu, RunGate& gate, std::function<void(VcpuExit)> onEnd)
    : vcpu_(std::move(vcpu)), gate_(gate), onEnd_(std::move(onEnd)) {}

VcpuThread::~VcpuThread() {
  join();
}

void VcpuThread::join() {
  if (thread_.joinable()) thread_.join();
}

void VcpuThread::start() {
  thread_ = std::thread([this] { main(); });
}

void VcpuThread::interrupt() {
  cpu().raise(x86::event::stop);
}

// One that goes to sleep or wakes just now may be counted a sleep short.
std::uint64_t VcpuThread::slept() const {
  std::uint64_t all = slept_.load(), since = sleepsSince_.load(), now = monotonicNanoseconds();
  return all + (since != 0 && now > since ? now - since : 0);
}

void VcpuThread::sleep() {
  std::uint64_t since = monotonicNanoseconds();
  sleepsSince_.store(since, std::memory_order_relaxed);
  vcpu_->waitForEvent();
  sleepsSince_.store(0, std::memory_order_relaxed);
  slept_.fetch_add(monotonicNanoseconds() - since, std::memory_order_relaxed);
}

void VcpuThread::main() {
  pthread_setname_np(pthread_self(), ("vcpu" + std::to_string(cpu().index)).c_str());
  // The process's own signals (SIGTERM, SIGINT, SIGWINCH...) are for the I/O thread.
  sigset_t blocked;
  sigemptyset(&blocked);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGCHLD, SIGPIPE}) sigaddset(&blocked, signal);
  pthread_sigmask(SIG_BLOCK, &blocked, nullptr);

  while (gate_.pass()) {
    // Cleared here and not by the one who resumes: a stop that is raised from now on must be seen.
    cpu().events.fetch_and(~x86::event::stop);
    if (gate_.isPaused()) continue;
    bool running = true;
    while (running) {
      VcpuExit exit = vcpu_->run();
      switch (exit) {
        case VcpuExit::halted:
          sleep();
          break;
        case VcpuExit::stopped:
          running = false;
          break;
        case VcpuExit::shutdown:
        case VcpuExit::failed:
          onEnd_(exit);
          vcpu_->waitForEvent();
          running = (cpu().events.load() & x86::event::stop) == 0;
          break;
      }
    }
  }
}

}  // namespace lodge
