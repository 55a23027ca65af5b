// SPDX-License-Identifier: Apache-2.0
// Linear addresses of memory operands, and the soft TLB probe that turns them into host operands (docs/translator.md,
// Memory).
#include <bit>

#include "engine/translate/rewriter.h"

namespace lodge::translate {

namespace {
using namespace x86;

constexpr std::uint32_t kBextrLow = 35 << 8 | 12;  // 35 bits from bit 12
constexpr std::uint32_t kBextrBoth = 36 << 8 | 12;
constexpr std::uint8_t kGsPrefix = 0x65;
constexpr std::uint32_t kPageBit = 0x1000;

std::int32_t segmentBase(std::uint8_t segment) {
  return static_cast<std::int32_t>(offsetof(CpuState, segment) + segment * sizeof(SegmentRegister) +
                                   offsetof(SegmentRegister, base));
}
bool hasBase(const Instruction& i) {
  return i.segment == fs || i.segment == gs;
}
}  // namespace

bool Rewriter::constantAddress(const Instruction& i, std::uint64_t& value) const {
  if (hasBase(i) || i.base != kNoRegister || i.index != kNoRegister) return false;
  value = static_cast<std::uint64_t>(i.displacement) + (i.ripRelative ? block_.nextRip(*current_) : 0);
  if (i.addressSize == 4) value = static_cast<std::uint32_t>(value);
  return true;
}

std::uint8_t Rewriter::address(const Instruction& i) {
  std::uint64_t constant = 0;
  if (constantAddress(i, constant)) {
    if (i.ripRelative && block_.isShared) {
      movLinear(hot_, host::address, block_.nextRip(*current_) + static_cast<std::uint64_t>(i.displacement));
      if (i.addressSize == 4) hot_.mov(4, host::address, host::address);
    } else {
      hot_.movImmediate(host::address, constant);
    }
    return host::address;
  }
  Mem m{.displacement = static_cast<std::int32_t>(i.displacement)};
  if (i.base != kNoRegister) {
    m.base = hostOf(i.base);
    if (isSpilled(i.base)) {
      m.base = host::address;
      hot_.load(8, m.base, slot(i.base));
    }
  }
  if (i.index != kNoRegister) {
    m.scale = i.scale;
    m.index = hostOf(i.index);
    if (isSpilled(i.index)) {
      m.index = i.index == i.base ? host::address : host::addend;
      if (i.index != i.base) hot_.load(8, m.index, slot(i.index));
    }
  }
  unsigned width = i.addressSize == 4 ? 4 : 8;
  if (!hasBase(i)) {
    // In 32-bit code registers have no upper halves.
    bool whole = width == 8 || !key().has(ModeKey::code64);
    bool plain = whole && m.index == host::none && m.displacement == 0 && m.base != host::none;
    bool clobbered = m.base == host::rax && !flagsDead();
    if (plain && !clobbered) return m.base;
    hot_.lea(width, host::address, m);
    return host::address;
  }
  return segmentAddress(i, m);
}

/// In FS or GS; `m` is the operand without the segment's base.
std::uint8_t Rewriter::segmentAddress(const Instruction& i, Mem m) {
  unsigned width = i.addressSize == 4 ? 4 : 8;
  bool far = static_cast<std::int64_t>(m.displacement) != i.displacement;  // FS:moffs
  if (far || i.ripRelative) {
    if (i.ripRelative) {
      movLinear(hot_, host::addend, block_.nextRip(*current_) + static_cast<std::uint64_t>(i.displacement));
    } else {
      hot_.movImmediate(host::addend, static_cast<std::uint64_t>(i.displacement));
    }
    m = Mem{.base = host::addend};
    if (width == 4) hot_.mov(4, host::addend, host::addend);
  } else if (width == 4 || (m.base != host::none && m.index != host::none)) {
    hot_.lea(width, host::addend, m);
    m = Mem{.base = host::addend};
  }
  // Now at most one register and a displacement; it may be r12 or r13.
  Mem base = atState(segmentBase(i.segment));
  std::uint8_t scratch = m.base == host::address ? host::addend : host::address;
  hot_.load(8, scratch, base);
  Mem sum{.base = scratch, .index = m.base, .displacement = m.displacement};
  if (m.index != host::none) {
    sum.index = m.index;
    sum.scale = m.scale;
  }
  hot_.lea(word(), host::address, sum);
  guardSegment(i);
  return host::address;
}

/// In 32-bit code, after host::address was computed with 32 bits: beyond all addresses, unless FS or GS is open data.
/// Clobbers r13.
void Rewriter::guardSegment(const Instruction& i) {
  if (!hasBase(i) || key().has(ModeKey::code64)) return;
  hot_.load(8, host::addend, atState(FRAME_SEGMENT_GUARD + (i.segment == gs ? 8 : 0)));
  hot_.lea(8, host::address, Mem{.base = host::address, .index = host::addend});
}

/// `entry` = soft TLB entry of the address in `a`; clobbers flags.
void Rewriter::lookUp(std::uint8_t entry, std::uint8_t a) {
  bool both = userTable() && !key().has(ModeKey::user);
  if (host_.bmi1) {
    hot_.movImmediate(entry, both ? kBextrBoth : kBextrLow);
    hot_.bextr(entry, a, entry);
  } else {
    hot_.mov(8, entry, a);
    hot_.shiftLeft(8, entry, both ? 16 : 17);
    hot_.shiftRight(8, entry, both ? 28 : 29);
  }
  if (userTable()) {
    hot_.load(8, entry, Mem{.index = entry, .scale = 8, .segmentPrefix = kGsPrefix});
  } else {
    hot_.load(8, entry, Mem{.base = host::state, .index = entry, .scale = 8, .displacement = layout::kernelTable});
  }
}

/// Out of line: fills the soft TLB and tries again.
void Rewriter::missPath(std::uint8_t entry, std::uint8_t a, bool write, std::uint64_t retry, RecordKind kind) {
  hot_.testImmediate8(entry, kTlbValid);
  hot_.patchTo(hot_.jcc(ccE), cold_.here());
  recordCold(kind, current_->offset);
  if (a != host::address) cold_.mov(8, host::address, a);
  cold_.callTo(write ? thunks_.missWrite : thunks_.missRead);
  cold_.jmpTo(retry);
}

/// What is aligned to its size does not cross: the shortest test, unless data is often misaligned here.
bool Rewriter::usesAlignment(std::uint32_t bytes) const {
  return bytes <= 8 && std::has_single_bit(bytes) && !block_.isMisaligned(current_->offset);
}

/// A quick test of whether `bytes` from the address in `a` on may cross the end of a page; the jump that is taken then.
/// Clobbers flags and r13.
std::uint32_t Rewriter::crossingTest(std::uint8_t a, std::uint32_t bytes) {
  if (usesAlignment(bytes)) {
    hot_.testImmediate8(a, static_cast<std::uint8_t>(bytes - 1));
    return hot_.jcc(ccNe);
  }
  // The last byte's offset in its page is small if the access crosses.
  hot_.lea(4, host::addend, Mem{.base = a, .displacement = static_cast<std::int32_t>(bytes - 1)});
  hot_.testImmediate32(host::addend, kPageBit - std::bit_ceil(bytes - 1));
  return hot_.jcc(ccE);
}

/// Out of line: back if there is no crossing after all.
void Rewriter::exactCrossingTest(std::uint8_t a, std::uint32_t bytes) {
  cold_.lea(8, host::addend, Mem{.base = a, .displacement = static_cast<std::int32_t>(bytes - 1)});
  cold_.arithmetic(8, 6, host::addend, a);
  cold_.testImmediate32(host::addend, kPageBit);
  if (!usesAlignment(bytes)) {
    cold_.jccTo(ccE, hot_.here());
    return;
  }
  constexpr unsigned kSub = 5;
  std::uint32_t crosses = cold_.jcc(ccNe);
  cold_.arithmeticImmediate(4, kSub, atState(FRAME_MISALIGNED), 1);
  cold_.jccTo(ccNe, hot_.here());
  cold_.callTo(thunks_.exitMisaligned);
  cold_.patchHere(crosses);
}

/// Out of line, with the record made: the interpreter takes the instruction if the access crosses.
void Rewriter::interpretIfCrossing(std::uint8_t a, std::uint32_t bytes) {
  if (!usesAlignment(bytes)) {
    exactCrossingTest(a, bytes);
    cold_.callTo(thunks_.exitStep);
    return;
  }
  // In a thunk, because nearly every access has this path.
  if (a != host::address) cold_.mov(8, host::address, a);
  cold_.callTo(thunks_.mayCross[std::countr_zero(bytes) - 1]);
  cold_.jmpTo(hot_.here());
}

Mem Rewriter::probe(std::uint8_t a, const Access& access) {
  bool keepFlags = !flagsDead();
  RecordKind kind = keepFlags ? RecordKind::flagsSaved : RecordKind::instruction;
  if (keepFlags) saveFlags();
  if (access.bytes > 1 && !access.aligned) {
    hot_.patchTo(crossingTest(a, access.bytes), cold_.here());
    recordCold(kind, current_->offset);
    interpretIfCrossing(a, access.bytes);
  }
  std::uint64_t retry = hot_.here();
  lookUp(host::addend, a);
  missPath(host::addend, a, access.write, retry, kind);
  if (keepFlags) restoreFlags();
  return Mem{.base = a, .index = host::addend, .displacement = -static_cast<std::int32_t>(kTlbValid)};
}

/// The address of a group's lowest byte in a register that stays as it is.
std::uint8_t Rewriter::leaderAddress(const GroupPlan::Leader& leader) {
  Mem m{.base = hostOf(leader.base), .scale = leader.scale, .displacement = leader.low};
  if (isSpilled(leader.base)) {
    m.base = host::address;
    hot_.load(8, m.base, slot(leader.base));
  }
  if (leader.index != kNoRegister) {
    m.index = hostOf(leader.index);
    if (isSpilled(leader.index)) {
      m.index = host::addend;
      hot_.load(8, m.index, slot(leader.index));
    }
  }
  bool clobbered = m.base == host::rax && !flagsDead();
  if (m.index == host::none && m.displacement == 0 && !clobbered) return m.base;
  hot_.lea(8, host::address, m);
  return host::address;
}

/// The probe of a group, before the current instruction; r14 is the addend from here on.
void Rewriter::groupProbe(const GroupPlan::Leader& leader) {
  bool keepFlags = !flagsDead();
  RecordKind kind = keepFlags ? RecordKind::flagsSaved : RecordKind::instruction;
  std::uint8_t a = leaderAddress(leader);
  if (keepFlags) saveFlags();
  hot_.patchTo(crossingTest(a, leader.span), cold_.here());
  recordCold(kind, current_->offset);
  exactCrossingTest(a, leader.span);
  if (keepFlags) {
    recordCold(RecordKind::committing, current_->offset);
    cold_.arithmeticImmediate(1, 0, host::rax, 0x7f);
    cold_.sahf();
    cold_.load(8, host::rax, atState(FRAME_SAVED_RAX));
  }
  cold_.keepTogether(1, 4);
  recordCold(RecordKind::instruction, current_->offset);
  std::uint32_t at = cold_.jmp();
  std::uint64_t stub = linkStub(current_->offset);
  cold_.patchTo(at, stub);
  addLink(cold_.start() + at, stub, current_->offset, true);

  std::uint64_t retry = hot_.here();
  lookUp(host::group, a);
  missPath(host::group, a, leader.write, retry, kind);
  if (keepFlags) restoreFlags();
}

Mem Rewriter::operand(const Instruction& i) {
  if (loop_) return loopOperand(i);
  if (groups_.operandMember[index_]) {
    if (i.index != kNoRegister) {
      std::uint8_t a = address(i);
      return Mem{.base = a, .index = host::group, .displacement = -static_cast<std::int32_t>(kTlbValid)};
    }
    std::uint8_t base = hostOf(i.base);
    if (isSpilled(i.base)) {
      base = host::address;
      hot_.load(8, base, slot(i.base));
    }
    return Mem{.base = base,
               .index = host::group,
               .displacement = static_cast<std::int32_t>(i.displacement - static_cast<std::int32_t>(kTlbValid))};
  }
  MemoryOperand m = memoryOperand(i);
  Access access{m.bytes, m.write, (i.info->attributes & attribute::alignedMemory) != 0};
  std::uint64_t constant = 0;
  if (constantAddress(i, constant) && (constant & kPageMask) + m.bytes <= kPageSize) access.aligned = true;
  std::uint8_t a = address(i);
  return probe(a, access);
}

Mem Rewriter::stackOperand(std::int32_t displacement, bool write) {
  if (groups_.stackMember[index_]) {
    return Mem{.base = host::guestRsp,
               .index = host::group,
               .displacement = displacement - static_cast<std::int32_t>(kTlbValid)};
  }
  std::uint8_t a = host::guestRsp;
  if (displacement != 0) {
    a = host::address;
    hot_.lea(word(), a, Mem{.base = host::guestRsp, .displacement = displacement});
  }
  return probe(a, {word(), write, false});
}

std::uint8_t Rewriter::spareBeside(Mem& m) {
  if (m.index == host::group) return host::addend;
  if (!groupActive()) return host::group;
  hot_.lea(8, host::address, m);
  m = Mem{.base = host::address};
  return host::addend;
}

}  // namespace lodge::translate
