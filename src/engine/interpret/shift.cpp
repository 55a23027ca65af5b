// SPDX-License-Identifier: Apache-2.0
// Shifts and rotations.
#include "engine/interpret/flags.h"
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"

namespace lodge::interpret {
namespace {

using x86::Form;
using x86::Op;

inline std::uint8_t countOf(Cpu& cpu, const Decoded& d) {
  switch (d.insn.info->form) {
    case Form::e_i:
    case Form::e_g_i:
      return static_cast<std::uint8_t>(d.insn.immediate);
    case Form::e_1:
      return 1;
    default:
      return static_cast<std::uint8_t>(cpu.state.gpr[x86::rcx]);
  }
}

template <Shift op, class T>
Outcome runShift(Cpu& cpu, const Decoded& d) {
  std::uint8_t count = countOf(cpu, d);
  if (d.insn.memory) return changeMemory<T>(cpu, d, [&](T a) { return shift<op, T>(cpu, a, count); });
  writeReg<T>(cpu, d.rm, shift<op, T>(cpu, readReg<T>(cpu, d.rm), count));
  return Outcome::next;
}

template <Shift op>
inline constexpr Handler kShift[4] = {&runShift<op, std::uint8_t>, &runShift<op, std::uint16_t>,
                                      &runShift<op, std::uint32_t>, &runShift<op, std::uint64_t>};

template <bool right, class T>
Outcome runDouble(Cpu& cpu, const Decoded& d) {
  std::uint8_t count = countOf(cpu, d);
  T b = readReg<T>(cpu, d.reg);
  if (d.insn.memory) return changeMemory<T>(cpu, d, [&](T a) { return doubleShift<right, T>(cpu, a, b, count); });
  writeReg<T>(cpu, d.rm, doubleShift<right, T>(cpu, readReg<T>(cpu, d.rm), b, count));
  return Outcome::next;
}

template <bool right>
inline constexpr Handler kDouble[4] = {nullptr, &runDouble<right, std::uint16_t>, &runDouble<right, std::uint32_t>,
                                       &runDouble<right, std::uint64_t>};

}  // namespace

Handler shiftHandler(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  switch (i.info->op) {
    case Op::rol:
      return kShift<Shift::rol>[size];
    case Op::ror:
      return kShift<Shift::ror>[size];
    case Op::rcl:
      return kShift<Shift::rcl>[size];
    case Op::rcr:
      return kShift<Shift::rcr>[size];
    case Op::shl:
      return kShift<Shift::shl>[size];
    case Op::shr:
      return kShift<Shift::shr>[size];
    case Op::sar:
      return kShift<Shift::sar>[size];
    case Op::shld:
      return kDouble<false>[size];
    case Op::shrd:
      return kDouble<true>[size];
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
