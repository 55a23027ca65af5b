// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "x86/opcodes.h"
#include "x86/state.h"

namespace lodge::x86 {

/// How the code segment tells the decoder to read bytes.
enum class CodeSize : std::uint8_t { bits16 = 2, bits32 = 4, bits64 = 8 };

enum class Encoding : std::uint8_t { legacy, vex, evex };

/// Longest instruction (SDM vol. 2, 2.3.11).
inline constexpr unsigned kMaxInstructionLength = 15;

inline constexpr std::uint8_t kNoRegister = 0xff;

/// One decoded instruction: everything that its bytes say, nothing that the CPU state says but the code size.
/// Register numbers already include REX/VEX/EVEX extension bits.
struct Instruction {
  const OpcodeInfo* info;     ///< the opcode's row; never null after a successful decode
  std::uint64_t immediate;    ///< sign-extended to 64 bits where the opcode says so; branch displacements sign-extended
  std::int64_t displacement;  ///< sign-extended, and scaled (EVEX disp8*N); moffs: the 64-bit address
  std::uint16_t immediate2;   ///< ENTER's level, far pointers' selector
  std::uint8_t length;        ///< bytes, 1..15
  CodeSize codeSize;

  Encoding encoding;
  std::uint8_t map;     ///< 0: one-byte, 1: 0F, 2: 0F38, 3: 0F3A
  std::uint8_t opcode;  ///< the opcode byte within the map
  std::uint8_t rex;     ///< the REX byte (0x40..0x4f), or 0
  std::uint8_t vexPp;   ///< mandatory prefix: 0 none, 1 66, 2 F3, 3 F2 (legacy too, for opcodes that have one)
  std::uint8_t vexL;    ///< vector length: 0 128, 1 256, 2 512
  std::uint8_t vexV;    ///< VEX.vvvv register number
  bool vexW;
  std::uint8_t opmask;      ///< EVEX.aaa: 0 none, or k1..k7
  bool zeroing;             ///< EVEX.z
  bool evexB;               ///< broadcast (memory), or rounding and SAE (register)
  std::uint8_t evexLength;  ///< EVEX.L'L as it is: the rounding mode, where evexB says so

  bool lock;
  bool operandSizePrefix;        ///< 66
  bool addressSizePrefix;        ///< 67
  std::uint8_t repeat;           ///< 0, 0xF3 (REP/REPE) or 0xF2 (REPNE): the last one given
  std::uint8_t segmentOverride;  ///< a Segment, or kNoSegment (in 64-bit mode ES/CS/SS/DS overrides are dropped)

  std::uint8_t operandSize;  ///< bytes: 2, 4, 8 (1 for byte forms): the effective size of the row's "v" operands
  std::uint8_t addressSize;  ///< bytes: 2, 4, 8

  bool hasModrm;
  std::uint8_t modrm;
  std::uint8_t mod;
  std::uint8_t reg;  ///< ModRM.reg with REX.R
  std::uint8_t rm;   ///< ModRM.rm with REX.B (as a register when mod == 3; else see base); without ModRM: the
                     ///< register in the opcode's low 3 bits, with REX.B
  // Memory operand (hasModrm && mod != 3, or moffs):
  bool memory;
  bool ripRelative;      ///< displacement is relative to the next instruction's address
  std::uint8_t base;     ///< register or kNoRegister
  std::uint8_t index;    ///< register or kNoRegister
  std::uint8_t scale;    ///< 1, 2, 4, 8
  std::uint8_t segment;  ///< the segment that the memory operand uses, override and default applied

  std::uint8_t modrmOffset;  ///< byte offsets within the instruction, for byte-level rewriting
  std::uint8_t opcodeOffset;
  std::uint8_t displacementOffset, displacementSize;
  std::uint8_t immediateOffset, immediateSize;

  bool isMemory() const { return memory; }
  bool isRegisterForm() const { return hasModrm && mod == 3; }
};

enum class DecodeStatus : std::uint8_t {
  ok,
  needMore,  ///< the bytes given end inside the instruction: fetch further (across a page) and try again
  invalid,   ///< #UD
  tooLong,   ///< more than 15 bytes: #GP(0)
};

/// Decodes one instruction from `bytes` (`available` of them, at most 15 are read). Stateless, no allocation, and safe
/// on any bytes. On `invalid`, `out.length` is the number of bytes looked at.
DecodeStatus decode(const std::uint8_t* bytes, unsigned available, CodeSize size, Instruction& out);

/// What the instruction's ModRM/moffs memory operand is used for. `bytes` is 0 for address-only forms (LEA, NOP,
/// prefetch, INVLPG). String instructions, PUSH/POP and other implicit accesses are not described here; see
/// OpcodeInfo::op.
struct MemoryOperand {
  std::uint16_t bytes;
  bool read;
  bool write;
};
MemoryOperand memoryOperand(const Instruction& instruction);

/// N of EVEX's disp8*N (SDM vol. 2, 2.7.5): what the memory form of the instruction accesses at once.
unsigned displacementUnit(const Instruction& instruction);

/// What this very instruction does to the arithmetic flags and DF: the row's masks, sharpened by what its bytes say
/// (the count of a shift by an immediate, the absence of a REP prefix).
struct FlagEffects {
  std::uint32_t read;     ///< bits whose old value can show in the result or in the new flags
  std::uint32_t written;  ///< bits that surely get a defined value, or stay under `read`
  std::uint32_t undefined;
};
FlagEffects flagEffects(const Instruction& instruction);

/// The row that a CPU with these features (CpuModel::features) executes: `info` itself, an older meaning of the same
/// bytes (TZCNT is BSF without BMI1, PREFETCHW a NOP), or null where it raises #UD.
const OpcodeInfo* opcodeForFeatures(const OpcodeInfo& info, std::uint64_t features);

}  // namespace lodge::x86
