// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/loops.h"

#include <algorithm>

#include "engine/translate/register_tracker.h"

namespace lodge::translate {

namespace {
using namespace x86;
using namespace x86::attribute;

// A loop that leaves its page after a few iterations gains nothing.
constexpr std::int64_t kMaxSpan = 1024, kMaxStride = 256;

bool isSpilled(std::uint8_t r) {
  return r >= 12 && r <= 15;
}

/// All scratch registers are taken: the loop must not need guest registers that live in memory.
bool namesSpilled(const Instruction& i) {
  std::uint32_t a = i.info->attributes;
  if (i.base != kNoRegister && isSpilled(i.base)) return true;
  if (i.index != kNoRegister && isSpilled(i.index)) return true;
  if (i.encoding == Encoding::vex && (a & vvvvIsGpr) != 0 && isSpilled(i.vexV)) return true;
  if (!i.hasModrm) return isSpilled(i.rm);
  if ((a & regIsGpr) != 0 && isSpilled(i.reg)) return true;
  return (a & rmIsGpr) != 0 && !i.memory && isSpilled(i.rm);
}

bool namesHighByte(const Instruction& i) {
  return (i.info->attributes & byteForm) != 0 && i.rex == 0 && i.memory && i.reg >= 4 && i.reg < 8;
}

bool isJcc(const GuestInstruction& g) {
  return g.decoded.info->op == Op::jcc && g.treatment == Treatment::special;
}

/// Whether it may stand in a loop without probes.
bool isPlain(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  if (g.treatment == Treatment::interpret || g.treatment == Treatment::system || g.endsBlock) return false;
  if (i.lock || namesSpilled(i) || namesHighByte(i)) return false;
  switch (i.info->op) {
    case Op::lea:
      return i.operandSize >= 4;
    case Op::nop:
    case Op::prefetch:
      return true;
    case Op::mov:
      return i.info->form != Form::a_o && i.info->form != Form::o_a;
    case Op::xchg:
      return !i.memory;
    case Op::push:
    case Op::pop:
    case Op::leave:
    case Op::pause:
    case Op::lfence:
    case Op::mfence:
    case Op::sfence:
      return false;
    default:
      break;
  }
  return i.info->cls == OpClass::integer || i.info->cls == OpClass::native;
}

bool touchesMemory(const Instruction& i) {
  return i.memory && i.info->op != Op::lea && i.info->op != Op::nop && i.info->op != Op::prefetch;
}

class LoopFinder {
 public:
  LoopFinder(Block& block, LoopPlan& plan) : block_(block), plan_(plan), tracker_(block.key.wordBytes()) {}
  void at(unsigned tail);

 private:
  struct Found {
    std::uint8_t origin;
    std::int64_t low, high;
  };
  bool operandFits(unsigned n, const LoopPlan::Stream& stream) const;
  bool isIntact(std::uint8_t r) const { return tracker_.valueOf(r).origin == r && tracker_.valueOf(r).offset == 0; }
  bool collect(unsigned head, unsigned tail);
  bool noteAccess(unsigned n, const TrackedAccess& access);
  bool complete(const Found& found, LoopPlan::Stream& stream) const;
  bool stride(std::uint8_t r, std::int64_t& bytes) const;

