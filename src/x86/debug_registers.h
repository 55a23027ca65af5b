// SPDX-License-Identifier: Apache-2.0
// Breakpoints (SDM vol. 3, chapter 17), for this folder's own use; engines see beforeInstruction() and
// afterInstruction().
#pragma once

#include <cstdint>

#include "x86/cpu.h"
#include "x86/virtual_memory.h"

namespace lodge::x86 {

namespace dr6 {
inline constexpr std::uint64_t fixedOnes = 0xffff'0ff0, hits = 0xf, bd = 1 << 13, bs = 1 << 14, bt = 1 << 15;
}
namespace dr7 {
inline constexpr std::uint64_t fixedOnes = 1 << 10, enables = 0xff, gd = 1 << 13;
}

/// Whether an armed data breakpoint lies on the page of `linear`: such pages stay out of the TLB.
bool pageHasDataBreakpointSlow(const CpuState& state, std::uint64_t linear);
inline bool pageHasDataBreakpoint(const CpuState& state, std::uint64_t linear) {
  return (state.dr[7] & dr7::enables) != 0 && pageHasDataBreakpointSlow(state, linear);
}

/// Collects the data breakpoints that an access hits into state.pendingDebug.
void noteDataAccessSlow(Cpu& cpu, std::uint64_t linear, unsigned size, Access access);
inline void noteDataAccess(Cpu& cpu, std::uint64_t linear, unsigned size, Access access) {
  if ((cpu.state.dr[7] & dr7::enables) != 0) noteDataAccessSlow(cpu, linear, size, access);
}

/// I/O breakpoints (CR4.DE), for IN, OUT, INS, OUTS: into state.pendingDebug.
void notePortAccess(Cpu& cpu, std::uint16_t port, unsigned size);

}  // namespace lodge::x86
