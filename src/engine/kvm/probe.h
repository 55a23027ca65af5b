// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace lodge::kvm {

/// What `/dev/kvm` turned out to be good for.
struct ProbeResult {
  bool present = false;              ///< the device file exists
  bool openable = false;             ///< and may be opened
  int apiVersion = 0;                ///< KVM_GET_API_VERSION; 12 is the one
  bool usable = false;               ///< the probe guest ran to its end, right and at speed
  double instructionsPerSecond = 0;  ///< 0 if the guest did not get that far
  std::string reason;                ///< one clause: why it is usable or not
};

/// Guests slower than this do not run on the processor: a software KVM emulates each of their instructions, at a
/// million a second where one was measured. A KVM in a guest of QEMU's TCG, where the instructions are at least
/// translated, ran 190 million on a busy host, and a processor runs thousands of millions.
inline constexpr double kMinInstructionsPerSecond = 20e6;

/// Runs a guest of a few hundred bytes on KVM: registers, an exception, a page fault, a device access, ring 3, a system
/// call and a timed loop. It runs in a child process that is killed after `milliseconds`, so that a broken KVM can
/// neither hang nor crash the caller, which may have threads.
ProbeResult probe(const char* device = "/dev/kvm", int milliseconds = 3000);

}  // namespace lodge::kvm
