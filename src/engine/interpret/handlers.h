// SPDX-License-Identifier: Apache-2.0
// Choice of handlers, by family. Each returns null if the instruction is not the family's.
#pragma once

#include "engine/interpret/context.h"

namespace lodge::interpret {

/// Index for tables by operand size 1, 2, 4, 8.
constexpr unsigned sizeIndex(unsigned bytes) {
  return bytes == 8 ? 3 : bytes == 4 ? 2 : bytes == 2 ? 1 : 0;
}

template <template <class> class F>
inline constexpr Handler kBySize[4] = {&F<std::uint8_t>::run, &F<std::uint16_t>::run, &F<std::uint32_t>::run,
                                       &F<std::uint64_t>::run};

Handler aluHandler(const Instruction& insn);     ///< ADD..CMP, TEST, INC, DEC, NOT, NEG
Handler lockedHandler(const Instruction& insn);  ///< LOCK, XCHG with memory, CMPXCHG, XADD, CMPXCHG8B/16B
Handler shiftHandler(const Instruction& insn);
Handler multiplyHandler(const Instruction& insn);  ///< MUL, IMUL, DIV, IDIV, MULX
Handler bitHandler(const Instruction& insn);       ///< BT.., BSF.., POPCNT.., BMI, ADX, CRC32
Handler moveHandler(const Instruction& insn);
Handler stackHandler(const Instruction& insn);
Handler branchHandler(const Instruction& insn);
Handler decimalHandler(const Instruction& insn);  ///< DAA.., flag instructions, LAHF, SAHF, XLAT, SALC, RDRAND, RDSEED
Handler stringHandler(const Instruction& insn);
Handler ioHandler(const Instruction& insn);  ///< IN, OUT, INS, OUTS
Handler systemHandler(const Instruction& insn);
Handler segmentHandler(const Instruction& insn);  ///< segment registers, descriptor tables, far transfers, interrupts
Handler stateHandler(const Instruction& insn);    ///< FXSAVE.., XSAVE..
Handler vectorHandler(const Instruction& insn);   ///< Op::native and what else runs in a thunk
Handler maskedHandler(const Instruction& insn);   ///< gathers, masked moves

/// Whether the handler wants Decoded::native.
bool runsThunk(const Instruction& insn);

/// #UD.
Outcome undefined(Cpu& cpu, const Decoded& d);

}  // namespace lodge::interpret
