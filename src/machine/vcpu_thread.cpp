// SPDX-License-Identifier: Apache-2.0
#include "machine/vcpu_thread.h"

#include <pthread.h>
#include <signal.h>

#include <string>

namespace lodge {

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
          vcpu_->waitForEvent();
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
