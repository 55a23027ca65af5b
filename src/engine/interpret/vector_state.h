// SPDX-License-Identifier: Apache-2.0
// Vector and x87 state as instructions see it: which may run, and where the state is.
#pragma once

#include <cstdint>

#include "engine/interpret/context.h"
#include "x86/cpu_model.h"

namespace lodge::interpret {

inline bool hasFeature(const Cpu& cpu, x86::Feature feature) {
  return cpu.model->has(feature);
}

/// State components that XSAVE would find in use (XGETBV with ECX = 1).
std::uint64_t componentsInUse(Cpu& cpu);

/// #UD and #NM of an instruction with these attributes (SDM vol. 3, 2.5 and table 2-2; vol. 2, 2.7; APM vol. 2, 11.3).
/// False: an exception is pending.
bool checkVectorState(Cpu& cpu, const Instruction& insn);

/// The exception for a SIMD or x87 fault that the host reported with this vector: #XM, or #UD without CR4.OSXMMEXCPT;
/// #MF. Always false.
bool raiseFloatingPoint(Cpu& cpu, std::uint64_t hostVector);

/// Runs an instruction on a host buffer in place of its memory operand, with vector state live. Used to move vector
/// registers to and from memory. Returns the thunk's result (0: no exception).
std::uint64_t runOnBuffer(Cpu& cpu, const Instruction& insn, void* buffer);

/// Stores or loads the whole vector register `number` of an AVX instruction's length (16 or 32 bytes), or
/// 64 bytes, by AVX-512, of any of the 32.
void storeVector(Cpu& cpu, unsigned number, unsigned bytes, void* to);
/// Bits above `bytes` are cleared, as every VEX-encoded instruction does.
void loadVector(Cpu& cpu, unsigned number, unsigned bytes, const void* from);

/// Reserved bits of MXCSR are those outside this mask (SDM vol. 1, 11.6.6).
std::uint32_t mxcsrMask();

}  // namespace lodge::interpret
