// SPDX-License-Identifier: Apache-2.0
// Atomic read-modify-write: LOCK-prefixed instructions, XCHG with memory, and the compare-and-exchange family.
//
// On RAM the host's own locked instruction does the work, so that it is atomic against every other vCPU thread and
// device. What lies across a page boundary or outside RAM is done in two halves under one process-wide lock: atomic
// against other such accesses, which is what a bus lock on such addresses is used for.
#include "engine/interpret/flags.h"
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"

namespace lodge::interpret {
namespace {

using x86::Form;
using x86::Op;

/// Held for a few accesses at most. Whoever does not get it soon retries the whole instruction, so that a vCPU never
/// waits here without looking at its events.
class SplitLock {
 public:
  SplitLock() {
    for (unsigned i = 0; i < 1000 && !held; ++i) {
      held = __atomic_exchange_n(&taken_, 1, __ATOMIC_ACQUIRE) == 0;
      if (!held) asm volatile("pause");
    }
  }
  ~SplitLock() {
    if (held) __atomic_store_n(&taken_, 0, __ATOMIC_RELEASE);
  }
  SplitLock(const SplitLock&) = delete;
  SplitLock& operator=(const SplitLock&) = delete;
  bool held = false;

 private:
  static inline int taken_ = 0;
};

/// `atomic` works on a host pointer; it is given a local copy where there is none to the operand.
template <class T, class Atomic>
[[gnu::always_inline]] inline Outcome lockedAt(Cpu& cpu, const Decoded& d, std::uint64_t offset, Atomic atomic) {
  RmwSlot slot;
  if (!prepareRmw(cpu, d, offset, sizeof(T), slot)) return Outcome::fault;
  if (slot.host) [[likely]] {
    atomic(reinterpret_cast<T*>(slot.host));
    wroteSlot(cpu, slot, sizeof(T));
    return Outcome::next;
  }
  CpuState& s = cpu.state;
  std::uint64_t flags = s.rflags, a = s.gpr[x86::rax], c = s.gpr[d.insn.reg & 15];
  std::uint64_t wide;
  SplitLock lock;
  if (!lock.held) return Outcome::again;
  if (!x86::readLinear(cpu, slot.linear, sizeof(T), wide)) return Outcome::fault;
  T value = static_cast<T>(wide);
  atomic(&value);
  if (x86::writeLinear(cpu, slot.linear, sizeof(T), value)) return Outcome::next;
  s.rflags = flags;
  s.gpr[x86::rax] = a;
  s.gpr[d.insn.reg & 15] = c;
  return Outcome::fault;
}

#define LODGE_LOCKED(name, constraint)                     \
  asm volatile("lock " name " %[b], %[m]" LODGE_KEEP_FLAGS \
               : [m] "+m"(*m), "=&a"(f)                    \
               : [b] constraint(b)                         \
               : "cc", "memory")

template <Alu op, class T>
[[gnu::always_inline]] inline void lockedAlu(Cpu& cpu, T* m, T b) {
  std::uint32_t f;
  if constexpr (op == Alu::add) LODGE_LOCKED("add", "r");
  if constexpr (op == Alu::or_) LODGE_LOCKED("or", "r");
  if constexpr (op == Alu::and_) LODGE_LOCKED("and", "r");
  if constexpr (op == Alu::sub) LODGE_LOCKED("sub", "r");
  if constexpr (op == Alu::xor_) LODGE_LOCKED("xor", "r");
  if constexpr (op == Alu::adc || op == Alu::sbb) {
    std::uint32_t carry = static_cast<std::uint32_t>(cpu.state.rflags);
    if constexpr (op == Alu::adc) {
      asm volatile("btl $0, %[c]\n\tlock adc %[b], %[m]" LODGE_KEEP_FLAGS
                   : [m] "+m"(*m), "=&a"(f)
                   : [b] "r"(b), [c] "r"(carry)
                   : "cc", "memory");
    } else {
      asm volatile("btl $0, %[c]\n\tlock sbb %[b], %[m]" LODGE_KEEP_FLAGS
                   : [m] "+m"(*m), "=&a"(f)
                   : [b] "r"(b), [c] "r"(carry)
                   : "cc", "memory");
    }
  }
  storeFlags(cpu, f);
}

template <Alu op, class T>
Outcome runAlu(Cpu& cpu, const Decoded& d) {
  T b = d.insn.info->form == Form::e_i ? static_cast<T>(d.insn.immediate) : readReg<T>(cpu, d.reg);
  return lockedAt<T>(cpu, d, effectiveAddress(cpu, d), [&](T* m) { lockedAlu<op, T>(cpu, m, b); });
}
template <Alu op>
Handler pickAlu(const Instruction& i) {
  static constexpr Handler kTable[4] = {&runAlu<op, std::uint8_t>, &runAlu<op, std::uint16_t>,
                                        &runAlu<op, std::uint32_t>, &runAlu<op, std::uint64_t>};
  return kTable[sizeIndex(i.operandSize)];
}

template <Unary op, class T>
Outcome runUnary(Cpu& cpu, const Decoded& d) {
  return lockedAt<T>(cpu, d, effectiveAddress(cpu, d), [&](T* m) {
    if constexpr (op == Unary::not_ || op == Unary::neg) {
      T old = __atomic_load_n(m, __ATOMIC_RELAXED);
      while (!__atomic_compare_exchange_n(m, &old, static_cast<T>(op == Unary::neg ? 0 - old : ~old), false,
                                          __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
      }
      unary<op, T>(cpu, old);
    } else {
      std::uint32_t f;
      T b = 1;
      if constexpr (op == Unary::inc) {
        LODGE_LOCKED("add", "r");
      } else {
        LODGE_LOCKED("sub", "r");
      }
      storeFlagsKeepingCarry(cpu, f);
    }
  });
}
template <Unary op>
Handler pickUnary(const Instruction& i) {
  static constexpr Handler kTable[4] = {&runUnary<op, std::uint8_t>, &runUnary<op, std::uint16_t>,
                                        &runUnary<op, std::uint32_t>, &runUnary<op, std::uint64_t>};
  return kTable[sizeIndex(i.operandSize)];
}

template <class T>
struct Exchange {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    if (!d.insn.memory) {
      T a = readReg<T>(cpu, d.rm), b = readReg<T>(cpu, d.reg);
      writeReg<T>(cpu, d.rm, b);
      writeReg<T>(cpu, d.reg, a);
      return Outcome::next;
    }
    return lockedAt<T>(cpu, d, effectiveAddress(cpu, d), [&](T* m) {
      writeReg<T>(cpu, d.reg, __atomic_exchange_n(m, readReg<T>(cpu, d.reg), __ATOMIC_SEQ_CST));
    });
  }
};

template <class T>
struct ExchangeAdd {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    if (!d.insn.memory) {
      T a = readReg<T>(cpu, d.rm), b = readReg<T>(cpu, d.reg);
      T sum = alu<Alu::add, T>(cpu, a, b);
      writeReg<T>(cpu, d.reg, a);
      writeReg<T>(cpu, d.rm, sum);
      return Outcome::next;
    }
    return lockedAt<T>(cpu, d, effectiveAddress(cpu, d), [&](T* m) {
      T b = readReg<T>(cpu, d.reg);
      std::uint32_t f;
      asm volatile("lock xadd %[b], %[m]" LODGE_KEEP_FLAGS : [m] "+m"(*m), [b] "+&r"(b), "=&a"(f) : : "cc", "memory");
      storeFlags(cpu, f);
      writeReg<T>(cpu, d.reg, b);
    });
  }
};

/// The accumulator changes only if the comparison fails (with a doubleword: also its upper half).
template <class T>
struct CompareExchange {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    T desired = readReg<T>(cpu, d.reg);
    if (!d.insn.memory) return betweenRegisters(cpu, d, desired);
    return lockedAt<T>(cpu, d, effectiveAddress(cpu, d), [&](T* m) {
      T expected = static_cast<T>(cpu.state.gpr[x86::rax]);
      T old = expected;
      __atomic_compare_exchange_n(m, &old, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
      alu<Alu::cmp, T>(cpu, expected, old);
      if (old != expected) writeReg<T>(cpu, offsetof(CpuState, gpr), old);
    });
  }

