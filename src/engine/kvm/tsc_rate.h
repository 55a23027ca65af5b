// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.h"
#include "x86/cpu_model.h"

namespace lodge::kvm {

/// Whether this KVM lets the guest's time stamp counter run at the model's rate: where the processor scales it. Else
/// KVM takes one that is faster than the host's, too, and means to set it forward at each entry, but by a clock that
/// stands still where the host's own clock is the counter (Linux 6.1): it goes at the host's rate. Errors: unsupported,
/// with both rates; io.
Status keepsTscRate(const x86::CpuModel& model, const char* device = "/dev/kvm");

/// The same of a KVM that has KVM_CAP_TSC_CONTROL (`scales`) or has not.
Status judgeTscRate(const x86::CpuModel& model, bool scales);

/// What KVM makes of rates in kHz: a factor that is rounded down, of 48 bits of fraction on Intel's processors and 32
/// on AMD's (APM vol. 2, 15.30.5).
x86::TscScale scaleOfKvm(std::uint64_t guestKhz, std::uint64_t hostKhz, x86::CpuVendor vendor);

}  // namespace lodge::kvm
