// SPDX-License-Identifier: Apache-2.0
// Data movement.
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"

namespace lodge::interpret {
namespace {

using x86::Form;
using x86::Op;

template <class T>
struct MoveRegReg {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    bool load = d.insn.info->form == Form::g_e;
    writeReg<T>(cpu, load ? d.reg : d.rm, readReg<T>(cpu, load ? d.rm : d.reg));
    return Outcome::next;
  }
};
template <class T>
struct Load {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    T value;
    if (!readMemory<T>(cpu, d, value)) return Outcome::fault;
    writeReg<T>(cpu, d.reg, value);
    return Outcome::next;
  }
};
template <class T>
struct Store {
  static Outcome run(Cpu& cpu, const Decoded& d) { return outcomeOf(writeMemory<T>(cpu, d, readReg<T>(cpu, d.reg))); }
};
template <class T>
struct MoveImmediate {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    writeReg<T>(cpu, d.rm, static_cast<T>(d.insn.immediate));
    return Outcome::next;
  }
};
template <class T>
struct StoreImmediate {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    return outcomeOf(writeMemory<T>(cpu, d, static_cast<T>(d.insn.immediate)));
  }
};

Handler pickMove(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  switch (i.info->form) {
    case Form::z_i:
      return kBySize<MoveImmediate>[size];
    case Form::e_i:
      return i.memory ? kBySize<StoreImmediate>[size] : kBySize<MoveImmediate>[size];
    case Form::a_o:
      return kBySize<Load>[size];
    case Form::o_a:
      return kBySize<Store>[size];
    case Form::g_e:
      return i.memory ? kBySize<Load>[size] : kBySize<MoveRegReg>[size];
    default:
      return i.memory ? kBySize<Store>[size] : kBySize<MoveRegReg>[size];
  }
}

/// MOVZX, MOVSX, MOVSXD: From may be signed.
template <class To, class From>
Outcome runExtend(Cpu& cpu, const Decoded& d) {
  using Raw = std::make_unsigned_t<From>;
  Raw value;
  if (!readRm<Raw>(cpu, d, value)) return Outcome::fault;
  writeReg<To>(cpu, d.reg, static_cast<To>(static_cast<From>(value)));
  return Outcome::next;
}
template <class From>
Handler pickExtend(const Instruction& i) {
  static constexpr Handler kTable[4] = {nullptr, &runExtend<std::uint16_t, From>, &runExtend<std::uint32_t, From>,
                                        &runExtend<std::uint64_t, From>};
  return kTable[sizeIndex(i.operandSize)];
}

template <class T>
Outcome byteSwapped(Cpu& cpu, const Decoded& d) {
  auto swap = [](T v) {
    if constexpr (sizeof(T) == 2) return static_cast<T>(__builtin_bswap16(v));
    if constexpr (sizeof(T) == 4) return static_cast<T>(__builtin_bswap32(v));
    if constexpr (sizeof(T) == 8) return static_cast<T>(__builtin_bswap64(v));
  };
  if (d.insn.info->form == Form::e_g) return outcomeOf(writeMemory<T>(cpu, d, swap(readReg<T>(cpu, d.reg))));
  T value;
  if (!readMemory<T>(cpu, d, value)) return Outcome::fault;
  writeReg<T>(cpu, d.reg, swap(value));
  return Outcome::next;
}

/// With an operand size of 2 the result is undefined; every processor clears the word.
Outcome bswap(Cpu& cpu, const Decoded& d) {
  if (d.insn.operandSize == 8) qword(cpu, d.rm) = __builtin_bswap64(qword(cpu, d.rm));
  if (d.insn.operandSize == 4) writeReg(cpu, d.rm, __builtin_bswap32(readReg<std::uint32_t>(cpu, d.rm)));
  if (d.insn.operandSize == 2) writeReg<std::uint16_t>(cpu, d.rm, 0);
  return Outcome::next;
}

template <class T>
Outcome lea(Cpu& cpu, const Decoded& d) {
  writeReg<T>(cpu, d.reg, static_cast<T>(effectiveAddress(cpu, d)));
  return Outcome::next;
}

/// A doubleword destination loses its upper half even if the condition is false; the source is read in any case.
template <class T>
Outcome cmov(Cpu& cpu, const Decoded& d) {
  T value;
  if (!readRm<T>(cpu, d, value)) return Outcome::fault;
  writeReg<T>(cpu, d.reg, conditionHolds(cpu.state.rflags, d.insn.opcode) ? value : readReg<T>(cpu, d.reg));
  return Outcome::next;
}
Outcome setcc(Cpu& cpu, const Decoded& d) {
  return outcomeOf(writeRm<std::uint8_t>(cpu, d, conditionHolds(cpu.state.rflags, d.insn.opcode)));
}

Outcome cbw(Cpu& cpu, const Decoded& d) {
  constexpr std::uint16_t a = offsetof(CpuState, gpr);
  if (d.insn.operandSize == 2) writeReg(cpu, a, static_cast<std::uint16_t>(readReg<std::int8_t>(cpu, a)));
  if (d.insn.operandSize == 4) writeReg(cpu, a, static_cast<std::uint32_t>(readReg<std::int16_t>(cpu, a)));
  if (d.insn.operandSize == 8) writeReg(cpu, a, static_cast<std::uint64_t>(readReg<std::int32_t>(cpu, a)));
  return Outcome::next;
}
Outcome cwd(Cpu& cpu, const Decoded& d) {
  constexpr std::uint16_t a = offsetof(CpuState, gpr), dx = a + 8 * x86::rdx;
  if (d.insn.operandSize == 2) writeReg(cpu, dx, static_cast<std::uint16_t>(readReg<std::int16_t>(cpu, a) >> 15));
  if (d.insn.operandSize == 4) writeReg(cpu, dx, static_cast<std::uint32_t>(readReg<std::int32_t>(cpu, a) >> 31));
  if (d.insn.operandSize == 8) writeReg(cpu, dx, static_cast<std::uint64_t>(readReg<std::int64_t>(cpu, a) >> 63));
  return Outcome::next;
}

Outcome nop(Cpu&, const Decoded&) {
  return Outcome::next;
}

template <class T>
struct LeaOf {
  static Outcome run(Cpu& cpu, const Decoded& d) { return lea<T>(cpu, d); }
};
template <class T>
struct CmovOf {
  static Outcome run(Cpu& cpu, const Decoded& d) { return cmov<T>(cpu, d); }
};

}  // namespace

Handler moveHandler(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  switch (i.info->op) {
    case Op::mov:
      return pickMove(i);
    case Op::movzx:
      return i.info->memoryBytes == 1 ? pickExtend<std::uint8_t>(i) : pickExtend<std::uint16_t>(i);
    case Op::movsx:
      return i.info->memoryBytes == 1 ? pickExtend<std::int8_t>(i) : pickExtend<std::int16_t>(i);
    case Op::movsxd:
      return pickExtend<std::int32_t>(i);
    case Op::movnti:
      return kBySize<Store>[size];
    case Op::movbe:
      return size == 3   ? &byteSwapped<std::uint64_t>
             : size == 2 ? &byteSwapped<std::uint32_t>
                         : &byteSwapped<std::uint16_t>;
    case Op::bswap:
      return &bswap;
    case Op::lea:
      return kBySize<LeaOf>[size];
    case Op::cmov:
      return kBySize<CmovOf>[size];
    case Op::setcc:
      return &setcc;
    case Op::cbw:
      return &cbw;
    case Op::cwd:
      return &cwd;
    case Op::nop:
    case Op::pause:
    case Op::prefetch:
      return &nop;
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
