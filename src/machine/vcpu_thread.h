// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "engine/engine.h"
#include "machine/run_gate.h"

namespace lodge {

/// The thread that runs one vCPU: execute, sleep in HLT, wait at the gate while the machine is paused.
class VcpuThread {
 public:
  /// `onEnd` is called on this thread after a triple fault (shutdown) or when the engine failed; the vCPU does not run
  /// again until it is reset.
  VcpuThread(std::unique_ptr<Vcpu> vcpu, RunGate& gate, std::function<void(VcpuExit)> onEnd);
  /// The gate must have been told to let threads leave.
  ~VcpuThread();

  void start();
  /// Waits for the thread to leave; the gate and interrupt() make it.
  void join();
  x86::Cpu& cpu() { return vcpu_->cpu(); }
  Vcpu& vcpu() { return *vcpu_; }
  const Vcpu& vcpu() const { return *vcpu_; }
  /// Puts another vCPU in the place of the one that is there, and returns that. While the thread waits at the gate.
  std::unique_ptr<Vcpu> exchange(std::unique_ptr<Vcpu> vcpu) { return std::exchange(vcpu_, std::move(vcpu)); }
  /// Makes run() and waitForEvent() return; the thread then looks at the gate. Any thread.
  void interrupt();
  /// How long it has slept in HLT, in nanoseconds. Any thread.
  std::uint64_t slept() const;

 private:
  void main();
  void sleep();

  std::unique_ptr<Vcpu> vcpu_;
  RunGate& gate_;
  std::function<void(VcpuExit)> onEnd_;
  std::atomic<std::uint64_t> slept_{0}, sleepsSince_{0};  ///< of CLOCK_MONOTONIC; 0: it does not sleep
  std::thread thread_;
};

}  // namespace lodge
