// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/register_effects.h"

namespace lodge::translate {

namespace {
using namespace x86;
using namespace x86::attribute;

constexpr std::uint16_t bit(unsigned r) {
  return static_cast<std::uint16_t>(1u << (r & 15));
}

/// A byte operand without REX may be the second byte of registers 0-3.
std::uint16_t operandBits(const Instruction& i, std::uint8_t r) {
  bool maybeHigh =
      i.rex == 0 && i.encoding == Encoding::legacy && r >= 4 && r < 8 && (i.info->attributes & byteForm) != 0;
  return static_cast<std::uint16_t>(bit(r) | (maybeHigh ? bit(r - 4u) : 0));
}

std::uint16_t explicitWrites(const Instruction& i) {
  std::uint32_t a = i.info->attributes;
  std::uint16_t written = 0;
  if ((a & (writesReg | regIsGpr)) == (writesReg | regIsGpr)) written |= operandBits(i, i.reg);
  if ((a & (writesRm | rmIsGpr)) == (writesRm | rmIsGpr) && i.isRegisterForm()) written |= operandBits(i, i.rm);
  if (i.encoding == Encoding::vex && (a & vvvvIsGpr) != 0) written |= bit(i.vexV);
  if (!i.hasModrm) {
    switch (i.info->form) {
      case Form::z:
      case Form::z_i:
        written |= operandBits(i, i.rm);
        break;
      case Form::a_z:
        written |= static_cast<std::uint16_t>(bit(rax) | bit(i.rm));
        break;
      case Form::a_i:
        if (i.info->op == Op::cmp || i.info->op == Op::test) break;
        [[fallthrough]];
      case Form::a_o:
        written |= bit(rax);
        break;
      default:
        break;
    }
  }
  return written;
}

std::uint16_t implicitWrites(const Instruction& i) {
  switch (i.info->op) {
    case Op::mul:
    case Op::imul:
    case Op::div:
    case Op::idiv:
    case Op::cmpxchg8b:
    case Op::cmpxchg16b:
    case Op::cbw:
    case Op::cwd:
      return bit(rax) | bit(rdx);
    case Op::cmpxchg:
    case Op::lahf:
      return bit(rax);
    case Op::loop:
    case Op::loope:
    case Op::loopne:
      return bit(rcx);
    case Op::push:
    case Op::pop:
      return bit(rsp);
    case Op::call:
    case Op::call_indirect:
    case Op::ret:
      return bit(rsp);
    case Op::leave:
      return bit(rsp) | bit(rbp);
    case Op::native:
      return (i.info->attributes & implicitGprs) != 0 ? bit(rcx) : 0;
    default:
      return 0;
  }
}
}  // namespace

std::uint16_t writtenRegisters(const Instruction& i) {
  switch (i.info->cls) {
    case OpClass::integer:
    case OpClass::branch:
    case OpClass::native:
      return explicitWrites(i) | implicitWrites(i);
    case OpClass::system:
      switch (i.info->op) {
        case Op::ldmxcsr:
        case Op::stmxcsr:
        case Op::fwait:
        case Op::emms:
          return 0;
        default:
          return 0xffff;
      }
    default:
      return 0xffff;
  }
}

}  // namespace lodge::translate
