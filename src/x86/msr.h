// SPDX-License-Identifier: Apache-2.0
// Model-specific registers by subject, for this folder's own use; RDMSR and WRMSR are in x86/system.h.
#pragma once

#include <cstdint>

#include "x86/cpu.h"

namespace lodge::x86 {

/// What became of a read or write.
enum class MsrResult : std::uint8_t {
  unknown,  ///< not a register of this group: try the next one
  done,
  fault,  ///< #GP(0), to be raised by the caller
};

MsrResult readSyscallMsr(Cpu& cpu, std::uint32_t number, std::uint64_t& value);
MsrResult writeSyscallMsr(Cpu& cpu, std::uint32_t number, std::uint64_t value);
MsrResult readMemoryTypeMsr(Cpu& cpu, std::uint32_t number, std::uint64_t& value);
MsrResult writeMemoryTypeMsr(Cpu& cpu, std::uint32_t number, std::uint64_t value);
MsrResult readParavirtMsr(Cpu& cpu, std::uint32_t number, std::uint64_t& value);
MsrResult writeParavirtMsr(Cpu& cpu, std::uint32_t number, std::uint64_t value);
MsrResult readVendorMsr(Cpu& cpu, std::uint32_t number, std::uint64_t& value);
MsrResult writeVendorMsr(Cpu& cpu, std::uint32_t number, std::uint64_t value);

/// Writes the kvmclock page again after the guest TSC was changed.
void publishParavirtClock(Cpu& cpu);

}  // namespace lodge::x86
