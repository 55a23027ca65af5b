// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/groups.h"

#include <algorithm>
#include <initializer_list>

#include "engine/translate/register_tracker.h"

namespace lodge::translate {

namespace {
using namespace x86;

constexpr std::int64_t kMaxSpan = 512;

/// The accesses that could share a probe at `start` because they are off one register's value there.
struct Candidate {
  unsigned members = 0, first = 0, last = 0;
  bool write = false;  ///< the first member is a store
  std::int64_t low = 0, high = 0;

  void add(unsigned n, const TrackedAccess& a) {
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
  bool contains(const TrackedAccess& a, std::uint8_t origin) const {
    return a.present && a.value.origin == origin && a.value.offset >= low && a.value.offset + a.bytes <= high;
  }
};

class Planner {
 public:
  Planner(const Block& block, GroupPlan& plan) : block_(block), plan_(plan) {}
  void run();

 private:
  bool isPlannable(unsigned n) const;
  bool accesses(const Instruction& i) const;
  unsigned word() const { return block_.key.wordBytes(); }
  struct Candidates {
    std::array<Candidate, RegisterTracker::kOrigins> by{};
    RegisterTracker tracker;
    explicit Candidates(unsigned wordBytes) : tracker(wordBytes) {}
    /// Whether the group of `origin` is cut into by one of another origin that has more members.
    bool isBetterLeft(unsigned origin) const {
      for (unsigned o = 0; o < RegisterTracker::kOrigins; ++o) {
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
  Candidates found(word());
  RegisterTracker& tracker = found.tracker;
  for (unsigned n = start; n < block_.count && isPlannable(n); ++n) {
    const GuestInstruction& g = block_.instructions[n];
    if (n != start && g.isLabel) break;
    for (const TrackedAccess& a : {tracker.operandAccess(g.decoded), tracker.stackAccess(g.decoded)}) {
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
    RegisterTracker tracker(word());
    for (unsigned m = p; m < n; ++m) tracker.update(block_.instructions[m].decoded);
    const Instruction& i = block_.instructions[n].decoded;
    for (std::uint8_t r = 0; r < RegisterTracker::kRegisters; ++r) {
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
  if (base >= RegisterTracker::kRegisters) {
    const RegisterPair& sum = found.tracker.pair(base);
    leader.base = sum.base;
    leader.index = sum.index;
    leader.scale = sum.scale;
  }
  RegisterTracker tracker(word());
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

/// Whether a group can begin with it.
bool Planner::accesses(const Instruction& i) const {
  RegisterTracker fresh(word());
  return fresh.operandAccess(i).present || fresh.stackAccess(i).present;
}

void Planner::run() {
  unsigned earliest = 0;
  for (unsigned n = 0; n < block_.count;) {
    if (!isPlannable(n) || !accesses(block_.instructions[n].decoded)) {
      ++n;
      continue;
    }
    Candidates found = candidatesAt(n);
    unsigned best = RegisterTracker::kOrigins;
    for (unsigned o = 0; o < RegisterTracker::kOrigins; ++o) {
      const Candidate& c = found.by[o];
      if (c.members < 2 || c.first != n) continue;
      if (best == RegisterTracker::kOrigins || c.members > found.by[best].members) best = o;
    }
    if (best == RegisterTracker::kOrigins || found.isBetterLeft(best)) {
      ++n;
      continue;
    }
    unsigned at = n;
    auto base = static_cast<std::uint8_t>(best);
    if (base < RegisterTracker::kRegisters && block_.instructions[n].liveIn != 0) hoist(n, base, earliest, at, base);
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
