// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "x86/cpu_model.h"

namespace lodge::x86 {

struct CpuidResult {
  std::uint32_t eax, ebx, ecx, edx;
};
/// The host's own answer; zeros for leaves above its highest.
CpuidResult hostCpuid(std::uint32_t leaf, std::uint32_t subleaf);
CpuVendor hostVendor();
/// The rate of the host's TSC: from CPUID where it says so (leaf 0x15, or a hypervisor's leaf 0x40000010), else
/// measured against CLOCK_MONOTONIC in about 2 ms.
std::uint64_t hostTscHz();
std::uint64_t hostTsc();

}  // namespace lodge::x86