  /// A failed comparison leaves the target's upper half alone on AMD's processors; the host decides.
  static Outcome betweenRegisters(Cpu& cpu, const Decoded& d, T desired) {
    T old = readReg<T>(cpu, d.rm);
    alu<Alu::cmp, T>(cpu, static_cast<T>(cpu.state.gpr[x86::rax]), old);
    if ((cpu.state.rflags & x86::flag::zf) != 0) {
      writeReg<T>(cpu, d.rm, desired);
      return Outcome::next;
    }
    if constexpr (sizeof(T) == 4) {
      std::uint64_t target = qword(cpu, d.rm), accumulator = ~target & 0xffffffff;
      asm("cmpxchg %k[b], %k[t]" : [t] "+r"(target), "+a"(accumulator) : [b] "r"(desired) : "cc");
      qword(cpu, d.rm) = target;
    }
    writeReg<T>(cpu, offsetof(CpuState, gpr), old);
    return Outcome::next;
  }
};

void setZero(Cpu& cpu, bool equal) {
  cpu.state.rflags = (cpu.state.rflags & ~x86::flag::zf) | (equal ? x86::flag::zf : 0);
}

Outcome compareExchange8(Cpu& cpu, const Decoded& d) {
  CpuState& s = cpu.state;
  auto pair = [](std::uint64_t high, std::uint64_t low) { return high << 32 | static_cast<std::uint32_t>(low); };
  bool equal = false;
  std::uint64_t expected = pair(s.gpr[x86::rdx], s.gpr[x86::rax]);
  std::uint64_t old = expected;
  Outcome outcome = lockedAt<std::uint64_t>(cpu, d, effectiveAddress(cpu, d), [&](std::uint64_t* m) {
    old = expected;
    equal = __atomic_compare_exchange_n(m, &old, pair(s.gpr[x86::rcx], s.gpr[x86::rbx]), false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST);
  });
  if (outcome == Outcome::fault) return outcome;
  setZero(cpu, equal);
  if (!equal) {
    s.gpr[x86::rax] = static_cast<std::uint32_t>(old);
    s.gpr[x86::rdx] = old >> 32;
  }
  return Outcome::next;
}

/// The host's CMPXCHG16B on `m`, 16-byte aligned. Returns whether it stored; else high:low are what was there.
bool hostCompareExchange16(void* m, std::uint64_t& low, std::uint64_t& high, std::uint64_t newLow,
                           std::uint64_t newHigh) {
  bool equal;
  asm volatile("lock cmpxchg16b (%[m])"
               : "=@ccz"(equal), "+a"(low), "+d"(high)
               : [m] "r"(m), "b"(newLow), "c"(newHigh)
               : "memory");
  return equal;
}

Outcome compareExchange16(Cpu& cpu, const Decoded& d) {
  std::uint64_t linear, offset = effectiveAddress(cpu, d);
  // A misaligned address is #GP even where a stack address that is not canonical would be #SS.
  if (d.segment < x86::fs && (offset & 15) != 0) return outcomeOf(x86::raiseGp(cpu, 0));
  if (!x86::linearAddressFast(cpu, static_cast<Segment>(d.segment), offset, 16, Access::write, linear)) {
    return Outcome::fault;
  }
  if ((linear & 15) != 0) return outcomeOf(x86::raiseGp(cpu, 0));
  CpuState& s = cpu.state;
  cpu.exception.valid = false;
  std::byte* host = x86::writablePointer(cpu, linear, 16);
  if (!host && cpu.exception.valid) return Outcome::fault;
  std::uint64_t low = s.gpr[x86::rax], high = s.gpr[x86::rdx];
  bool equal;
  if (host) {
    equal = hostCompareExchange16(host, low, high, s.gpr[x86::rbx], s.gpr[x86::rcx]);
    x86::wroteTo(cpu, host, 16);
  } else {  // MMIO
    alignas(16) std::uint64_t copy[2];
    if (!x86::readLinearBytes(cpu, linear, copy, 16)) return Outcome::fault;
    equal = hostCompareExchange16(copy, low, high, s.gpr[x86::rbx], s.gpr[x86::rcx]);
    if (!x86::writeLinearBytes(cpu, linear, copy, 16)) return Outcome::fault;
  }
  setZero(cpu, equal);
  if (!equal) {
    s.gpr[x86::rax] = low;
    s.gpr[x86::rdx] = high;
  }
  return Outcome::next;
}

/// LOCK BTS, BTR, BTC: the bit string may lie anywhere around the operand's address.
template <Alu op, class T>
[[gnu::always_inline]] inline void lockedBit(Cpu& cpu, T* m, unsigned bit) {
  T mask = static_cast<T>(T{1} << bit);
  T old;
  if constexpr (op == Alu::or_) {
    old = __atomic_fetch_or(m, mask, __ATOMIC_SEQ_CST);
  } else if constexpr (op == Alu::and_) {
    old = __atomic_fetch_and(m, static_cast<T>(~mask), __ATOMIC_SEQ_CST);
  } else {
    old = __atomic_fetch_xor(m, mask, __ATOMIC_SEQ_CST);
  }
  bitOp<BitOp::bt, T>(cpu, old, static_cast<T>(bit));
}
template <Alu op, class T>
Outcome runBit(Cpu& cpu, const Decoded& d) {
  constexpr unsigned bits = 8 * sizeof(T);
  std::uint64_t offset = effectiveAddress(cpu, d);
  unsigned bit;
  if (d.insn.info->form == Form::e_i) {
    bit = static_cast<unsigned>(d.insn.immediate) & (bits - 1);
  } else {
    auto index = static_cast<std::int64_t>(static_cast<std::make_signed_t<T>>(readReg<T>(cpu, d.reg)));
    bit = static_cast<unsigned>(index) & (bits - 1);
    offset = (offset + static_cast<std::uint64_t>((index >> (sizeof(T) == 8   ? 6
                                                             : sizeof(T) == 4 ? 5
                                                                              : 4)) *
                                                  static_cast<std::int64_t>(sizeof(T)))) &
             d.addressMask;
  }
  return lockedAt<T>(cpu, d, offset, [&](T* m) { lockedBit<op, T>(cpu, m, bit); });
}
template <Alu op>
Handler pickBit(const Instruction& i) {
  static constexpr Handler kTable[4] = {nullptr, &runBit<op, std::uint16_t>, &runBit<op, std::uint32_t>,
                                        &runBit<op, std::uint64_t>};
  return kTable[sizeIndex(i.operandSize)];
}

Handler prefixedHandler(const Instruction& i) {
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
    case Op::inc:
      return pickUnary<Unary::inc>(i);
    case Op::dec:
      return pickUnary<Unary::dec>(i);
    case Op::not_:
      return pickUnary<Unary::not_>(i);
    case Op::neg:
      return pickUnary<Unary::neg>(i);
    case Op::bts:
      return pickBit<Alu::or_>(i);
    case Op::btr:
      return pickBit<Alu::and_>(i);
    case Op::btc:
      return pickBit<Alu::xor_>(i);
    default:
      return nullptr;
  }
}

}  // namespace

Handler lockedHandler(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  switch (i.info->op) {
    case Op::xchg:
      return kBySize<Exchange>[size];
    case Op::xadd:
      return kBySize<ExchangeAdd>[size];
    case Op::cmpxchg:
      return kBySize<CompareExchange>[size];
    case Op::cmpxchg8b:
      return &compareExchange8;
    case Op::cmpxchg16b:
      return &compareExchange16;
    default:
      return i.lock ? prefixedHandler(i) : nullptr;
  }
}

}  // namespace lodge::interpret
