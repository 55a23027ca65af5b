// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "x86/cpu_model.h"

namespace lodge::x86 {

/// CPUID registers in the order in which CpuidEntry has them.
enum class CpuidRegister : std::uint8_t { eax, ebx, ecx, edx };

struct CpuidResult {
  std::uint32_t reg[4] = {};
  std::uint32_t operator[](CpuidRegister r) const { return reg[static_cast<unsigned>(r)]; }
};

/// Where CPU models learn what the host can do; tests pass a made-up one.
class HostCpu {
 public:
  virtual ~HostCpu() = default;
  /// All zeros for leaves beyond the host's last.
  virtual CpuidResult cpuid(std::uint32_t leaf, std::uint32_t subleaf) const = 0;
  /// XCR0 as the host's system set it; 0 without XSAVE.
  virtual std::uint64_t xcr0() const = 0;
  virtual std::uint64_t tscHz() const = 0;
  virtual std::uint64_t tsc() const = 0;
};

/// The CPU that this runs on.
const HostCpu& hostCpu();

/// Hz of the host's TSC: CPUID 0x15, or a hypervisor's 0x40000010, or measured against CLOCK_MONOTONIC_RAW in less than
/// 2 ms.
std::uint64_t hostTscHz(const HostCpu& host);

/// makeCpuModel() for a given host.
Result<std::unique_ptr<CpuModel>> makeCpuModelFor(const HostCpu& host, std::string_view name, unsigned cpus);

}  // namespace lodge::x86
