// SPDX-License-Identifier: Apache-2.0
// What the interpreter keeps for one vCPU, and the form in which it keeps decoded instructions. Internal to this
// folder.
#pragma once

#include <cstddef>
#include <cstdint>

#include "x86/cpu.h"
#include "x86/instruction.h"

namespace lodge::interpret {

using x86::Cpu;
using x86::Instruction;

/// How an instruction ended.
enum class Outcome : std::uint8_t {
  next,    ///< go on after it
  jumped,  ///< RIP was set
  fault,   ///< cpu.exception is set, RIP is the instruction's
  again,   ///< REP: progress was made, RIP stays on the instruction
};

struct Decoded;
using Handler = Outcome (*)(Cpu& cpu, const Decoded& d);

/// An instruction ready to execute. Operands are byte offsets into CpuState, so that AH..BH and RIP are operands like
/// others.
struct alignas(64) Decoded {
  Handler handler;
  std::uint64_t key;          ///< host address of the instruction's bytes | ModeKey << 60; 0: empty
  std::uint64_t bytes[2];     ///< the source bytes, those beyond the length cleared
  std::uint64_t addressMask;  ///< of the effective address: 2^16-1, 2^32-1 or all ones
  std::int64_t displacement;  ///< for RIP-relative operands the instruction's length is added
  std::uint16_t rm, reg, vvvv;
  std::uint16_t base, index;  ///< kNoOffset: none
  std::uint8_t scaleShift;
  std::uint8_t segment;
  std::uint8_t length;
  bool code64;   ///< decoded as 64-bit code
  bool system;   ///< may change mode, mappings, flags outside the arithmetic ones: the loop looks again
  void* native;  ///< Op::native: its Thunk
  Instruction insn;
};
inline constexpr std::uint16_t kNoOffset = 0xffff;

/// What decides, beyond its bytes, how an instruction is decoded.
enum class ModeKey : std::uint8_t { real16 = 1, real32, protected16, protected32, code64 };

class ThunkCache;

/// Owned by the vCPU (Cpu::interpreter); used on its thread only.
struct Context {
  Decoded* cache;  ///< cacheMask + 1 entries
  std::uint32_t cacheMask;
  ThunkCache* thunks;
  std::uint64_t statistics[4];  ///< decodes, slow steps, native instructions, faults
  Decoded scratch;              ///< for instructions that cannot be cached
  static constexpr unsigned kEdges = 64;
  Decoded edges[kEdges];             ///< those that cross a page's end; the key is the linear address | ModeKey << 60
  alignas(64) std::byte area[4096];  ///< bounce buffer: FXSAVE and XSAVE areas, operands that cross pages or are MMIO
  alignas(64) std::byte vectors[4][64];  ///< vector registers of gathers and masked moves
};

enum Statistic : unsigned { kDecodes, kSlowSteps, kNatives, kFaults };

inline Context& contextOf(Cpu& cpu) {
  return *cpu.interpreter;
}

/// The handler for an instruction (dispatch.cpp); never null.
Handler handlerFor(const Instruction& insn);
/// Fills everything but key, bytes and native.
void prepare(Cpu& cpu, const Instruction& insn, Decoded& out);

}  // namespace lodge::interpret
