// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/groups.h"

#include <algorithm>
#include <initializer_list>

#include "engine/translate/register_effects.h"

namespace lodge::translate {

namespace {
using namespace x86;

constexpr std::int64_t kMaxSpan = 512;
constexpr std::int64_t kWord = 8;
constexpr std::uint8_t kUnknown = 0xff;

/// A sum of two registers' values at the start of the tracking.
struct Pair {
  std::uint8_t base, index, scale;
  bool operator==(const Pair&) const = default;
};
constexpr unsigned kRegisters = 16, kPairs = 8, kOrigins = kRegisters + kPairs;

/// What a register holds, or where an access goes: an origin plus a constant.
struct Value {
  std::uint8_t origin;  ///< a register's value at the start of the tracking, a Pair (from kRegisters on), or kUnknown
  std::int64_t offset;
};

struct Access {
  bool present = false;
  Value value{};  ///< of the first byte's address
  std::uint16_t bytes = 0;
  bool write = false;
};

/// Follows register values through straight code. All accesses that it relates to each other must be executed in one go
/// from its start on: other code may enter the block at any instruction that is not inside a group.
class Tracker {
 public:
  Tracker() {
    for (std::uint8_t r = 0; r < 16; ++r) now_[r] = {r, 0};
  }
  Access operandAccess(const Instruction& i);
  Access stackAccess(const Instruction& i) const;
  void update(const Instruction& i);
  const Pair& pair(unsigned origin) const { return pairs_[origin - kRegisters]; }

 private:
  Value address(const Instruction& i);
  bool copies(const Instruction& i);
  std::array<Value, kRegisters> now_;
  std::array<Pair, kPairs> pairs_;
  unsigned pairCount_ = 0;
};

/// Moves that keep track of a value: returns whether `i` was one.
bool Tracker::copies(const Instruction& i) {
  if (i.operandSize != 8) return false;
  switch (i.info->op) {
    case Op::mov:
      if (i.memory || (i.info->form != Form::e_g && i.info->form != Form::g_e)) return false;
      if (i.info->form == Form::e_g) {
        now_[i.rm] = now_[i.reg];
      } else {
        now_[i.reg] = now_[i.rm];
      }
      return true;
    case Op::lea:
      if (i.addressSize != 8 || i.ripRelative || i.base == kNoRegister || i.index != kNoRegister) return false;
      now_[i.reg] = {now_[i.base].origin, now_[i.base].offset + i.displacement};
      return true;
    case Op::add:
    case Op::sub: {
      if (i.memory || i.info->form != Form::e_i) return false;
      auto by = static_cast<std::int64_t>(i.immediate);
      now_[i.rm].offset += i.info->op == Op::add ? by : -by;
      return true;
    }
    default:
      return false;
  }
}

void Tracker::update(const Instruction& i) {
  if (copies(i)) return;
  Value stackPointer = now_[rsp];
  Value frame = now_[rbp];
  std::uint16_t written = writtenRegisters(i);
  for (unsigned r = 0; r < 16; ++r) {
    if ((written >> r & 1) != 0) now_[r] = {kUnknown, 0};
  }
  switch (i.info->op) {
    case Op::push:
      now_[rsp] = {stackPointer.origin, stackPointer.offset - kWord};
      break;
    case Op::pop:
      if (i.memory || i.rm != rsp) now_[rsp] = {stackPointer.origin, stackPointer.offset + kWord};
      break;
    case Op::leave:
      now_[rsp] = {frame.origin, frame.offset + kWord};
      break;
    default:
      break;
  }
}

/// Of base and index registers, without the displacement.
Value Tracker::address(const Instruction& i) {
  Value base = now_[i.base];
  if (i.index == kNoRegister || base.origin == kUnknown) return base;
  Value index = now_[i.index];
  if (index.origin == kUnknown) return index;
  Pair sum{base.origin, index.origin, i.scale};
  std::int64_t offset = base.offset + index.offset * i.scale;
  for (unsigned n = 0; n < pairCount_; ++n) {
    if (pairs_[n] == sum) return {static_cast<std::uint8_t>(kRegisters + n), offset};
  }
  if (pairCount_ == kPairs) return {kUnknown, 0};
  pairs_[pairCount_] = sum;
  return {static_cast<std::uint8_t>(kRegisters + pairCount_++), offset};
}

Access Tracker::operandAccess(const Instruction& i) {
  if (!i.memory || i.base == kNoRegister || i.addressSize != 8) return {};
  if (i.segment == fs || i.segment == gs || i.info->op == Op::lea) return {};
  MemoryOperand m = memoryOperand(i);
  if (m.bytes == 0) return {};
  Value v = address(i);
  return {v.origin != kUnknown, {v.origin, v.offset + i.displacement}, m.bytes, m.write};
}

Access Tracker::stackAccess(const Instruction& i) const {
  Value top = now_[rsp];
  bool known = top.origin != kUnknown;
  switch (i.info->op) {
    case Op::push:
    case Op::call:
    case Op::call_indirect:
      return {known, {top.origin, top.offset - kWord}, kWord, true};
    case Op::pop:
      if (i.memory) return {};
      [[fallthrough]];
    case Op::ret:
      return {known, top, kWord, false};
    case Op::leave:
      return {now_[rbp].origin != kUnknown, now_[rbp], kWord, false};
    default:
      return {};
  }
}

/// The accesses that could share a probe at `start` because they are off one register's value there.
struct Candidate {
  unsigned members = 0, first = 0, last = 0;
  bool write = false;  ///< the first member is a store
  std::int64_t low = 0, high = 0;

