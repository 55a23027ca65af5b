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
    hot_.movImmediate(host::address, constant);
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
    bool plain = width == 8 && m.index == host::none && m.displacement == 0 && m.base != host::none;
    bool clobbered = m.base == host::rax && !flagsDead();
    if (plain && !clobbered) return m.base;
    hot_.lea(width, host::address, m);
    return host::address;
  }
  bool far = static_cast<std::int64_t>(m.displacement) != i.displacement;  // FS:moffs
  if (far || i.ripRelative) {
    hot_.movImmediate(host::addend,
                      static_cast<std::uint64_t>(i.displacement) + (i.ripRelative ? block_.nextRip(*current_) : 0));
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
  if (m.index == host::none) {
    hot_.lea(8, host::address, Mem{.base = scratch, .index = m.base, .displacement = m.displacement});
  } else {
    hot_.lea(8, host::address,
             Mem{.base = scratch, .index = m.index, .scale = m.scale, .displacement = m.displacement});
  }
  return host::address;
}

/// r13 = soft TLB entry of the address in `a`; clobbers flags.
void Rewriter::probeIndex(std::uint8_t a) {
  bool both = userTable() && !key().has(ModeKey::user);
  if (host_.bmi1) {
    hot_.movImmediate(host::addend, both ? kBextrBoth : kBextrLow);
    hot_.bextr(host::addend, a, host::addend);
  } else {
    hot_.mov(8, host::addend, a);
    hot_.shiftLeft(8, host::addend, both ? 16 : 17);
    hot_.shiftRight(8, host::addend, both ? 28 : 29);
  }
  if (userTable()) {
    hot_.load(8, host::addend, Mem{.index = host::addend, .scale = 8, .segmentPrefix = kGsPrefix});
  } else {
    hot_.load(8, host::addend,
              Mem{.base = host::state, .index = host::addend, .scale = 8, .displacement = layout::kernelTable});
  }
}

/// Leaves for the interpreter if the access crosses the end of a page. Clobbers flags and r14.
void Rewriter::probeCrossing(std::uint8_t a, const Access& access) {
  if (access.bytes <= 1 || access.aligned) return;
  auto last = static_cast<std::int32_t>(access.bytes - 1);
  std::uint32_t toCold = 0;
  if (access.bytes <= 8 && std::has_single_bit(access.bytes)) {
    // What is aligned to its size does not cross; the rest is looked at more closely.
    hot_.testImmediate8(a, static_cast<std::uint8_t>(last));
    toCold = hot_.jcc(ccNe);
  } else {
    // The last byte's offset in its page is small if the access crosses.
    hot_.lea(4, host::temp, Mem{.base = a, .displacement = last});
    hot_.testImmediate32(host::temp, kPageBit - std::bit_ceil(access.bytes - 1));
    toCold = hot_.jcc(ccE);
  }
  hot_.patchTo(toCold, cold_.here());
  RecordKind kind = flagsDead() ? RecordKind::instruction : RecordKind::flagsSaved;
  recordCold(kind, current_->offset);
  cold_.lea(8, host::temp, Mem{.base = a, .displacement = last});
  cold_.arithmetic(8, 6, host::temp, a);
  cold_.testImmediate32(host::temp, kPageBit);
  cold_.jccTo(ccE, hot_.here());
  cold_.callTo(thunks_.exitStep);
}

Mem Rewriter::probe(std::uint8_t a, const Access& access) {
  bool keepFlags = !flagsDead();
  if (keepFlags) saveFlags();
  std::uint64_t retry = hot_.here();
  probeIndex(a);
  hot_.testImmediate8(host::addend, kTlbValid);
  std::uint32_t toMiss = hot_.jcc(ccE);
  hot_.patchTo(toMiss, cold_.here());
  recordCold(keepFlags ? RecordKind::flagsSaved : RecordKind::instruction, current_->offset);
  if (a != host::address) cold_.mov(8, host::address, a);
  cold_.callTo(access.write ? thunks_.missWrite : thunks_.missRead);
  cold_.jmpTo(retry);
  probeCrossing(a, access);
  if (keepFlags) restoreFlags();
  return Mem{.base = a, .index = host::addend, .displacement = -static_cast<std::int32_t>(kTlbValid)};
}

Mem Rewriter::probeOperand(const Instruction& i) {
  MemoryOperand operand = memoryOperand(i);
  Access access{operand.bytes, operand.write, (i.info->attributes & attribute::alignedMemory) != 0};
  std::uint64_t constant = 0;
  if (constantAddress(i, constant) && (constant & kPageMask) + operand.bytes <= kPageSize) access.aligned = true;
  std::uint8_t a = address(i);
  return probe(a, access);
}

}  // namespace lodge::translate
