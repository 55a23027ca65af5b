// SPDX-License-Identifier: Apache-2.0
// MOVS, CMPS, STOS, LODS, SCAS. With REP, as much as lies in one page of each operand is done by the host's own REP
// instruction on host pointers (with DF = 1, MOVS and STOS only); what is left, and everything unusual, goes element by
// element.
#include "engine/interpret/flags.h"
#include "engine/interpret/handlers.h"
#include "engine/interpret/string_registers.h"

namespace lodge::interpret {
namespace {

using x86::Op;

/// Where a run of elements lies in host memory.
struct Chunk {
  const std::byte* source;
  std::byte* target;
  std::uint64_t elements;
};

/// How many elements from `offset` on lie in one page.
template <class T>
std::uint64_t inPage(std::uint64_t linear) {
  return (kPageSize - (linear & kPageMask)) / sizeof(T);
}

/// Finds host memory for up to `limit` elements. False: go element by element. `Reads`: DS:rSI is read; `Es`: how
/// ES:rDI is used.
template <class T, bool usesSource, bool usesTarget, Access targetAccess>
bool findChunk(Cpu& cpu, const Decoded& d, std::uint64_t limit, Chunk& chunk) {
  StringRegisters r(cpu, d);
  std::uint64_t source = 0, target = 0;
  if constexpr (usesSource) {
    if (!quickLinear<Access::read>(cpu, d.code64, d.segment, r.si(), sizeof(T), source)) return false;
    limit = std::min(limit, inPage<T>(source));
  }
  if constexpr (usesTarget) {
    if (!quickLinear<targetAccess>(cpu, d.code64, x86::es, r.di(), sizeof(T), target)) return false;
    limit = std::min(limit, inPage<T>(target));
  }
  if (limit == 0) return false;
  unsigned bytes = static_cast<unsigned>(limit * sizeof(T));
  std::uint64_t unused;
  x86::Rights rights = x86::currentRights(cpu);
  if constexpr (usesSource) {
    // Again with the whole size: the segment's limit, and no wrap of the offset within it.
    if (!quickLinear<Access::read>(cpu, d.code64, d.segment, r.si(), bytes, unused) || r.wraps(r.si(), bytes))
      return false;
    chunk.source = x86::tlbReadable(cpu, source, bytes, rights);
    if (!chunk.source) return false;
  }
  if constexpr (usesTarget) {
    if (!quickLinear<targetAccess>(cpu, d.code64, x86::es, r.di(), bytes, unused) || r.wraps(r.di(), bytes))
      return false;
    chunk.target = targetAccess == Access::write ? x86::tlbWritable(cpu, target, bytes, rights)
                                                 : x86::tlbReadable(cpu, target, bytes, rights);
    if (!chunk.target) return false;
  }
  chunk.elements = limit;
  return true;
}

/// The same downwards: the chunk's pointers are those of the first element, which is the highest.
template <class T, bool usesSource>
bool findChunkBelow(Cpu& cpu, const Decoded& d, std::uint64_t limit, Chunk& chunk) {
  StringRegisters r(cpu, d);
  auto atLeast = [&](std::uint64_t offset, std::uint64_t linear) {
    if (!x86::withinPage(linear, sizeof(T))) return false;
    limit = std::min({limit, (linear & kPageMask) / sizeof(T) + 1, offset / sizeof(T) + 1});
    return !r.wraps(offset, sizeof(T));
  };
  std::uint64_t source = 0, target = 0;
  if constexpr (usesSource) {
    if (!quickLinear<Access::read>(cpu, d.code64, d.segment, r.si(), sizeof(T), source) || !atLeast(r.si(), source))
      return false;
  }
  if (!quickLinear<Access::write>(cpu, d.code64, x86::es, r.di(), sizeof(T), target) || !atLeast(r.di(), target))
    return false;
  std::uint64_t below = (limit - 1) * sizeof(T);
  auto bytes = static_cast<unsigned>(limit * sizeof(T));
  x86::Rights rights = x86::currentRights(cpu);
  if constexpr (usesSource) {
    if (!quickLinear<Access::read>(cpu, d.code64, d.segment, r.si() - below, bytes, source)) return false;
    const std::byte* low = x86::tlbReadable(cpu, source, bytes, rights);
    if (!low) return false;
    chunk.source = low + below;
  }
  if (!quickLinear<Access::write>(cpu, d.code64, x86::es, r.di() - below, bytes, target)) return false;
  std::byte* low = x86::tlbWritable(cpu, target, bytes, rights);
  if (!low) return false;
  chunk.target = low + below;
  chunk.elements = limit;
  return true;
}

// The host's instructions on host pointers; DF is clear.
template <class T>
void hostMovs(Chunk c) {
  if constexpr (sizeof(T) == 1)
    asm volatile("rep movsb" : "+S"(c.source), "+D"(c.target), "+c"(c.elements) : : "memory");
  if constexpr (sizeof(T) == 2)
    asm volatile("rep movsw" : "+S"(c.source), "+D"(c.target), "+c"(c.elements) : : "memory");
  if constexpr (sizeof(T) == 4)
    asm volatile("rep movsl" : "+S"(c.source), "+D"(c.target), "+c"(c.elements) : : "memory");
  if constexpr (sizeof(T) == 8)
    asm volatile("rep movsq" : "+S"(c.source), "+D"(c.target), "+c"(c.elements) : : "memory");
}
template <class T>
void hostStos(Chunk c, std::uint64_t value) {
  if constexpr (sizeof(T) == 1) asm volatile("rep stosb" : "+D"(c.target), "+c"(c.elements) : "a"(value) : "memory");
  if constexpr (sizeof(T) == 2) asm volatile("rep stosw" : "+D"(c.target), "+c"(c.elements) : "a"(value) : "memory");
  if constexpr (sizeof(T) == 4) asm volatile("rep stosl" : "+D"(c.target), "+c"(c.elements) : "a"(value) : "memory");
  if constexpr (sizeof(T) == 8) asm volatile("rep stosq" : "+D"(c.target), "+c"(c.elements) : "a"(value) : "memory");
}

// Downwards, with DF set meanwhile.
template <class T>
void hostMovsBelow(Chunk c) {
  if constexpr (sizeof(T) == 1)
    asm volatile("std; rep movsb; cld" : "+S"(c.source), "+D"(c.target), "+c"(c.elements) : : "memory", "cc");
  if constexpr (sizeof(T) == 2)
    asm volatile("std; rep movsw; cld" : "+S"(c.source), "+D"(c.target), "+c"(c.elements) : : "memory", "cc");
  if constexpr (sizeof(T) == 4)
    asm volatile("std; rep movsl; cld" : "+S"(c.source), "+D"(c.target), "+c"(c.elements) : : "memory", "cc");
  if constexpr (sizeof(T) == 8)
    asm volatile("std; rep movsq; cld" : "+S"(c.source), "+D"(c.target), "+c"(c.elements) : : "memory", "cc");
}

/// For those that have no way to do many elements downwards at once.
struct OneBelow {
  static bool chunkBelow(Cpu&, const Decoded&, std::uint64_t, std::uint64_t&) { return false; }
};

template <class T>
struct Movs {
  static bool chunkBelow(Cpu& cpu, const Decoded& d, std::uint64_t limit, std::uint64_t& done) {
    Chunk c{};
    if (!findChunkBelow<T, true>(cpu, d, limit, c)) return false;
    hostMovsBelow<T>(c);
    std::uint64_t bytes = c.elements * sizeof(T);
    x86::wroteToCpuView(cpu, c.target + sizeof(T) - bytes, static_cast<unsigned>(bytes));
    done = c.elements;
    StringRegisters(cpu, d).advance(true, true, -static_cast<std::int64_t>(bytes));
    return true;
  }
  static bool chunk(Cpu& cpu, const Decoded& d, std::uint64_t limit, std::uint64_t& done) {
    Chunk c{};
    if (!findChunk<T, true, true, Access::write>(cpu, d, limit, c)) return false;
    std::byte* target = c.target;
    hostMovs<T>(c);
    x86::wroteToCpuView(cpu, target, static_cast<unsigned>(c.elements * sizeof(T)));
    done = c.elements;
    StringRegisters(cpu, d).advance(true, true, static_cast<std::int64_t>(done * sizeof(T)));
    return true;
  }
  static bool one(Cpu& cpu, const Decoded& d, bool&) {
    StringRegisters r(cpu, d);
    T value;
    if (!readAt<T>(cpu, d.code64, d.segment, r.si(), value)) return false;
    if (!writeAt<T>(cpu, d.code64, x86::es, r.di(), value)) return false;
    r.advance(true, true, r.step(sizeof(T)));
    return true;
  }
};

template <class T>
struct Stos {
  static bool chunkBelow(Cpu& cpu, const Decoded& d, std::uint64_t limit, std::uint64_t& done) {
    Chunk c{};
    if (!findChunkBelow<T, false>(cpu, d, limit, c)) return false;
    std::uint64_t bytes = c.elements * sizeof(T);
    c.target -= bytes - sizeof(T);
    hostStos<T>(c, cpu.state.gpr[x86::rax]);
    x86::wroteToCpuView(cpu, c.target, static_cast<unsigned>(bytes));
    done = c.elements;
    StringRegisters(cpu, d).advance(false, true, -static_cast<std::int64_t>(bytes));
    return true;
  }
  static bool chunk(Cpu& cpu, const Decoded& d, std::uint64_t limit, std::uint64_t& done) {
    Chunk c{};
    if (!findChunk<T, false, true, Access::write>(cpu, d, limit, c)) return false;
    hostStos<T>(c, cpu.state.gpr[x86::rax]);
    x86::wroteToCpuView(cpu, c.target, static_cast<unsigned>(c.elements * sizeof(T)));
    done = c.elements;
    StringRegisters(cpu, d).advance(false, true, static_cast<std::int64_t>(done * sizeof(T)));
    return true;
  }
  static bool one(Cpu& cpu, const Decoded& d, bool&) {
    StringRegisters r(cpu, d);
    if (!writeAt<T>(cpu, d.code64, x86::es, r.di(), static_cast<T>(cpu.state.gpr[x86::rax]))) return false;
    r.advance(false, true, r.step(sizeof(T)));
    return true;
  }
};

template <class T>
struct Lods : OneBelow {
  static bool chunk(Cpu&, const Decoded&, std::uint64_t, std::uint64_t&) { return false; }
  static bool one(Cpu& cpu, const Decoded& d, bool&) {
    StringRegisters r(cpu, d);
    T value;
    if (!readAt<T>(cpu, d.code64, d.segment, r.si(), value)) return false;
    writeReg<T>(cpu, offsetof(CpuState, gpr), value);
    r.advance(true, false, r.step(sizeof(T)));
    return true;
  }
};

/// Comparisons end a repetition when ZF is no longer what the prefix wants.
inline bool ended(Cpu& cpu, const Decoded& d) {
  bool zero = (cpu.state.rflags & x86::flag::zf) != 0;
  return d.insn.repeat == 0xf3 ? !zero : d.insn.repeat == 0xf2 && zero;
}

template <class T>
struct Scas : OneBelow {
  /// Elements that do not decide are skipped here; the deciding one, and its flags, are left to one().
  static bool chunk(Cpu& cpu, const Decoded& d, std::uint64_t limit, std::uint64_t& done) {
    Chunk c{};
    if (limit < 2 || !findChunk<T, false, true, Access::read>(cpu, d, limit - 1, c)) return false;
    auto value = static_cast<T>(cpu.state.gpr[x86::rax]);
    bool wanted = d.insn.repeat == 0xf3;
    for (done = 0; done < c.elements; ++done) {
      if ((static_cast<T>(x86::loadHost(c.target + done * sizeof(T), sizeof(T))) == value) != wanted) break;
    }
    if (done == 0) return false;
    auto last = static_cast<T>(x86::loadHost(c.target + (done - 1) * sizeof(T), sizeof(T)));
    alu<Alu::cmp, T>(cpu, value, last);
    StringRegisters(cpu, d).advance(false, true, static_cast<std::int64_t>(done * sizeof(T)));
    return true;
  }
  static bool one(Cpu& cpu, const Decoded& d, bool& stop) {
    StringRegisters r(cpu, d);
    T value;
    if (!readAt<T>(cpu, d.code64, x86::es, r.di(), value)) return false;
    alu<Alu::cmp, T>(cpu, readReg<T>(cpu, offsetof(CpuState, gpr)), value);
    r.advance(false, true, r.step(sizeof(T)));
    stop = ended(cpu, d);
    return true;
  }
};

template <class T>
struct Cmps : OneBelow {
  static bool chunk(Cpu& cpu, const Decoded& d, std::uint64_t limit, std::uint64_t& done) {
    Chunk c{};
    if (limit < 2 || !findChunk<T, true, true, Access::read>(cpu, d, limit - 1, c)) return false;
    bool wanted = d.insn.repeat == 0xf3;
    for (done = 0; done < c.elements; ++done) {
      std::uint64_t a = x86::loadHost(c.source + done * sizeof(T), sizeof(T));
      if ((a == x86::loadHost(c.target + done * sizeof(T), sizeof(T))) != wanted) break;
    }
    if (done == 0) return false;
    auto a = static_cast<T>(x86::loadHost(c.source + (done - 1) * sizeof(T), sizeof(T)));
    auto b = static_cast<T>(x86::loadHost(c.target + (done - 1) * sizeof(T), sizeof(T)));
    alu<Alu::cmp, T>(cpu, a, b);
    StringRegisters(cpu, d).advance(true, true, static_cast<std::int64_t>(done * sizeof(T)));
    return true;
  }
  static bool one(Cpu& cpu, const Decoded& d, bool& stop) {
    StringRegisters r(cpu, d);
    T a, b;
    if (!readAt<T>(cpu, d.code64, d.segment, r.si(), a) || !readAt<T>(cpu, d.code64, x86::es, r.di(), b)) return false;
    alu<Alu::cmp, T>(cpu, a, b);
    r.advance(true, true, r.step(sizeof(T)));
    stop = ended(cpu, d);
    return true;
  }
};

/// Elements before the loop looks at events again.
constexpr std::uint64_t kRepeatBudget = 8192;

template <template <class> class F, class T>
Outcome runString(Cpu& cpu, const Decoded& d) {
  bool stop = false;
  if (d.insn.repeat == 0) return outcomeOf(F<T>::one(cpu, d, stop));
  CpuState& s = cpu.state;
  std::uint64_t budget = (s.rflags & x86::flag::tf) != 0 ? 1 : kRepeatBudget;
  bool forward = (s.rflags & x86::flag::df) == 0;
  for (;;) {
    StringRegisters r(cpu, d);
    std::uint64_t count = r.count();
    if (count == 0) return Outcome::next;
    if (budget == 0) return Outcome::again;
    std::uint64_t done = 1;
    std::uint64_t limit = count < budget ? count : budget;
    bool many = limit >= 2 && (forward ? F<T>::chunk(cpu, d, limit, done) : F<T>::chunkBelow(cpu, d, limit, done));
    if (!many) {
      done = 1;
      if (!F<T>::one(cpu, d, stop)) return Outcome::fault;
    }
    r.setCount(count - done);
    budget -= done;
    if (stop) return Outcome::next;
  }
}

template <template <class> class F>
inline constexpr Handler kString[4] = {&runString<F, std::uint8_t>, &runString<F, std::uint16_t>,
                                       &runString<F, std::uint32_t>, &runString<F, std::uint64_t>};

}  // namespace

Handler stringHandler(const Instruction& i) {
  unsigned size = sizeIndex(i.operandSize);
  switch (i.info->op) {
    case Op::movs:
      return kString<Movs>[size];
    case Op::stos:
      return kString<Stos>[size];
    case Op::lods:
      return kString<Lods>[size];
    case Op::scas:
      return kString<Scas>[size];
    case Op::cmps:
      return kString<Cmps>[size];
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