  void add(unsigned n, const Access& a) {
    std::int64_t newLow = members == 0 ? a.value.offset : std::min(low, a.value.offset);
    std::int64_t newHigh = members == 0 ? a.value.offset + a.bytes : std::max(high, a.value.offset + a.bytes);
    if (newHigh - newLow > kMaxSpan || newLow < -0x40000000 || newHigh > 0x40000000) return;
    low = newLow;
    high = newHigh;
    if (members++ == 0) {
      first = n;
      write = a.write;
    }
    last = n;
  }
  bool contains(const Access& a, std::uint8_t origin) const {
    return a.present && a.value.origin == origin && a.value.offset >= low && a.value.offset + a.bytes <= high;
  }
};

class Planner {
 public:
  Planner(const Block& block, GroupPlan& plan) : block_(block), plan_(plan) {}
  void run();

 private:
  bool isPlannable(unsigned n) const;
  struct Candidates {
    std::array<Candidate, kOrigins> by{};
    Tracker tracker;
    /// Whether the group of `origin` is cut into by one of another origin that has more members.
    bool isBetterLeft(unsigned origin) const {
      for (unsigned o = 0; o < kOrigins; ++o) {
        if (o != origin && by[o].members > by[origin].members && by[o].first <= by[origin].last) return true;
      }
      return false;
    }
  };
  Candidates candidatesAt(unsigned start) const;
  bool hoist(unsigned n, std::uint8_t base, unsigned earliest, unsigned& at, std::uint8_t& holder) const;
  unsigned accept(unsigned at, std::uint8_t base);

  const Block& block_;
  GroupPlan& plan_;
};

/// Instructions that no group goes across use all scratch registers.
bool Planner::isPlannable(unsigned n) const {
  const GuestInstruction& g = block_.instructions[n];
  if ((g.treatment == Treatment::interpret || g.treatment == Treatment::system)) return false;
  const Instruction& i = g.decoded;
  bool general = i.encoding == Encoding::vex && (i.info->attributes & attribute::vvvvIsGpr) != 0;
  return !general || i.vexV < 12;
}

Planner::Candidates Planner::candidatesAt(unsigned start) const {
  Candidates found;
  Tracker& tracker = found.tracker;
  for (unsigned n = start; n < block_.count && isPlannable(n); ++n) {
    const GuestInstruction& g = block_.instructions[n];
    if (n != start && g.isLabel) break;
    for (const Access& a : {tracker.operandAccess(g.decoded), tracker.stackAccess(g.decoded)}) {
      if (a.present) found.by[a.value.origin].add(n, a);
    }
    tracker.update(g.decoded);
  }
  return found;
}

/// Looks for an earlier place for the probe of a group that begins at n, where flags are dead.
bool Planner::hoist(unsigned n, std::uint8_t base, unsigned earliest, unsigned& at, std::uint8_t& holder) const {
  for (unsigned p = n; p > earliest && !block_.instructions[p].isLabel && isPlannable(p - 1);) {
    --p;
    const GuestInstruction& g = block_.instructions[p];
    // A null pointer's test must not be overtaken by its dereference; the stack is always there.
    if (g.decoded.info->form == Form::j && base != rsp) return false;
    if (g.liveIn != 0) continue;
    Candidates found = candidatesAt(p);
    Tracker tracker;
    for (unsigned m = p; m < n; ++m) tracker.update(block_.instructions[m].decoded);
    const Instruction& i = block_.instructions[n].decoded;
    for (std::uint8_t r = 0; r < kRegisters; ++r) {
      const Candidate& c = found.by[r];
      if (c.members < 2) continue;
      if (!c.contains(tracker.operandAccess(i), r) && !c.contains(tracker.stackAccess(i), r)) continue;
      at = p;
      holder = r;
      return true;
    }
  }
  return false;
}

/// Makes the group whose probe comes before instruction `at`; returns the first instruction after it.
unsigned Planner::accept(unsigned at, std::uint8_t base) {
  Candidates found = candidatesAt(at);
  const Candidate& c = found.by[base];
  GroupPlan::Leader& leader = plan_.leader[at];
  leader = {.present = true,
            .write = c.write,
            .base = base,
            .low = static_cast<std::int32_t>(c.low),
            .span = static_cast<std::uint32_t>(c.high - c.low)};
  if (base >= kRegisters) {
    const Pair& sum = found.tracker.pair(base);
    leader.base = sum.base;
    leader.index = sum.index;
    leader.scale = sum.scale;
  }
  Tracker tracker;
  for (unsigned m = at; m <= c.last; ++m) {
    const Instruction& i = block_.instructions[m].decoded;
    plan_.active[m] = true;
    if (m != at) plan_.noEntry[m] = true;
    plan_.operandMember[m] = c.contains(tracker.operandAccess(i), base);
    plan_.stackMember[m] = c.contains(tracker.stackAccess(i), base);
    tracker.update(i);
  }
  return c.last + 1;
}

void Planner::run() {
  unsigned earliest = 0;
  for (unsigned n = 0; n < block_.count;) {
    if (!isPlannable(n)) {
      ++n;
      continue;
    }
    Candidates found = candidatesAt(n);
    unsigned best = kOrigins;
    for (unsigned o = 0; o < kOrigins; ++o) {
      const Candidate& c = found.by[o];
      if (c.members < 2 || c.first != n) continue;
      if (best == kOrigins || c.members > found.by[best].members) best = o;
    }
    if (best == kOrigins || found.isBetterLeft(best)) {
      ++n;
      continue;
    }
    unsigned at = n;
    auto base = static_cast<std::uint8_t>(best);
    if (base < kRegisters && block_.instructions[n].liveIn != 0) hoist(n, base, earliest, at, base);
    n = accept(at, base);
    earliest = n;
  }
}
}  // namespace

void planGroups(const Block& block, GroupPlan& plan) {
  plan = GroupPlan{};
  Planner(block, plan).run();
}

}  // namespace lodge::translate
