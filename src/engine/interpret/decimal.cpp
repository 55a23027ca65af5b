// SPDX-License-Identifier: Apache-2.0
// Decimal adjustment, flag instructions, and small accumulator instructions. 64-bit mode has no decimal adjustment, so
// that the host cannot be asked: flags follow SDM vol. 2, and where that says "undefined" they are what hardware leaves
// in them (SF, ZF, PF by the result; CF and OF cleared).
#include "engine/interpret/flags.h"
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"

namespace lodge::interpret {
namespace {

using x86::Op;
namespace flag = x86::flag;

std::uint8_t& al(Cpu& cpu) {
  return *reinterpret_cast<std::uint8_t*>(&cpu.state.gpr[x86::rax]);
}
std::uint8_t& ah(Cpu& cpu) {
  return *(reinterpret_cast<std::uint8_t*>(&cpu.state.gpr[x86::rax]) + 1);
}

/// SF, ZF, PF by AL; AF and CF as given; OF cleared.
void setResultFlags(Cpu& cpu, bool adjust, bool carry) {
  alu<Alu::test, std::uint8_t>(cpu, al(cpu), al(cpu));
  cpu.state.rflags &= ~(flag::af | flag::cf | flag::of);
  cpu.state.rflags |= (adjust ? flag::af : 0) | (carry ? flag::cf : 0);
}

template <bool subtract>
Outcome adjustPacked(Cpu& cpu, const Decoded&) {
  std::uint8_t old = al(cpu);
  bool carry = (cpu.state.rflags & flag::cf) != 0, adjust = (cpu.state.rflags & flag::af) != 0;
  bool low = (old & 15) > 9 || adjust, high = old > 0x99 || carry;
  std::uint8_t correction = static_cast<std::uint8_t>((low ? 6 : 0) + (high ? 0x60 : 0));
  bool borrow = subtract && low && old < 6;  // DAS: the low correction may borrow
  al(cpu) = static_cast<std::uint8_t>(subtract ? old - correction : old + correction);
  setResultFlags(cpu, low, high || borrow);
  return Outcome::next;
}

template <bool subtract>
Outcome adjustUnpacked(Cpu& cpu, const Decoded&) {
  bool adjust = (al(cpu) & 15) > 9 || (cpu.state.rflags & flag::af) != 0;
  if (adjust) {
    auto ax = static_cast<std::uint16_t>(cpu.state.gpr[x86::rax]);
    ax = static_cast<std::uint16_t>(subtract ? ax - 0x106 : ax + 0x106);
    writeReg(cpu, offsetof(CpuState, gpr), ax);
  }
  setResultFlags(cpu, adjust, adjust);
  al(cpu) &= 15;
  std::uint64_t kept = cpu.state.rflags & (flag::af | flag::cf);
  setResultFlags(cpu, kept & flag::af, kept & flag::cf);
  return Outcome::next;
}

Outcome aam(Cpu& cpu, const Decoded& d) {
  auto base = static_cast<std::uint8_t>(d.insn.immediate);
  if (base == 0) return outcomeOf(x86::raise(cpu, x86::Vector::de));
  std::uint8_t value = al(cpu);
  ah(cpu) = static_cast<std::uint8_t>(value / base);
  al(cpu) = static_cast<std::uint8_t>(value % base);
  setResultFlags(cpu, false, false);
  return Outcome::next;
}

/// The sum sets the flags as ADD does.
Outcome aad(Cpu& cpu, const Decoded& d) {
  auto product = static_cast<std::uint8_t>(ah(cpu) * static_cast<std::uint8_t>(d.insn.immediate));
  std::uint8_t sum = alu<Alu::add, std::uint8_t>(cpu, al(cpu), product);
  writeReg(cpu, offsetof(CpuState, gpr), std::uint16_t{sum});
  return Outcome::next;
}

template <std::uint64_t clear, std::uint64_t set>
Outcome changeFlags(Cpu& cpu, const Decoded&) {
  cpu.state.rflags = (cpu.state.rflags & ~clear) | set;
  return Outcome::next;
}
Outcome cmc(Cpu& cpu, const Decoded&) {
  cpu.state.rflags ^= flag::cf;
  return Outcome::next;
}
Outcome sahf(Cpu& cpu, const Decoded&) {
  cpu.state.rflags = (cpu.state.rflags & ~std::uint64_t{0xd5}) | (ah(cpu) & 0xd5);
  return Outcome::next;
}
Outcome lahf(Cpu& cpu, const Decoded&) {
  ah(cpu) = static_cast<std::uint8_t>((cpu.state.rflags & 0xd5) | 2);
  return Outcome::next;
}
Outcome salc(Cpu& cpu, const Decoded&) {
  al(cpu) = (cpu.state.rflags & flag::cf) != 0 ? 0xff : 0;
  return Outcome::next;
}

Outcome xlat(Cpu& cpu, const Decoded& d) {
  std::uint64_t offset = (cpu.state.gpr[x86::rbx] + al(cpu)) & d.addressMask;
  std::uint8_t value;
  if (!readAt<std::uint8_t>(cpu, d.code64, d.segment, offset, value)) return Outcome::fault;
  al(cpu) = value;
  return Outcome::next;
}

/// The host's own generators, in the operand's size; a failure (CF = 0) clears the register as the instruction does.
template <bool seed>
Outcome randomNumber(Cpu& cpu, const Decoded& d) {
  std::uint64_t value = 0;
  std::uint32_t f;
  if constexpr (seed) {
    asm volatile("rdseed %0" LODGE_KEEP_FLAGS : "=&r"(value), "=&a"(f) : : "cc");
  } else {
    asm volatile("rdrand %0" LODGE_KEEP_FLAGS : "=&r"(value), "=&a"(f) : : "cc");
  }
  storeFlags(cpu, f);
  writeRegSized(cpu, d.rm, d.insn.operandSize, value);
  return Outcome::next;
}

}  // namespace

Handler decimalHandler(const Instruction& i) {
  switch (i.info->op) {
    case Op::daa:
      return &adjustPacked<false>;
    case Op::das:
      return &adjustPacked<true>;
    case Op::aaa:
      return &adjustUnpacked<false>;
    case Op::aas:
      return &adjustUnpacked<true>;
    case Op::aam:
      return &aam;
    case Op::aad:
      return &aad;
    case Op::clc:
      return &changeFlags<flag::cf, 0>;
    case Op::stc:
      return &changeFlags<0, flag::cf>;
    case Op::cmc:
      return &cmc;
    case Op::cld:
      return &changeFlags<flag::df, 0>;
    case Op::std:
      return &changeFlags<0, flag::df>;
    case Op::sahf:
      return &sahf;
    case Op::lahf:
      return &lahf;
    case Op::salc:
      return &salc;
    case Op::xlat:
      return &xlat;
    case Op::rdrand:
      return &randomNumber<false>;
    case Op::rdseed:
      return &randomNumber<true>;
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
