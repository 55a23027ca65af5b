// SPDX-License-Identifier: Apache-2.0
// Multiplication and division.
#include "engine/interpret/flags.h"
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"

namespace lodge::interpret {
namespace {

using x86::Op;

/// One-operand MUL and IMUL: the accumulator pair gets the double-width product (AX for bytes).
template <bool isSigned, class T>
struct Multiply {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    T b;
    if (!readRm<T>(cpu, d, b)) return Outcome::fault;
    std::uint32_t f = flagsToAx(cpu.state.rflags);
    constexpr std::uint16_t accumulator = offsetof(CpuState, gpr) + 8 * x86::rax,
                            high = offsetof(CpuState, gpr) + 8 * x86::rdx;
    std::uint64_t a = readReg<T>(cpu, accumulator);
    std::uint64_t top = cpu.state.gpr[x86::rdx];
    // The flags' AX and the product's RAX share a register: the flags go through RSI.
#define LODGE_MULTIPLY(name)                                                \
  asm("xchg %%rax, %%rsi\n\t" LODGE_LOAD_FLAGS "xchg %%rax, %%rsi\n\t" name \
      " %[b]\n\txchg %%rax, %%rsi" LODGE_KEEP_FLAGS "\n\txchg %%rax, %%rsi" \
      : "+&a"(a), "+&d"(top), "+&S"(f)                                      \
      : [b] "r"(b)                                                          \
      : "cc")
    if constexpr (isSigned) {
      LODGE_MULTIPLY("imul");
    } else {
      LODGE_MULTIPLY("mul");
    }
#undef LODGE_MULTIPLY
    storeFlags(cpu, f);
    if constexpr (sizeof(T) == 1) {
      writeReg<std::uint16_t>(cpu, accumulator, static_cast<std::uint16_t>(a));
    } else {
      writeReg<T>(cpu, accumulator, static_cast<T>(a));
      writeReg<T>(cpu, high, static_cast<T>(top));
    }
    return Outcome::next;
  }
};
template <class T>
using MultiplyUnsigned = Multiply<false, T>;
template <class T>
using MultiplySigned = Multiply<true, T>;

template <class T>
struct Wider;
template <>
struct Wider<std::uint8_t> {
  using U = std::uint16_t;
  using S = std::int16_t;
};
template <>
struct Wider<std::uint16_t> {
  using U = std::uint32_t;
  using S = std::int32_t;
};
template <>
struct Wider<std::uint32_t> {
  using U = std::uint64_t;
  using S = std::int64_t;
};
template <>
struct Wider<std::uint64_t> {
  using U = unsigned __int128;
  using S = __int128;
};

/// Whether the quotient of high:low by b does not fit (or b is 0): #DE.
template <bool isSigned, class T>
bool divideOverflows(T high, T low, T b) {
  if (b == 0) return true;
  if constexpr (!isSigned) return high >= b;
  using U = typename Wider<T>::U;
  auto wide = static_cast<U>((static_cast<U>(high) << (8 * sizeof(T))) | low);
  bool negative = (high >> (8 * sizeof(T) - 1)) != 0;
  bool divisorNegative = (b >> (8 * sizeof(T) - 1)) != 0;
  U magnitude = negative ? static_cast<U>(0 - wide) : wide;
  T divisor = divisorNegative ? static_cast<T>(0 - b) : b;
  // |quotient| fits if it is below 2^(n-1), or equals it and is negative. Compare products instead of dividing.
  U limit = static_cast<U>(static_cast<U>(divisor) << (8 * sizeof(T) - 1));
  if (negative == divisorNegative) return magnitude >= limit;
  return magnitude >= static_cast<U>(limit + divisor);
}

template <bool isSigned, class T>
struct Divide {
  static Outcome run(Cpu& cpu, const Decoded& d) {
    T b;
    if (!readRm<T>(cpu, d, b)) return Outcome::fault;
    constexpr std::uint16_t accumulator = offsetof(CpuState, gpr) + 8 * x86::rax,
                            top = offsetof(CpuState, gpr) + 8 * x86::rdx;
    T low = readReg<T>(cpu, accumulator);
    T high = sizeof(T) == 1 ? readReg<T>(cpu, accumulator + 1) : readReg<T>(cpu, top);
    if (divideOverflows<isSigned, T>(high, low, b)) return outcomeOf(x86::raise(cpu, x86::Vector::de));
    std::uint32_t f = flagsToAx(cpu.state.rflags);
    std::uint64_t a = sizeof(T) == 1 ? readReg<std::uint16_t>(cpu, accumulator) : low;
    std::uint64_t dx = high;
#define LODGE_DIVIDE(name)                                                  \
  asm("xchg %%rax, %%rsi\n\t" LODGE_LOAD_FLAGS "xchg %%rax, %%rsi\n\t" name \
      " %[b]\n\txchg %%rax, %%rsi" LODGE_KEEP_FLAGS "\n\txchg %%rax, %%rsi" \
      : "+&a"(a), "+&d"(dx), "+&S"(f)                                       \
      : [b] "r"(b)                                                          \
      : "cc")
    if constexpr (isSigned) {
      LODGE_DIVIDE("idiv");
    } else {
      LODGE_DIVIDE("div");
    }
#undef LODGE_DIVIDE
    storeFlags(cpu, f);
    if constexpr (sizeof(T) == 1) {
      writeReg<std::uint16_t>(cpu, accumulator, static_cast<std::uint16_t>(a));
    } else {
      writeReg<T>(cpu, accumulator, static_cast<T>(a));
      writeReg<T>(cpu, top, static_cast<T>(dx));
    }
    return Outcome::next;
  }
};
template <class T>
using DivideUnsigned = Divide<false, T>;
template <class T>
using DivideSigned = Divide<true, T>;

/// Two- and three-operand IMUL.
template <bool immediate, class T>
Outcome runImul(Cpu& cpu, const Decoded& d) {
  T b;
  if (!readRm<T>(cpu, d, b)) return Outcome::fault;
  T a = immediate ? static_cast<T>(d.insn.immediate) : readReg<T>(cpu, d.reg);
  std::uint32_t f = flagsToAx(cpu.state.rflags);
  asm(LODGE_LOAD_FLAGS "imul %[b], %[a]" LODGE_KEEP_FLAGS : [a] "+&r"(a), "+&a"(f) : [b] "r"(b) : "cc");
  storeFlags(cpu, f);
  writeReg<T>(cpu, d.reg, a);
  return Outcome::next;
}
template <bool immediate>
inline constexpr Handler kImul[4] = {nullptr, &runImul<immediate, std::uint16_t>, &runImul<immediate, std::uint32_t>,
                                     &runImul<immediate, std::uint64_t>};

template <class T>
Outcome runMulx(Cpu& cpu, const Decoded& d) {
  T b;
  if (!readRm<T>(cpu, d, b)) return Outcome::fault;
  auto product =
      static_cast<typename Wider<T>::U>(static_cast<typename Wider<T>::U>(static_cast<T>(cpu.state.gpr[x86::rdx])) * b);
  // With one register named twice, it gets the high half.
  writeReg<T>(cpu, d.vvvv, static_cast<T>(product));
  writeReg<T>(cpu, d.reg, static_cast<T>(product >> (8 * sizeof(T))));
  return Outcome::next;
}

}  // namespace

Handler multiplyHandler(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  switch (i.info->op) {
    case Op::mul:
      return kBySize<MultiplyUnsigned>[size];
    case Op::imul:
      return kBySize<MultiplySigned>[size];
    case Op::div:
      return kBySize<DivideUnsigned>[size];
    case Op::idiv:
      return kBySize<DivideSigned>[size];
    case Op::imul2:
      return kImul<false>[size];
    case Op::imul3:
      return kImul<true>[size];
    case Op::mulx:
      return i.operandSize == 8 ? &runMulx<std::uint64_t> : &runMulx<std::uint32_t>;
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
