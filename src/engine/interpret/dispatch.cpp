// SPDX-License-Identifier: Apache-2.0
// From a decoded instruction to its handler and operands.
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"
#include "engine/interpret/thunk.h"
#include "engine/interpret/vector_state.h"

namespace lodge::interpret {

using x86::Form;

Outcome undefined(Cpu& cpu, const Decoded&) {
  return outcomeOf(x86::raiseUd(cpu));
}

Handler handlerFor(const Instruction& i) {
  constexpr Handler (*kFamilies[])(const Instruction&) = {
      &lockedHandler, &aluHandler,    &moveHandler,     &branchHandler,  &stackHandler,
      &shiftHandler,  &bitHandler,    &multiplyHandler, &decimalHandler, &stringHandler,
      &ioHandler,     &systemHandler, &segmentHandler,  &stateHandler,   &vectorHandler};
  for (auto family : kFamilies) {
    if (Handler handler = family(i)) return handler;
  }
  return &undefined;
}

namespace {

constexpr std::uint16_t kGprOffset = offsetof(CpuState, gpr);
constexpr std::uint16_t kRipOffset = offsetof(CpuState, rip);

std::uint16_t gprOffset(unsigned number) {
  return static_cast<std::uint16_t>(kGprOffset + 8 * number);
}

/// Byte registers 4 to 7 are AH, CH, DH, BH without REX.
std::uint16_t byteOffset(const Instruction& i, unsigned number) {
  bool high = i.encoding == x86::Encoding::legacy && i.rex == 0 && number >= 4 && number < 8;
  return high ? static_cast<std::uint16_t>(gprOffset(number - 4) + 1) : gprOffset(number);
}

/// Whether the r/m operand is a byte (Eb) though the instruction's operand size is not: MOVZX, MOVSX, CRC32.
bool byteSource(const Instruction& i) {
  return i.info->memoryBytes == 1 && i.info->cls == x86::OpClass::integer;
}

void setRegisters(const Instruction& i, Decoded& out) {
  bool bytes = i.operandSize == 1;
  out.rm = bytes || byteSource(i) ? byteOffset(i, i.rm) : gprOffset(i.rm);
  out.reg = bytes ? byteOffset(i, i.reg) : gprOffset(i.reg);
  out.vvvv = gprOffset(i.vexV);
  switch (i.info->form) {
    case Form::a_i:  // the accumulator is the r/m operand
      out.rm = gprOffset(x86::rax);
      break;
    case Form::a_z:
    case Form::a_o:
    case Form::o_a:
      out.reg = gprOffset(x86::rax);
      break;
    case Form::sreg:
      out.reg = (i.opcode >> 3) & 7;  // 06, 0E, 16, 1E; 0F A0, 0F A8: FS and GS are 4 and 5 there too
      break;
    default:
      break;
  }
}

void setAddress(const Instruction& i, Decoded& out) {
  out.addressMask = i.addressSize == 8 ? ~std::uint64_t{0} : i.addressSize == 4 ? 0xffffffff : 0xffff;
  out.displacement = i.displacement;
  out.base = i.base == x86::kNoRegister ? kNoOffset : gprOffset(i.base);
  bool vectorIndex = (i.info->attributes & x86::attribute::vsib) != 0;
  out.index = i.index == x86::kNoRegister || vectorIndex ? kNoOffset : gprOffset(i.index);
  out.scaleShift = i.scale == 8 ? 3 : i.scale == 4 ? 2 : i.scale == 2 ? 1 : 0;
  if (i.ripRelative) {
    out.base = kRipOffset;
    out.displacement += i.length;
  }
  out.segment = i.segment;
  if (!i.memory)
    out.segment = i.segmentOverride != x86::kNoSegment ? i.segmentOverride : static_cast<std::uint8_t>(x86::ds);
}

/// #UD that depends on the mode and not on the bytes: VEX instructions on general registers.
bool undefinedInMode(const Cpu& cpu, const Instruction& i) {
  if (i.encoding == x86::Encoding::legacy) return false;
  return !cpu.protectedMode() || cpu.virtual8086();
}

bool isSystem(const Instruction& i) {
  return i.info->cls == x86::OpClass::system || i.info->cls == x86::OpClass::io;
}

}  // namespace

void prepare(Cpu& cpu, const Instruction& insn, Decoded& out) {
  out.insn = insn;
  out.length = insn.length;
  out.code64 = insn.codeSize == x86::CodeSize::bits64;
  out.native = nullptr;
  const x86::OpcodeInfo* meaning = x86::opcodeForFeatures(*insn.info, cpu.model->features);
  if (meaning) out.insn.info = meaning;
  setRegisters(out.insn, out);
  setAddress(out.insn, out);
  out.system = isSystem(out.insn);
  bool defined = meaning && !undefinedInMode(cpu, insn);
  out.handler = defined ? handlerFor(out.insn) : &undefined;
  if (defined && runsThunk(out.insn)) out.native = const_cast<Thunk*>(contextOf(cpu).thunks->find(out.insn));
}

}  // namespace lodge::interpret