  Block& block_;
  LoopPlan& plan_;
  RegisterTracker tracker_;
  std::array<Found, LoopPlan::kMaxStreams> found_;
  unsigned foundCount_ = 0;
  /// Whether the operand's registers are as they were at the head.
  std::array<bool, Block::kMaxInstructions> baseIntact_{}, indexIntact_{};
};

bool LoopFinder::noteAccess(unsigned n, const TrackedAccess& access) {
  if (!access.present) return false;
  const Instruction& i = block_.instructions[n].decoded;
  std::int64_t low = access.value.offset, high = low + access.bytes;
  unsigned s = 0;
  while (s < foundCount_ && found_[s].origin != access.value.origin) ++s;
  if (s == foundCount_) {
    if (s == LoopPlan::kMaxStreams) return false;
    found_[foundCount_++] = {access.value.origin, low, high};
  }
  Found& f = found_[s];
  f.low = std::min(f.low, low);
  f.high = std::max(f.high, high);
  baseIntact_[n] = isIntact(i.base);
  indexIntact_[n] = i.index != kNoRegister && isIntact(i.index);
  plan_.streamOf[n] = static_cast<std::uint8_t>(s);
  return f.high - f.low <= kMaxSpan && f.low >= -0x40000000 && f.high <= 0x40000000;
}

bool LoopFinder::collect(unsigned head, unsigned tail) {
  tracker_ = RegisterTracker(block_.key.wordBytes());
  foundCount_ = 0;
  for (unsigned n = head; n < tail; ++n) {
    const GuestInstruction& g = block_.instructions[n];
    if (n != head && g.isLabel) return false;
    plan_.streamOf[n] = LoopPlan::kNoStream;
    if (isJcc(g)) {
      int target = block_.indexOf(branchTarget(block_, g));
      if (target == static_cast<int>(head)) return false;
      continue;
    }
    if (!isPlain(g)) return false;
    if (touchesMemory(g.decoded) && !noteAccess(n, tracker_.operandAccess(g.decoded))) return false;
    tracker_.update(g.decoded);
  }
  return !block_.instructions[tail].isLabel;
}

/// By how much an iteration moves a register.
bool LoopFinder::stride(std::uint8_t r, std::int64_t& bytes) const {
  TrackedValue v = tracker_.valueOf(r);
  bytes = v.offset;
  return v.origin == r && bytes >= -kMaxStride && bytes <= kMaxStride;
}

bool LoopFinder::complete(const Found& found, LoopPlan::Stream& stream) const {
  stream = {.base = found.origin,
            .index = kNoRegister,
            .scale = 1,
            .fold = LoopPlan::Fold::nothing,
            .low = static_cast<std::int32_t>(found.low),
            .span = static_cast<std::uint32_t>(found.high - found.low),
            .stride = 0};
  std::int64_t ofBase = 0, ofIndex = 0;
  if (found.origin >= RegisterTracker::kRegisters) {
    const RegisterPair& pair = tracker_.pair(found.origin);
    stream.base = pair.base;
    stream.index = pair.index;
    stream.scale = pair.scale;
    if (!stride(pair.index, ofIndex)) return false;
    ofIndex *= pair.scale;
  }
  if (!stride(stream.base, ofBase)) return false;
  std::int64_t by = ofBase + ofIndex;
  if (by < -kMaxStride || by > kMaxStride) return false;
  stream.stride = static_cast<std::int32_t>(by);
  if (stream.index == kNoRegister) return true;
  if (ofBase == 0) {
    stream.fold = LoopPlan::Fold::base;
  } else if (ofIndex == 0) {
    stream.fold = LoopPlan::Fold::index;
  } else {
    return false;
  }
  return true;
}

/// Whether the operand may leave what is folded to its stream's register.
bool LoopFinder::operandFits(unsigned n, const LoopPlan::Stream& stream) const {
  const Instruction& i = block_.instructions[n].decoded;
  switch (stream.fold) {
    case LoopPlan::Fold::nothing:
      return true;
    case LoopPlan::Fold::base:
      return i.base == stream.base && baseIntact_[n];
    case LoopPlan::Fold::index:
      return i.index == stream.index && indexIntact_[n];
  }
  return false;
}

void LoopFinder::at(unsigned tail) {
  const GuestInstruction& branch = block_.instructions[tail];
  bool jump = branch.decoded.info->op == Op::jmp && branch.treatment == Treatment::special;
  if ((!isJcc(branch) && !jump) || branch.crossesPage || plan_.count == LoopPlan::kMaxLoops) return;
  int target = block_.indexOf(branchTarget(block_, branch));
  if (target < 0 || static_cast<unsigned>(target) >= tail) return;
  auto head = static_cast<unsigned>(target);
  if (block_.instructions[head].liveIn != 0 || !collect(head, tail) || foundCount_ == 0) return;
  LoopPlan::Loop& loop = plan_.loops[plan_.count];
  loop.head = static_cast<std::uint8_t>(head);
  loop.tail = static_cast<std::uint8_t>(tail);
  loop.streamCount = static_cast<std::uint8_t>(foundCount_);
  for (unsigned s = 0; s < foundCount_; ++s) {
    if (!complete(found_[s], loop.streams[s])) return;
  }
  bool moves = false;
  for (unsigned s = 0; s < foundCount_; ++s) moves |= loop.streams[s].stride != 0;
  // What only reads the same place again waits for somebody.
  if (!moves) return;
  for (unsigned n = head; n < tail; ++n) {
    std::uint8_t s = plan_.streamOf[n];
    if (s == LoopPlan::kNoStream) continue;
    if (!operandFits(n, loop.streams[s])) return;
  }
  ++plan_.count;
  if (tail + 1 < block_.count) block_.instructions[tail + 1].isLabel = true;
}

}  // namespace

void planLoops(Block& block, LoopPlan& plan) {
  plan.count = 0;
  LoopFinder finder(block, plan);
  for (unsigned n = 1; n < block.count; ++n) finder.at(n);
}

}  // namespace lodge::translate
