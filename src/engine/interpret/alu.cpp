// SPDX-License-Identifier: Apache-2.0
// Two-operand arithmetic and logic, and INC, DEC, NOT, NEG.
#include "engine/interpret/flags.h"
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"

namespace lodge::interpret {
namespace {

using x86::Form;
using x86::Op;

enum class Shape : std::uint8_t { regReg, regMemory, memoryReg, regImmediate, memoryImmediate };

/// `reg` names the destination: rm in e_g and e_i forms, reg in g_e forms.
template <Alu op, Shape shape, bool rmFirst, class T>
Outcome runAlu(Cpu& cpu, const Decoded& d) {
  constexpr bool writes = op != Alu::cmp && op != Alu::test;
  if constexpr (shape == Shape::regReg || shape == Shape::regImmediate) {
    std::uint16_t target = rmFirst ? d.rm : d.reg;
    T b = shape == Shape::regImmediate ? static_cast<T>(d.insn.immediate) : readReg<T>(cpu, rmFirst ? d.reg : d.rm);
    T result = alu<op, T>(cpu, readReg<T>(cpu, target), b);
    if constexpr (writes) writeReg<T>(cpu, target, result);
    return Outcome::next;
  } else if constexpr (shape == Shape::regMemory) {
    T b;
    if (!readMemory<T>(cpu, d, b)) return Outcome::fault;
    T result = alu<op, T>(cpu, readReg<T>(cpu, d.reg), b);
    if constexpr (writes) writeReg<T>(cpu, d.reg, result);
    return Outcome::next;
  } else {
    T b = shape == Shape::memoryImmediate ? static_cast<T>(d.insn.immediate) : readReg<T>(cpu, d.reg);
    if constexpr (writes) {
      return changeMemory<T>(cpu, d, [&](T a) { return alu<op, T>(cpu, a, b); });
    } else {
      T a;
      if (!readMemory<T>(cpu, d, a)) return Outcome::fault;
      alu<op, T>(cpu, a, b);
      return Outcome::next;
    }
  }
}

template <Alu op, Shape shape, bool rmFirst>
inline constexpr Handler kAlu[4] = {
    &runAlu<op, shape, rmFirst, std::uint8_t>, &runAlu<op, shape, rmFirst, std::uint16_t>,
    &runAlu<op, shape, rmFirst, std::uint32_t>, &runAlu<op, shape, rmFirst, std::uint64_t>};

template <Alu op>
Handler pickAlu(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  switch (i.info->form) {
    case Form::e_g:
      return i.memory ? kAlu<op, Shape::memoryReg, true>[size] : kAlu<op, Shape::regReg, true>[size];
    case Form::g_e:
      return i.memory ? kAlu<op, Shape::regMemory, false>[size] : kAlu<op, Shape::regReg, false>[size];
    case Form::e_i:
      return i.memory ? kAlu<op, Shape::memoryImmediate, true>[size] : kAlu<op, Shape::regImmediate, true>[size];
    default:
      return kAlu<op, Shape::regImmediate, true>[size];  // a_i: prepare() set rm to the accumulator
  }
}

template <Unary op, bool memory, class T>
Outcome runUnary(Cpu& cpu, const Decoded& d) {
  if constexpr (memory) return changeMemory<T>(cpu, d, [&](T a) { return unary<op, T>(cpu, a); });
  writeReg<T>(cpu, d.rm, unary<op, T>(cpu, readReg<T>(cpu, d.rm)));
  return Outcome::next;
}

template <Unary op, bool memory>
inline constexpr Handler kUnary[4] = {&runUnary<op, memory, std::uint8_t>, &runUnary<op, memory, std::uint16_t>,
                                      &runUnary<op, memory, std::uint32_t>, &runUnary<op, memory, std::uint64_t>};

template <Unary op>
Handler pickUnary(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  return i.memory ? kUnary<op, true>[size] : kUnary<op, false>[size];
}

}  // namespace

Handler aluHandler(const Instruction& i) {
  switch (i.info->op) {
    case Op::add:
      return pickAlu<Alu::add>(i);
    case Op::or_:
      return pickAlu<Alu::or_>(i);
    case Op::adc:
      return pickAlu<Alu::adc>(i);
    case Op::sbb:
      return pickAlu<Alu::sbb>(i);
    case Op::and_:
      return pickAlu<Alu::and_>(i);
    case Op::sub:
      return pickAlu<Alu::sub>(i);
    case Op::xor_:
      return pickAlu<Alu::xor_>(i);
    case Op::cmp:
      return pickAlu<Alu::cmp>(i);
    case Op::test:
      return pickAlu<Alu::test>(i);
    case Op::inc:
      return pickUnary<Unary::inc>(i);
    case Op::dec:
      return pickUnary<Unary::dec>(i);
    case Op::not_:
      return pickUnary<Unary::not_>(i);
    case Op::neg:
      return pickUnary<Unary::neg>(i);
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
