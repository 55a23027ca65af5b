// SPDX-License-Identifier: Apache-2.0
// What a decoded instruction does to memory and to the flags.
#include "x86/instruction.h"
#include "x86/state.h"

namespace lodge::x86 {
namespace {

unsigned vectorBytes(const Instruction& i) {
  return i.encoding == Encoding::legacy ? 16 : 16u << i.vexL;
}

bool wideW(const Instruction& i) {
  bool w = i.encoding == Encoding::legacy ? (i.rex & 8) != 0 : i.vexW;
  return w && i.codeSize == CodeSize::bits64;
}

unsigned memoryBytes(const Instruction& i) {
  using namespace memory_size;
  unsigned v = i.operandSize;
  if (i.evexB && i.memory) return i.info->elementBytes;
  switch (i.info->memoryBytes) {
    case operand:
      return v;
    case vector:
      return vectorBytes(i);
    case half:
      return vectorBytes(i) / 2;
    case quarter:
      return vectorBytes(i) / 4;
    case eighth:
      return vectorBytes(i) / 8;
    case dwordOrQword:
      return wideW(i) ? 8 : 4;
    case wordOrDword:
      return v == 2 ? 2 : 4;
    case farPointer:
      return v + 2;
    case tableRegister:
      return i.codeSize == CodeSize::bits64 ? 10 : 6;
    case boundPair:
      return 2 * v;
    case x87Environment:
      return v == 2 ? 14 : 28;
    case x87State:
      return v == 2 ? 94 : 108;
    case fxsaveArea:
      return 512;
    case xsaveArea:
    case none:
      return 0;
    case pairOfY:
      return wideW(i) ? 16 : 8;
    default:
      return i.info->memoryBytes;
  }
}

/// The count of a shift or rotation by an immediate, after the CPU's masking.
unsigned maskedCount(const Instruction& i) {
  return static_cast<unsigned>(i.immediate) & (i.operandSize == 8 ? 63u : 31u);
}

FlagEffects shiftEffects(const Instruction& i) {
  const OpcodeInfo& row = *i.info;
  bool throughCarry = row.op == Op::rcl || row.op == Op::rcr;
  unsigned count = maskedCount(i);
  if (count == 0) return {0, 0, 0};
  std::uint32_t read = throughCarry ? std::uint32_t{flag::cf} : 0;
  if (count == 1)
    return {read, row.flagsWritten | std::uint32_t{flag::of}, row.flagsUndefined & ~std::uint32_t{flag::of}};
  return {read, row.flagsWritten, row.flagsUndefined};
}

}  // namespace

MemoryOperand memoryOperand(const Instruction& i) {
  if (!i.memory) return {0, false, false};
  if (i.info->form == Form::a_o) return {i.operandSize, true, false};
  if (i.info->form == Form::o_a) return {i.operandSize, false, true};
  std::uint32_t attributes = i.info->attributes;
  bool read = (attributes & attribute::readsRm) != 0;
  bool write = (attributes & attribute::writesRm) != 0;
  return {static_cast<std::uint16_t>(read || write ? memoryBytes(i) : 0), read, write};
}

unsigned displacementUnit(const Instruction& i) {
  bool element = (i.info->attributes & attribute::vsib) || i.info->op == Op::compress || i.info->op == Op::expand;
  return element ? i.info->elementBytes : memoryBytes(i);
}

FlagEffects flagEffects(const Instruction& i) {
  const OpcodeInfo& row = *i.info;
  switch (row.op) {
    case Op::rol:
    case Op::ror:
    case Op::rcl:
    case Op::rcr:
    case Op::shl:
    case Op::shr:
    case Op::sar:
      if (row.form == Form::e_i) return shiftEffects(i);
      break;
    case Op::shld:
    case Op::shrd:
      if (row.form == Form::e_g_i) return shiftEffects(i);
      break;
    case Op::cmps:
    case Op::scas:
      if (i.repeat == 0) return {flag::df, row.flagsWritten, 0};
      break;
    default:
      break;
  }
  return {row.flagsRead, row.flagsWritten, row.flagsUndefined};
}

}  // namespace lodge::x86
