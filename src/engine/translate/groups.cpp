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
  Planner(const Block& block, GroupPlan& plan);
  void run();

 private:
  bool mayPlan(const GuestInstruction& g) const;
  bool isPlannable(unsigned n) const { return plannable_[n]; }
  unsigned word() const { return block_.key.wordBytes(); }
  struct Candidates {
    std::array<Candidate, RegisterTracker::kOrigins> by;  // those in `used`
    std::uint32_t used = 0;                               ///< a bit an origin
    RegisterTracker tracker;
    explicit Candidates(unsigned wordBytes) : tracker(wordBytes) {}
    void add(unsigned n, const TrackedAccess& a) {
      if (!a.present) return;
      std::uint32_t bit = 1u << a.value.origin;
      if ((used & bit) == 0) by[a.value.origin] = {};
      used |= bit;
      by[a.value.origin].add(n, a);
    }
    /// Calls look(origin, candidate) until it is true.
    template <class Look>
    bool any(Look look) const {
      for (std::uint32_t left = used; left != 0; left &= left - 1) {
        auto origin = static_cast<unsigned>(__builtin_ctz(left));
        if (look(origin, by[origin])) return true;
      }
      return false;
    }
    /// Whether the group of `origin` is cut into by one of another origin that has more members.
    bool isBetterLeft(unsigned origin) const {
      return any([&](unsigned o, const Candidate& c) {
        return o != origin && c.members > by[origin].members && c.first <= by[origin].last;
      });
    }
  };
  Candidates candidatesAt(unsigned start) const;
  bool hoist(unsigned n, std::uint8_t base, unsigned earliest, unsigned& at, std::uint8_t& holder) const;
  unsigned accept(unsigned at, std::uint8_t base);

  const Block& block_;
  GroupPlan& plan_;
  std::array<bool, Block::kMaxInstructions> plannable_;
  std::array<bool, Block::kMaxInstructions> mayLead_;  ///< it accesses memory, and so does what it goes on with
};

Planner::Planner(const Block& block, GroupPlan& plan) : block_(block), plan_(plan) {
  const RegisterTracker fresh(word());
  unsigned accesses = 0;  // from here on, as far as a group could reach
  for (unsigned n = block.count; n-- > 0;) {
    const GuestInstruction& g = block.instructions[n];
    plannable_[n] = mayPlan(g);
    if (!plannable_[n]) accesses = 0;
    unsigned own = plannable_[n] ? unsigned{fresh.mayTrack(g.decoded)} + fresh.stackAccess(g.decoded).present : 0;
    accesses += own;
    mayLead_[n] = own != 0 && accesses > 1;
    if (g.isLabel) accesses = 0;
  }
}

/// Instructions that no group goes across use all scratch registers.
bool Planner::mayPlan(const GuestInstruction& g) const {
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
    found.add(n, tracker.operandAccess(g.decoded));
    found.add(n, tracker.stackAccess(g.decoded));
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
    TrackedAccess operand = tracker.operandAccess(i), stack = tracker.stackAccess(i);
    auto holds = [&](unsigned origin, const Candidate& c) {
      auto r = static_cast<std::uint8_t>(origin);
      if (origin >= RegisterTracker::kRegisters || c.members < 2) return false;
      if (!c.contains(operand, r) && !c.contains(stack, r)) return false;
      holder = r;
      return true;
    };
    if (found.any(holds)) {
      at = p;
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

void Planner::run() {
  unsigned earliest = 0;
  for (unsigned n = 0; n < block_.count;) {
    if (!mayLead_[n]) {
      ++n;
      continue;
    }
    Candidates found = candidatesAt(n);
    unsigned best = RegisterTracker::kOrigins;
    found.any([&](unsigned o, const Candidate& c) {
      if (c.members < 2 || c.first != n) return false;
      if (best == RegisterTracker::kOrigins || c.members > found.by[best].members) best = o;
      return false;
    });
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
