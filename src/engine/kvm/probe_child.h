// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace lodge::kvm {

enum class SetupStep : std::uint8_t { createVm, memory, createVcpu, mapRun, cpuid, registers, run };

/// Shared between the probe and its child.
struct ProbeReport {
  std::atomic<SetupStep> setup{SetupStep::createVm};  ///< what was tried last
  std::atomic<int> error{0};                          ///< its errno value, 0 if it worked
  std::atomic<unsigned> step{0};                      ///< the guest's last report, PROBE_STEP_*
  std::atomic<unsigned> lastGood{0};                  ///< the one before PROBE_STEP_FAILED
  std::atomic<unsigned> exitReason{0};  ///< KVM_EXIT_* that ended the run, if it was not the guest's own end
  std::atomic<std::int64_t> loopNanoseconds{0};
};

/// The child process: makes a VM on an open /dev/kvm, runs the probe guest and ends. It may be the fork of a process
/// with threads, so everything here is a plain system call: no allocation, no locks.
[[noreturn]] void probeChild(int kvm, ProbeReport& report);

}  // namespace lodge::kvm
