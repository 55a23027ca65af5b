// SPDX-License-Identifier: Apache-2.0
// Bit tests, scans and counts, BMI, ADX, CRC32.
#include "engine/interpret/flags.h"
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"

namespace lodge::interpret {
namespace {

using x86::Form;
using x86::Op;

/// With a register bit index and a memory operand the index reaches beyond the operand (SDM vol. 2, 3.1.1.9, "bit
/// strings").
template <BitOp op, class T>
Outcome runBitOp(Cpu& cpu, const Decoded& d) {
  constexpr bool writes = op != BitOp::bt;
  bool immediate = d.insn.info->form == Form::e_i;
  T bit = immediate ? static_cast<T>(d.insn.immediate) : readReg<T>(cpu, d.reg);
  if (!d.insn.memory) {
    T result = bitOp<op, T>(cpu, readReg<T>(cpu, d.rm), bit);
    if constexpr (writes) writeReg<T>(cpu, d.rm, result);
    return Outcome::next;
  }
  std::uint64_t offset = effectiveAddress(cpu, d);
  if (!immediate) {
    auto index = static_cast<std::int64_t>(static_cast<std::make_signed_t<T>>(bit));
    constexpr unsigned log = sizeof(T) == 8 ? 6 : sizeof(T) == 4 ? 5 : 4;
    offset =
        (offset + static_cast<std::uint64_t>((index >> log) * static_cast<std::int64_t>(sizeof(T)))) & d.addressMask;
  }
  if constexpr (writes) {
    return changeAt<T>(cpu, d, offset, [&](T a) { return bitOp<op, T>(cpu, a, bit); });
  } else {
    T a;
    if (!readAt<T>(cpu, d.code64, d.segment, offset, a)) return Outcome::fault;
    bitOp<op, T>(cpu, a, bit);
    return Outcome::next;
  }
}
template <BitOp op>
inline constexpr Handler kBitOp[4] = {nullptr, &runBitOp<op, std::uint16_t>, &runBitOp<op, std::uint32_t>,
                                      &runBitOp<op, std::uint64_t>};

enum class Scan : std::uint8_t { bsf, bsr, popcnt, lzcnt, tzcnt };

/// The host decides what a source of 0 leaves in the destination.
template <Scan op, class T>
Outcome runScan(Cpu& cpu, const Decoded& d) {
  T source;
  if (!readRm<T>(cpu, d, source)) return Outcome::fault;
  std::uint32_t f = flagsToAx(cpu.state.rflags);
  std::uint64_t whole = qword(cpu, d.reg);
#define LODGE_SCAN(name)                                         \
  do {                                                           \
    if constexpr (sizeof(T) == 2)                                \
      asm(LODGE_LOAD_FLAGS name " %w[b], %w[a]" LODGE_KEEP_FLAGS \
          : [a] "+&r"(whole), "+&a"(f)                           \
          : [b] "r"(source)                                      \
          : "cc");                                               \
    if constexpr (sizeof(T) == 4)                                \
      asm(LODGE_LOAD_FLAGS name " %k[b], %k[a]" LODGE_KEEP_FLAGS \
          : [a] "+&r"(whole), "+&a"(f)                           \
          : [b] "r"(source)                                      \
          : "cc");                                               \
    if constexpr (sizeof(T) == 8)                                \
      asm(LODGE_LOAD_FLAGS name " %q[b], %q[a]" LODGE_KEEP_FLAGS \
          : [a] "+&r"(whole), "+&a"(f)                           \
          : [b] "r"(source)                                      \
          : "cc");                                               \
  } while (false)
  if constexpr (op == Scan::bsf) LODGE_SCAN("bsf");
  if constexpr (op == Scan::bsr) LODGE_SCAN("bsr");
  if constexpr (op == Scan::popcnt) LODGE_SCAN("popcnt");
  if constexpr (op == Scan::lzcnt) LODGE_SCAN("lzcnt");
  if constexpr (op == Scan::tzcnt) LODGE_SCAN("tzcnt");
#undef LODGE_SCAN
  storeFlags(cpu, f);
  qword(cpu, d.reg) = whole;
  return Outcome::next;
}
template <Scan op>
inline constexpr Handler kScan[4] = {nullptr, &runScan<op, std::uint16_t>, &runScan<op, std::uint32_t>,
                                     &runScan<op, std::uint64_t>};

/// The host's own three-operand instruction on T; `a` is the first source (r/m, or vvvv for ANDN, PDEP, PEXT).
enum class Bmi : std::uint8_t { andn, bextr, bzhi, pdep, pext, sarx, shlx, shrx, blsr, blsmsk, blsi };

template <Bmi op, class T>
[[gnu::always_inline]] inline T bmi(Cpu& cpu, T a, T b) {
  std::uint32_t f = flagsToAx(cpu.state.rflags);
  T r = 0;
#define LODGE_BMI3(name)                                         \
  asm(LODGE_LOAD_FLAGS name " %[b], %[a], %[r]" LODGE_KEEP_FLAGS \
      : [r] "=&r"(r), "+&a"(f)                                   \
      : [a] "r"(a), [b] "r"(b)                                   \
      : "cc")
#define LODGE_BMI2(name) \
  asm(LODGE_LOAD_FLAGS name " %[a], %[r]" LODGE_KEEP_FLAGS : [r] "=&r"(r), "+&a"(f) : [a] "r"(a) : "cc")
  if constexpr (op == Bmi::andn) LODGE_BMI3("andn");
  if constexpr (op == Bmi::bextr) LODGE_BMI3("bextr");
  if constexpr (op == Bmi::bzhi) LODGE_BMI3("bzhi");
  if constexpr (op == Bmi::pdep) LODGE_BMI3("pdep");
  if constexpr (op == Bmi::pext) LODGE_BMI3("pext");
  if constexpr (op == Bmi::sarx) LODGE_BMI3("sarx");
  if constexpr (op == Bmi::shlx) LODGE_BMI3("shlx");
  if constexpr (op == Bmi::shrx) LODGE_BMI3("shrx");
  if constexpr (op == Bmi::blsr) LODGE_BMI2("blsr");
  if constexpr (op == Bmi::blsmsk) LODGE_BMI2("blsmsk");
  if constexpr (op == Bmi::blsi) LODGE_BMI2("blsi");
#undef LODGE_BMI3
#undef LODGE_BMI2
  storeFlags(cpu, f);
  return r;
}

template <Bmi op, class T>
Outcome runBmi(Cpu& cpu, const Decoded& d) {
  T e;
  if (!readRm<T>(cpu, d, e)) return Outcome::fault;
  if constexpr (op == Bmi::blsr || op == Bmi::blsmsk || op == Bmi::blsi) {
    writeReg<T>(cpu, d.vvvv, bmi<op, T>(cpu, e, 0));
  } else {
    T v = readReg<T>(cpu, d.vvvv);
    constexpr bool vvvvFirst = op == Bmi::andn || op == Bmi::pdep || op == Bmi::pext;
    writeReg<T>(cpu, d.reg, vvvvFirst ? bmi<op, T>(cpu, v, e) : bmi<op, T>(cpu, e, v));
  }
  return Outcome::next;
}
template <Bmi op>
Handler pickBmi(const Instruction& i) {
  return i.operandSize == 8 ? &runBmi<op, std::uint64_t> : &runBmi<op, std::uint32_t>;
}

template <class T>
Outcome runRorx(Cpu& cpu, const Decoded& d) {
  T e;
  if (!readRm<T>(cpu, d, e)) return Outcome::fault;
  unsigned count = static_cast<unsigned>(d.insn.immediate) & (8 * sizeof(T) - 1);
  writeReg<T>(cpu, d.reg, static_cast<T>((e >> count) | (e << ((8 * sizeof(T) - count) & (8 * sizeof(T) - 1)))));
  return Outcome::next;
}

/// ADCX and ADOX: addition with carry through one flag, the others untouched.
template <bool overflow, class T>
Outcome runAdx(Cpu& cpu, const Decoded& d) {
  T e;
  if (!readRm<T>(cpu, d, e)) return Outcome::fault;
  constexpr std::uint64_t bit = overflow ? x86::flag::of : x86::flag::cf;
  T a = readReg<T>(cpu, d.reg);
  T partial, sum;
  bool carry = __builtin_add_overflow(a, e, &partial);
  carry |= __builtin_add_overflow(partial, static_cast<T>((cpu.state.rflags & bit) != 0), &sum);
  cpu.state.rflags = (cpu.state.rflags & ~bit) | (carry ? bit : 0);
  writeReg<T>(cpu, d.reg, sum);
  return Outcome::next;
}

/// CRC32C by the host's instruction. The destination is 64 bits wide with REX.W, but the result has 32.
template <class T>
Outcome runCrc(Cpu& cpu, const Decoded& d) {
  T source;
  if (!readRm<T>(cpu, d, source)) return Outcome::fault;
  auto crc = readReg<std::uint32_t>(cpu, d.reg);
  std::uint64_t wide = crc;
  if constexpr (sizeof(T) == 8) {
    asm("crc32q %1, %0" : "+r"(wide) : "r"(source));
    crc = static_cast<std::uint32_t>(wide);
  } else {
    asm("crc32 %1, %0" : "+r"(crc) : "r"(source));
  }
  writeReg<std::uint32_t>(cpu, d.reg, crc);
  return Outcome::next;
}
Handler pickCrc(const Instruction& i) {
  if (i.info->memoryBytes == 1) return &runCrc<std::uint8_t>;
  return i.operandSize == 8   ? &runCrc<std::uint64_t>
         : i.operandSize == 2 ? &runCrc<std::uint16_t>
                              : &runCrc<std::uint32_t>;
}

Handler pickVexBit(const Instruction& i) {
  bool wide = i.operandSize == 8;
  switch (i.info->op) {
    case Op::andn:
      return pickBmi<Bmi::andn>(i);
    case Op::bextr:
      return pickBmi<Bmi::bextr>(i);
    case Op::bzhi:
      return pickBmi<Bmi::bzhi>(i);
    case Op::pdep:
      return pickBmi<Bmi::pdep>(i);
    case Op::pext:
      return pickBmi<Bmi::pext>(i);
    case Op::sarx:
      return pickBmi<Bmi::sarx>(i);
    case Op::shlx:
      return pickBmi<Bmi::shlx>(i);
    case Op::shrx:
      return pickBmi<Bmi::shrx>(i);
    case Op::blsr:
      return pickBmi<Bmi::blsr>(i);
    case Op::blsmsk:
      return pickBmi<Bmi::blsmsk>(i);
    case Op::blsi:
      return pickBmi<Bmi::blsi>(i);
    case Op::rorx:
      return wide ? &runRorx<std::uint64_t> : &runRorx<std::uint32_t>;
    case Op::adcx:
      return wide ? &runAdx<false, std::uint64_t> : &runAdx<false, std::uint32_t>;
    case Op::adox:
      return wide ? &runAdx<true, std::uint64_t> : &runAdx<true, std::uint32_t>;
    default:
      return nullptr;
  }
}

}  // namespace

Handler bitHandler(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  switch (i.info->op) {
    case Op::bt:
      return kBitOp<BitOp::bt>[size];
    case Op::bts:
      return kBitOp<BitOp::bts>[size];
    case Op::btr:
      return kBitOp<BitOp::btr>[size];
    case Op::btc:
      return kBitOp<BitOp::btc>[size];
    case Op::bsf:
      return kScan<Scan::bsf>[size];
    case Op::bsr:
      return kScan<Scan::bsr>[size];
    case Op::popcnt:
      return kScan<Scan::popcnt>[size];
    case Op::lzcnt:
      return kScan<Scan::lzcnt>[size];
    case Op::tzcnt:
      return kScan<Scan::tzcnt>[size];
    case Op::crc32:
      return pickCrc(i);
    default:
      return pickVexBit(i);
  }
}

}  // namespace lodge::interpret
