// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "x86/opcodes.h"
#include "x86/tsc_scale.h"

namespace lodge::x86 {

/// Whose manual decides where Intel's and AMD's differ: SYSCALL and SYSENTER in compatibility mode, SYSRET, reserved
/// bits.
enum class CpuVendor : std::uint8_t { intel, amd };

struct CpuidEntry {
  std::uint32_t leaf, subleaf;
  std::uint32_t eax, ebx, ecx, edx;
  bool perSubleaf;  ///< false: any subleaf gives this entry
};

/// What a guest CPU is: its CPUID leaves (sorted by leaf, subleaf), what follows from them, and its clock.
/// Per-vCPU values (APIC id, OSXSAVE, OSPKE, XSAVE sizes) are filled in by x86::cpuid().
struct CpuModel {
  std::string name;
  std::vector<CpuidEntry> leaves;
  std::uint64_t features = 0;  ///< bit a Feature
  std::uint64_t xcr0Supported = 3;
  CpuVendor vendor = CpuVendor::intel;
  std::uint64_t tscHz = 0;      ///< of the guest's TSC
  std::uint64_t hostTscHz = 0;  ///< of the host's; 0: the same
  std::uint64_t tscBase = 0;    ///< the host's TSC, as it counts, when the guest's is 0 (at power-up, on all CPUs)
  unsigned cpus = 1;
  unsigned physicalAddressBits = 40;
  unsigned linearAddressBits = 48;  ///< 57 with LA57
  bool gigabytePages = false;
  std::uint64_t cr4Supported = 0;       ///< bits of CR4 that may be set; others are #GP(0)
  std::uint64_t eferSupported = 0;      ///< likewise EFER, LMA aside
  std::uint64_t specCtrlSupported = 0;  ///< likewise SPEC_CTRL; 0: the register does not exist
  std::uint64_t archCapabilities = 0;   ///< Intel's ARCH_CAPABILITIES; 0: the register does not exist

  bool has(Feature feature) const { return (features >> static_cast<unsigned>(feature)) & 1; }
  TscScale tscScale() const { return TscScale::between(tscHz, hostTscHz); }
  std::uint64_t ticksPerSecond() const { return hostTscHz != 0 ? hostTscHz : tscHz; }  ///< of the host
};

/// Rate of the local APIC timer's input clock (before its divider), as the CPUID leaves tell it: KVM's 1 GHz.
inline constexpr std::uint32_t kApicBusHz = 1'000'000'000;

/// "x86-64-v2", "x86-64-v3", "host" (the host's features less those that cannot be offered). Errors: notFound with the
/// list of names; unsupported if the host lacks a feature that the model needs.
Result<std::unique_ptr<CpuModel>> makeCpuModel(std::string_view name, unsigned cpus);
std::vector<std::string> cpuModelNames();
/// Rates that a guest's time stamp counter may have, Hz: what MSR_PLATFORM_INFO can tell (eight bits of 100 MHz).
inline constexpr std::uint64_t kLeastTscHz = 100'000'000, kMostTscHz = 25'500'000'000;
/// Gives the guest a time stamp counter of that rate, before there are CPUs: CPUID tells it, and it begins at 0.
void setTscHz(CpuModel& model, std::uint64_t hz);
/// Makes guest-physical addresses that wide, 36 to 46 bits, before there are CPUs. UEFI firmware builds page tables for
/// all of them.
void setPhysicalAddressBits(CpuModel& model, unsigned bits);

}  // namespace lodge::x86
