// SPDX-License-Identifier: Apache-2.0
// The interpreter's loop: fetch through a cache of decoded instructions, execute, deliver faults.
//
// An entry of the cache is found by the host address of the instruction's bytes and is good only if the bytes are still
// the same: so stores to code need no bookkeeping, whoever makes them.
#include "base/bytes.h"
#include "engine/interpret/handlers.h"
#include "engine/interpret/interpreter.h"
#include "engine/interpret/operands.h"

namespace lodge::interpret {

namespace {

using x86::CodeSize;
using x86::DecodeStatus;
using x86::kMaxInstructionLength;

ModeKey modeOf(const Cpu& cpu) {
  if (cpu.mode64()) return ModeKey::code64;
  bool big = cpu.state.segment[x86::cs].big();
  if (!cpu.protectedMode() || cpu.virtual8086()) return big ? ModeKey::real32 : ModeKey::real16;
  return big ? ModeKey::protected32 : ModeKey::protected16;
}
CodeSize codeSizeOf(ModeKey mode) {
  if (mode == ModeKey::code64) return CodeSize::bits64;
  return mode == ModeKey::real32 || mode == ModeKey::protected32 ? CodeSize::bits32 : CodeSize::bits16;
}

/// What the loop keeps in registers between instructions that cannot change it.
struct Fetch {
  ModeKey mode;
  bool code64;
  std::uint64_t csBase;  ///< 0 in 64-bit mode
  std::uint64_t ripMask, limit;
  std::uint64_t page;     ///< linear address of the current code page; all ones: none
  const std::byte* host;  ///< where it is
};

Fetch fetchState(const Cpu& cpu) {
  const x86::SegmentRegister& cs = cpu.state.segment[x86::cs];
  Fetch f{};
  f.mode = modeOf(cpu);
  f.code64 = f.mode == ModeKey::code64;
  f.csBase = f.code64 ? 0 : cs.base;
  f.ripMask = f.code64 ? ~std::uint64_t{0} : 0xffffffff;
  f.limit = f.code64 ? ~std::uint64_t{0} : cs.limit;
  f.page = ~std::uint64_t{0};
  return f;
}

/// Raises what fetching the byte at RIP + `count` raises. False if it can be had now.
bool fetchFault(Cpu& cpu, unsigned count) {
  std::uint64_t linear, rip = cpu.state.rip + count;
  if (!x86::linearAddress(cpu, x86::cs, rip, 1, Access::execute, linear)) return true;
  return !x86::probeLinear(cpu, linear, 1, Access::execute);
}

constexpr std::uint64_t byteMask(unsigned count) {
  return count >= 8 ? ~std::uint64_t{0} : (std::uint64_t{1} << (8 * count)) - 1;
}

[[gnu::always_inline]] inline bool sameBytes(const Decoded& d, const std::byte* host) {
  std::uint64_t low = loadLe<std::uint64_t>(host);
  if (d.length <= 8) [[likely]]
    return ((low ^ d.bytes[0]) << (64 - 8 * d.length)) == 0;
  return low == d.bytes[0] && ((loadLe<std::uint64_t>(host + 8) ^ d.bytes[1]) << (128 - 8 * d.length)) == 0;
}

void setBytes(Decoded& d, const std::byte* host) {
  d.bytes[0] = loadLe<std::uint64_t>(host) & byteMask(d.length);
  d.bytes[1] = d.length > 8 ? loadLe<std::uint64_t>(host + 8) & byteMask(d.length - 8u) : 0;
}

/// Slow fetch: page ends, page faults, limits. Null: a fault is pending.
const Decoded* decodeUncached(Cpu& cpu, Context& c, ModeKey mode) {
  ++c.statistics[kSlowSteps];
  for (unsigned attempt = 0; attempt < 4; ++attempt) {
    // Two words of which the last byte stays clear.
    alignas(8) std::uint8_t copy[16] = {};
    auto& bytes = *reinterpret_cast<std::uint8_t(*)[15]>(copy);
    unsigned available = x86::fetchInstruction(cpu, bytes);
    if (available == 0) return nullptr;
    std::uint64_t key = cpu.state.rip | static_cast<std::uint64_t>(mode) << 60;
    Decoded& edge = c.edges[cpu.state.rip >> 12 & (Context::kEdges - 1)];
    auto* host = reinterpret_cast<const std::byte*>(copy);
    if (available == kMaxInstructionLength && edge.key == key && sameBytes(edge, host)) return &edge;
    Instruction insn;
    switch (x86::decode(bytes, available, codeSizeOf(mode), insn)) {
      case DecodeStatus::ok:
        if (available != kMaxInstructionLength) {
          prepare(cpu, insn, c.scratch);
          return &c.scratch;
        }
        prepare(cpu, insn, edge);
        setBytes(edge, host);
        edge.key = key;
        return &edge;
      case DecodeStatus::invalid:
        x86::raiseUd(cpu);
        return nullptr;
      case DecodeStatus::tooLong:
        x86::raiseGp(cpu, 0);
        return nullptr;
      case DecodeStatus::needMore:  // the next page cannot be had, unless somebody has just mapped it
        if (fetchFault(cpu, available)) return nullptr;
        break;
    }
  }
  x86::raiseGp(cpu, 0);
  return nullptr;
}

/// Offsets in a page from which 16 bytes can be read.
constexpr std::uint64_t kLastCached = kPageSize - 16;

const Decoded* fillEntry(Cpu& cpu, Context& c, const Fetch& f, const std::byte* host, std::uint64_t key,
                         Decoded& entry) {
  ++c.statistics[kDecodes];
  // A copy first: the guest may change the bytes while they are decoded.
  std::uint64_t copy[2] = {loadLe<std::uint64_t>(host), loadLe<std::uint64_t>(host + 8)};
  Instruction insn;
  DecodeStatus status =
      x86::decode(reinterpret_cast<const std::uint8_t*>(copy), kMaxInstructionLength, codeSizeOf(f.mode), insn);
  if (status != DecodeStatus::ok) return decodeUncached(cpu, c, f.mode);
  prepare(cpu, insn, entry);
  setBytes(entry, reinterpret_cast<const std::byte*>(copy));
  entry.key = key;
  return &entry;
}

/// Moves to the page of `linear`. False: fetch it slowly.
bool enterPage(Cpu& cpu, Fetch& f, std::uint64_t linear) {
  const std::byte* p = x86::tlbFetchable(cpu, linear, 1);
  if (!p) return false;
  f.page = linear & ~kPageMask;
  f.host = p - (linear & kPageMask);
  return true;
}

/// The instruction at RIP. Null: a fault is pending.
[[gnu::always_inline]] inline const Decoded* fetch(Cpu& cpu, Context& c, Fetch& f) {
  std::uint64_t rip = cpu.state.rip;
  std::uint64_t linear = (f.csBase + rip) & f.ripMask;
  if ((linear & ~kPageMask) != f.page && !enterPage(cpu, f, linear)) [[unlikely]]
    return decodeUncached(cpu, c, f.mode);
  std::uint64_t offset = linear & kPageMask;
  if (offset > kLastCached || rip + kMaxInstructionLength > f.limit) [[unlikely]]
    return decodeUncached(cpu, c, f.mode);
  const std::byte* host = f.host + offset;
  std::uint64_t address = reinterpret_cast<std::uint64_t>(host);
  std::uint64_t key = address | static_cast<std::uint64_t>(f.mode) << 60;
  Decoded& entry = c.cache[(address ^ (address >> 12) * 0x9e5) & c.cacheMask];
  if (entry.key == key && sameBytes(entry, host)) [[likely]]
    return &entry;
  return fillEntry(cpu, c, f, host, key, entry);
}

/// Executes one fetched instruction. True: it completed (and RIP is the next one's); false: a fault was delivered, or
/// it is a REP instruction that goes on.
[[gnu::always_inline]] inline Outcome execute(Cpu& cpu, const Decoded& d, std::uint64_t ripMask) {
  Outcome outcome = d.handler(cpu, d);
  if (outcome == Outcome::next) [[likely]]
    cpu.state.rip = (cpu.state.rip + d.length) & ripMask;
  return outcome;
}

void deliver(Cpu& cpu, Context& c) {
  ++c.statistics[kFaults];
  x86::deliverException(cpu);
}

/// INT n, INT3, INTO and INT1 that are taken clear TF, and are not followed by a single-step trap (SDM vol. 3, 17.3.2).
bool dropsSingleStep(const Decoded& d, Outcome outcome) {
  using x86::Op;
  Op op = d.insn.info->op;
  return outcome != Outcome::next && (op == Op::int_ || op == Op::int3 || op == Op::into || op == Op::int1);
}

/// One instruction between the hooks of x86/system.h.
void hookedStep(Cpu& cpu, Context& c) {
  std::uint64_t flags = cpu.state.rflags;
  std::uint8_t shadow = cpu.state.interruptShadow;
  if (!x86::beforeInstruction(cpu)) return deliver(cpu, c);
  Fetch f = fetchState(cpu);
  const Decoded* d = fetch(cpu, c, f);
  Outcome outcome = d ? execute(cpu, *d, f.ripMask) : Outcome::fault;
  if (outcome == Outcome::fault) return deliver(cpu, c);
  // Single-stepping stops after each iteration of a REP string, which the handlers then do one at a time.
  bool iteration = outcome == Outcome::again && (flags & x86::flag::tf) != 0;
  if (dropsSingleStep(*d, outcome)) flags &= ~x86::flag::tf;
  if (outcome != Outcome::again || iteration) x86::afterInstruction(cpu, flags, shadow);
}

/// What an instruction may change that a caller of run() must know of.
struct Modes {
  std::uint64_t cr0, cr3, cr4, efer;
  ModeKey mode;
  bool operator==(const Modes&) const = default;
};
Modes modes(const Cpu& cpu) {
  return {cpu.state.cr0, cpu.state.cr3, cpu.state.cr4, cpu.state.efer, modeOf(cpu)};
}

bool mayGoOn(const Cpu& cpu) {
  return cpu.events.load(std::memory_order_relaxed) == 0 && cpu.state.activity == x86::Activity::running;
}

/// Instructions up to the next one that may change what Fetch holds. Returns how many.
std::uint64_t runPlain(Cpu& cpu, Context& c, std::uint64_t limit) {
  Fetch f = fetchState(cpu);
  std::uint64_t count = 0;
  while (count < limit) {
    const Decoded* d = fetch(cpu, c, f);
    if (!d) [[unlikely]] {
      deliver(cpu, c);
      return count + 1;
    }
    Outcome outcome = execute(cpu, *d, f.ripMask);
    ++count;
    if (outcome == Outcome::fault) [[unlikely]] {
      deliver(cpu, c);
      return count;
    }
    if (d->system || cpu.events.load(std::memory_order_relaxed) != 0) return count;
  }
  return count;
}

}  // namespace

bool step(Cpu& cpu) {
  Context& c = contextOf(cpu);
  if (x86::instructionHooksNeeded(cpu)) {
    hookedStep(cpu, c);
  } else {
    Fetch f = fetchState(cpu);
    const Decoded* d = fetch(cpu, c, f);
    if (!d || execute(cpu, *d, f.ripMask) == Outcome::fault) deliver(cpu, c);
  }
  ++cpu.instructionsInterpreted;
  return cpu.state.activity == x86::Activity::running;
}

std::uint64_t run(Cpu& cpu, std::uint64_t limit) {
  Context& c = contextOf(cpu);
  Modes before = modes(cpu);
  std::uint64_t count = 0;
  while (count < limit && mayGoOn(cpu)) {
    if (x86::instructionHooksNeeded(cpu)) {
      hookedStep(cpu, c);
      ++count;
    } else {
      count += runPlain(cpu, c, limit - count);
    }
    if (!(modes(cpu) == before)) break;
  }
  cpu.instructionsInterpreted += count;
  return count;
}

}  // namespace lodge::interpret
