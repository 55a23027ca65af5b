// SPDX-License-Identifier: Apache-2.0
// The copies of loops that run without probes (loops.h). While one runs, R12 counts the iterations that are left, R13
// and R14 belong to its streams. It is entered from the branch back to the loop's head alone, which has done an
// iteration with probes, and goes back there when the iterations are used up.
#include <bit>

#include "engine/translate/rewriter.h"

namespace lodge::translate {

namespace {
using namespace x86;

constexpr std::int32_t kPage = 4096;
// Fewer are not worth the computation.
constexpr std::int32_t kMinIterations = 4;
constexpr std::uint32_t kRoomPerInstruction = 32, kRoom = 512;
constexpr std::uint8_t kStreamRegister[] = {host::addend, host::group};
constexpr std::uint8_t kOpMulImmediate = 0x69, kOpCmovA = 0x47, kGroup3 = 0xf7, kNegate = 3;
enum : unsigned { kAdd = 0, kAnd = 4, kSub = 5, kCmp = 7 };
}  // namespace

void Rewriter::emitLoops() {
  for (unsigned n = 0; n < loops_.count; ++n) {
    const LoopPlan::Loop& loop = loops_.loops[n];
    if (loop.tail >= count_) return;
    unsigned length = loop.tail - loop.head + 1u;
    bool fits = hot_.room() > kRoom + length * kRoomPerInstruction &&
                hot_.size() + kRoom + length * kRoomPerInstruction < 0xf000 &&
                out_.hotCount + length + kRecordRoom < RewrittenCode::kMaxRecords &&
                out_.linkCount + length < RewrittenCode::kMaxLinks;
    if (!fits) return;
    hot_.align(16);
    std::uint64_t start = hot_.here();
    unsigned records = out_.hotCount, links = out_.linkCount, coldRecords = out_.coldCount;
    std::uint32_t size = hot_.size(), coldSize = cold_.size();
    emitLoop(loop);
    if (loopFailed_) {
      loopFailed_ = false;
      hot_.truncate(size);
      cold_.truncate(coldSize);
      out_.hotCount = records;
      out_.coldCount = coldRecords;
      out_.linkCount = links;
      continue;
    }
    hot_.patchTo(backEdge_[n], start);
    ++out_.loopCount;
  }
}

/// Into the stream's register: the addend of its page, and what is folded; into R12: how many more iterations stay
/// there.
void Rewriter::prepareStream(const LoopPlan::Stream& s, std::uint8_t r, std::uint64_t head) {
  Mem first{.base = hostOf(s.base), .scale = s.scale, .displacement = s.low};
  if (s.index != kNoRegister) first.index = hostOf(s.index);
  hot_.lea(8, host::address, first);
  lookUp(r, host::address);
  hot_.testImmediate8(r, kTlbValid);
  hot_.jccTo(ccE, head);
  auto room = kPage - static_cast<std::int32_t>(s.span);
  hot_.arithmeticImmediate(4, kAnd, host::address, kPage - 1);
  hot_.arithmeticImmediate(4, kSub, host::address, room);
  hot_.jccTo(ccA, head);  // the page ends in this iteration
  if (s.stride == 0) {
    hot_.movImmediate(host::address, 0x7fff'ffff);
    return;
  }
  if (s.stride > 0) {
    hot_.legacy(4, 0, kGroup3, kNegate, host::address);
  } else {
    hot_.arithmeticImmediate(4, kAdd, host::address, room);
  }
  auto by = static_cast<std::uint32_t>(s.stride > 0 ? s.stride : -s.stride);
  if (std::has_single_bit(by)) {
    if (by > 1) hot_.shiftRight(4, host::address, static_cast<std::uint8_t>(std::countr_zero(by)));
  } else {
    // Rounded down, and so is the quotient.
    hot_.legacy(4, 0, kOpMulImmediate, host::address, host::address);
    hot_.word32(65536 / by);
    hot_.shiftRight(4, host::address, 16);
  }
}

void Rewriter::emitLoop(const LoopPlan::Loop& loop) {
  std::uint64_t head = entry_[loop.head];
  const GuestInstruction& first = block_.instructions[loop.head];
  record(RecordKind::instruction, first.offset);
  for (unsigned s = 0; s < loop.streamCount; ++s) {
    prepareStream(loop.streams[s], kStreamRegister[s], head);
    if (s + 1 < loop.streamCount) {
      hot_.store(8, atState(FRAME_SPARE), host::address);
    } else if (s != 0) {
      hot_.arithmetic(8, kCmp, host::address, atState(FRAME_SPARE));
      hot_.legacy(8, 1, kOpCmovA, host::address, atState(FRAME_SPARE));
    }
  }
  hot_.arithmeticImmediate(4, kCmp, host::address, kMinIterations - 1);
  hot_.jccTo(ccB, head);
  for (unsigned s = 0; s < loop.streamCount; ++s) {
    const LoopPlan::Stream& stream = loop.streams[s];
    std::uint8_t r = kStreamRegister[s];
    Mem folded{.base = r, .displacement = -static_cast<std::int32_t>(kTlbValid)};
    if (stream.fold == LoopPlan::Fold::base) {
      folded.index = hostOf(stream.base);
    } else if (stream.fold == LoopPlan::Fold::index) {
      folded.index = hostOf(stream.index);
      folded.scale = stream.scale;
    }
    hot_.lea(8, r, folded);
  }
  hot_.align(16);
  loop_ = &loop;
  std::uint64_t body = hot_.here();
  for (index_ = loop.head; index_ < loop.tail; ++index_) {
    current_ = &block_.instructions[index_];
    record(RecordKind::instruction, current_->offset);
    if (current_->decoded.info->op == Op::jcc) {
      leaveLoop(static_cast<Condition>(current_->decoded.opcode & 15), branchTarget(block_, *current_));
    } else {
      rewrite(*current_);
    }
  }
  current_ = &block_.instructions[loop.tail];
  record(RecordKind::instruction, current_->offset);
  if (current_->decoded.info->op == Op::jcc)
    leaveLoop(static_cast<Condition>((current_->decoded.opcode & 15) ^ 1), block_.nextRip(*current_));
  loop_ = nullptr;
  record(RecordKind::instruction, first.offset);
  hot_.arithmeticImmediate(4, kSub, host::address, 1);
  hot_.jccTo(ccAe, body);
  hot_.jmpTo(head);
}

/// A branch out of the loop.
void Rewriter::leaveLoop(Condition cc, std::uint64_t target) {
  int index = block_.indexOf(target);
  if (index >= 0 && static_cast<unsigned>(index) < count_) {
    hot_.jccTo(cc, entry_[static_cast<unsigned>(index)]);
    return;
  }
  std::uint64_t offset = target - block_.page;
  if (offset >= kPageSize) {
    branchToOtherPage(cc, target);
    return;
  }
  hot_.keepTogether(2, 4);
  std::uint32_t at = hot_.jcc(cc);
  std::uint64_t stub = linkStub(static_cast<unsigned>(offset));
  hot_.patchTo(at, stub);
  addLink(hot_.start() + at, stub, static_cast<unsigned>(offset));
}

/// The operand off its stream's register.
Mem Rewriter::loopOperand(const Instruction& i) {
  std::uint8_t s = loops_.streamOf[index_];
  const LoopPlan::Stream& stream = loop_->streams[s];
  std::uint8_t r = kStreamRegister[s];
  Mem m{.base = r, .displacement = static_cast<std::int32_t>(i.displacement)};
  switch (stream.fold) {
    case LoopPlan::Fold::nothing:
      m.base = hostOf(i.base);
      m.index = r;
      break;
    case LoopPlan::Fold::base:
      m.index = hostOf(i.index);
      m.scale = i.scale;
      break;
    case LoopPlan::Fold::index:
      m.base = hostOf(i.base);
      m.index = r;
      break;
  }
  return m;
}

}  // namespace lodge::translate
