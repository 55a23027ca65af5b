// SPDX-License-Identifier: Apache-2.0
// Loads of segment registers that far transfers and task switches share, for this folder's own use.
#pragma once

#include <cstdint>

#include "x86/cpu.h"
#include "x86/descriptor.h"
#include "x86/tlb.h"

namespace lodge::x86 {

inline bool realOr8086(const Cpu& cpu) {
  return !cpu.protectedMode() || cpu.virtual8086();
}

/// CS of real-address or virtual-8086 mode. The former keeps limit and attributes, as processors do.
void loadRealCode(Cpu& cpu, std::uint16_t selector);

/// Whether the offset can be RIP in that code segment; else #GP(code).
bool checkTargetOffset(Cpu& cpu, const Descriptor& code, std::uint64_t offset, std::uint32_t errorCode = 0);

/// Checks an SS for use at `cpl` and sets its accessed bit; #GP or #SS. `null64`: a null selector is allowed (64-bit
/// mode below CPL 3).
bool checkStackSegment(Cpu& cpu, std::uint16_t selector, unsigned cpl, bool null64, SegmentRegister& out);

/// Makes ES, DS, FS, GS null that the new, outer CPL may not use (SDM vol. 3, 5.8.6).
void dropInnerSegments(Cpu& cpu);

/// Sets CPL, CS and RIP and tells the listener.
void enterCode(Cpu& cpu, const SegmentRegister& code, unsigned cpl, std::uint64_t rip);

/// The stack pointer's width: all ones, 32 or 16 bits of them.
inline std::uint64_t stackMask(const Cpu& cpu) {
  if (cpu.mode64()) return ~0ull;
  return cpu.state.segment[ss].big() ? 0xffff'ffff : 0xffff;
}
/// Writes RSP, ESP (the upper half becomes 0) or SP.
inline void setStackPointer(Cpu& cpu, std::uint64_t value) {
  std::uint64_t mask = stackMask(cpu);
  std::uint64_t kept = mask == 0xffff ? cpu.state.gpr[rsp] & ~mask : 0;
  cpu.state.gpr[rsp] = kept | (value & mask);
}

/// Reads the stack slot `offset` bytes above the stack pointer, without moving it; #SS(0) or #PF.
bool peekStack(Cpu& cpu, std::uint64_t offset, unsigned size, std::uint64_t& value);

}  // namespace lodge::x86
