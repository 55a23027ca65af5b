// SPDX-License-Identifier: Apache-2.0
// Arithmetic on the guest's values by the host's own instructions, with the guest's flags: the host is the same
// architecture, so that results, flags and even "undefined" flags are right by definition.
//
// Flags travel between RFLAGS and the host's EFLAGS by LAHF/SAHF (SF ZF AF PF CF) and SETO, which cost a tenth of
// PUSHF/POPF.
#pragma once

#include <cstdint>

#include "x86/cpu.h"

namespace lodge::interpret {

/// AX as SAHF and `add $0x7f, %al` want it: AH the low flag byte, AL the overflow flag.
inline std::uint32_t flagsToAx(std::uint64_t rflags) {
  return static_cast<std::uint32_t>(((rflags & 0xd5) << 8) | ((rflags >> 11) & 1));
}
/// Stores AX after LAHF and `seto %al` into the arithmetic flags.
inline void storeFlags(x86::Cpu& cpu, std::uint32_t ax) {
  std::uint64_t fresh = ((ax >> 8) & 0xd5) | ((ax & 1) << 11);
  cpu.state.rflags = (cpu.state.rflags & ~x86::flag::arithmetic) | fresh;
}
inline void storeFlagsKeepingCarry(x86::Cpu& cpu, std::uint32_t ax) {
  constexpr std::uint64_t kept = x86::flag::cf;
  std::uint64_t fresh = ((ax >> 8) & 0xd4) | ((ax & 1) << 11);
  cpu.state.rflags = (cpu.state.rflags & ~(x86::flag::arithmetic & ~kept)) | fresh;
}

// Text around the instruction whose flags are wanted. %[f] is EAX.
#define LODGE_LOAD_FLAGS "addb $0x7f, %%al\n\tsahf\n\t"
#define LODGE_KEEP_FLAGS "\n\tlahf\n\tseto %%al"

enum class Alu : std::uint8_t { add, or_, adc, sbb, and_, sub, xor_, cmp, test };

template <Alu op, class T>
[[gnu::always_inline]] inline T alu(x86::Cpu& cpu, T a, T b) {
  std::uint32_t f;
  if constexpr (op == Alu::adc || op == Alu::sbb) {
    std::uint32_t carry = static_cast<std::uint32_t>(cpu.state.rflags);
    if constexpr (op == Alu::adc) {
      asm("btl $0, %[c]\n\tadc %[b], %[a]" LODGE_KEEP_FLAGS
          : [a] "+&r"(a), "=&a"(f)
          : [b] "r"(b), [c] "r"(carry)
          : "cc");
    } else {
      asm("btl $0, %[c]\n\tsbb %[b], %[a]" LODGE_KEEP_FLAGS
          : [a] "+&r"(a), "=&a"(f)
          : [b] "r"(b), [c] "r"(carry)
          : "cc");
    }
  } else if constexpr (op == Alu::add) {
    asm("add %[b], %[a]" LODGE_KEEP_FLAGS : [a] "+&r"(a), "=&a"(f) : [b] "r"(b) : "cc");
  } else if constexpr (op == Alu::sub) {
    asm("sub %[b], %[a]" LODGE_KEEP_FLAGS : [a] "+&r"(a), "=&a"(f) : [b] "r"(b) : "cc");
  } else if constexpr (op == Alu::or_) {
    asm("or %[b], %[a]" LODGE_KEEP_FLAGS : [a] "+&r"(a), "=&a"(f) : [b] "r"(b) : "cc");
  } else if constexpr (op == Alu::and_) {
    asm("and %[b], %[a]" LODGE_KEEP_FLAGS : [a] "+&r"(a), "=&a"(f) : [b] "r"(b) : "cc");
  } else if constexpr (op == Alu::xor_) {
    asm("xor %[b], %[a]" LODGE_KEEP_FLAGS : [a] "+&r"(a), "=&a"(f) : [b] "r"(b) : "cc");
  } else if constexpr (op == Alu::cmp) {
    asm("cmp %[b], %[a]" LODGE_KEEP_FLAGS : "=&a"(f) : [a] "r"(a), [b] "r"(b) : "cc");
  } else {
    asm("test %[b], %[a]" LODGE_KEEP_FLAGS : "=&a"(f) : [a] "r"(a), [b] "r"(b) : "cc");
  }
  storeFlags(cpu, f);
  return a;
}

enum class Unary : std::uint8_t { inc, dec, not_, neg };

template <Unary op, class T>
[[gnu::always_inline]] inline T unary(x86::Cpu& cpu, T a) {
  std::uint32_t f;
  if constexpr (op == Unary::not_) return static_cast<T>(~a);
  if constexpr (op == Unary::inc) {
    asm("add %[b], %[a]" LODGE_KEEP_FLAGS : [a] "+&r"(a), "=&a"(f) : [b] "r"(static_cast<T>(1)) : "cc");
    storeFlagsKeepingCarry(cpu, f);
  } else if constexpr (op == Unary::dec) {
    asm("sub %[b], %[a]" LODGE_KEEP_FLAGS : [a] "+&r"(a), "=&a"(f) : [b] "r"(static_cast<T>(1)) : "cc");
    storeFlagsKeepingCarry(cpu, f);
  } else {
    asm("neg %[a]" LODGE_KEEP_FLAGS : [a] "+&r"(a), "=&a"(f) : : "cc");
    storeFlags(cpu, f);
  }
  return a;
}

enum class Shift : std::uint8_t { rol, ror, rcl, rcr, shl, shr, sar };

/// With all the flags loaded: a count of 0 leaves them.
template <Shift op, class T>
[[gnu::always_inline]] inline T shift(x86::Cpu& cpu, T a, std::uint8_t count) {
  std::uint32_t f = flagsToAx(cpu.state.rflags);
#define LODGE_SHIFT(name) \
  asm(LODGE_LOAD_FLAGS name " %%cl, %[a]" LODGE_KEEP_FLAGS : [a] "+&r"(a), "+&a"(f) : "c"(count) : "cc")
  if constexpr (op == Shift::rol) LODGE_SHIFT("rol");
  if constexpr (op == Shift::ror) LODGE_SHIFT("ror");
  if constexpr (op == Shift::rcl) LODGE_SHIFT("rcl");
  if constexpr (op == Shift::rcr) LODGE_SHIFT("rcr");
  if constexpr (op == Shift::shl) LODGE_SHIFT("shl");
  if constexpr (op == Shift::shr) LODGE_SHIFT("shr");
  if constexpr (op == Shift::sar) LODGE_SHIFT("sar");
#undef LODGE_SHIFT
  storeFlags(cpu, f);
  return a;
}

/// SHLD and SHRD, T of 2, 4, 8 bytes.
template <bool right, class T>
[[gnu::always_inline]] inline T doubleShift(x86::Cpu& cpu, T a, T b, std::uint8_t count) {
  std::uint32_t f = flagsToAx(cpu.state.rflags);
  if constexpr (right) {
    asm(LODGE_LOAD_FLAGS "shrd %%cl, %[b], %[a]" LODGE_KEEP_FLAGS
        : [a] "+&r"(a), "+&a"(f)
        : [b] "r"(b), "c"(count)
        : "cc");
  } else {
    asm(LODGE_LOAD_FLAGS "shld %%cl, %[b], %[a]" LODGE_KEEP_FLAGS
        : [a] "+&r"(a), "+&a"(f)
        : [b] "r"(b), "c"(count)
        : "cc");
  }
  storeFlags(cpu, f);
  return a;
}

enum class BitOp : std::uint8_t { bt, bts, btr, btc };

/// `bit` is taken modulo the operand's bits.
template <BitOp op, class T>
[[gnu::always_inline]] inline T bitOp(x86::Cpu& cpu, T a, T bit) {
  std::uint32_t f = flagsToAx(cpu.state.rflags);
#define LODGE_BIT(name) \
  asm(LODGE_LOAD_FLAGS name " %[b], %[a]" LODGE_KEEP_FLAGS : [a] "+&r"(a), "+&a"(f) : [b] "r"(bit) : "cc")
  if constexpr (op == BitOp::bt) LODGE_BIT("bt");
  if constexpr (op == BitOp::bts) LODGE_BIT("bts");
  if constexpr (op == BitOp::btr) LODGE_BIT("btr");
  if constexpr (op == BitOp::btc) LODGE_BIT("btc");
#undef LODGE_BIT
  storeFlags(cpu, f);
  return a;
}

}  // namespace lodge::interpret
