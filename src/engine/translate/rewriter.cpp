// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/rewriter.h"

#include "engine/translate/trampolines.h"

namespace lodge::translate {

namespace {
using namespace x86;

// More than any one guest instruction needs.
constexpr std::uint32_t kHotRoom = 1024;
constexpr std::uint32_t kColdRoom = 512;
}  // namespace

unsigned Rewriter::run() {
  count_ = block_.count;
  unsigned done = 0;
  for (; done < count_; ++done) {
    bool fits = hot_.room() > kHotRoom && cold_.room() > kColdRoom && hot_.size() < 0xf000 && cold_.size() < 0xf000 &&
                out_.hotCount + kRecordRoom < RewrittenCode::kMaxRecords &&
                out_.coldCount + kRecordRoom < RewrittenCode::kMaxRecords;
    if (!fits) break;
    index_ = done;
    current_ = &block_.instructions[done];
    entry_[done] = hot_.here();
    resolveForward(done);
    resolveReturn();
    record(RecordKind::instruction, current_->offset, !groups_.noEntry[done]);
    if (current_->crossesPage && current_->treatment != Treatment::interpret) checkNextPage(*current_);
    if (groups_.leader[done].present) groupProbe(groups_.leader[done]);
    rewrite(*current_);
  }
  count_ = done;
  const GuestInstruction& last = block_.instructions[done - 1];
  unsigned next = last.offset + last.decoded.length;
  if (returnPoint_ != 0) {
    resolveReturn();
    jumpByLink(next);
  } else if (!last.endsBlock) {
    record(RecordKind::instruction, next);
    index_ = done;
    jumpTo(key().wrap(block_.page + next));
  }
  emitLoops();
  // Jumps forward to instructions that did not fit leave the translation.
  for (unsigned i = 0; i < forwardCount_; ++i) {
    const Forward& f = forward_[i];
    unsigned target = block_.instructions[f.index].offset;
    std::uint64_t stub = linkStub(target);
    hot_.patchTo(f.rel32, stub);
    addLink(hot_.start() + f.rel32, stub, target);
  }
  return done;
}

void Rewriter::resolveForward(unsigned index) {
  unsigned kept = 0;
  for (unsigned i = 0; i < forwardCount_; ++i) {
    if (forward_[i].index == index) {
      hot_.patchHere(forward_[i].rel32);
    } else {
      forward_[kept++] = forward_[i];
    }
  }
  forwardCount_ = kept;
}

void Rewriter::record(RecordKind kind, unsigned value, bool isEntry) {
  if (isEntry) kind = RecordKind::entry;
  Record r{static_cast<std::uint16_t>(hot_.size()), static_cast<std::uint16_t>(kind),
           static_cast<std::uint16_t>(value)};
  if (out_.hotCount != 0) {
    Record& last = out_.hot[out_.hotCount - 1];
    if (last.offset == r.offset && !last.isEntry()) {  // an entry stays one, with no code of its own
      last = r;
      return;
    }
    bool same = last.kind == r.kind || (last.isEntry() && kind == RecordKind::instruction);
    if (!isEntry && same && last.value == r.value) return;
  }
  out_.hot[out_.hotCount++] = r;
}

void Rewriter::recordCold(RecordKind kind, unsigned value) {
  Record r{static_cast<std::uint16_t>(cold_.size()), static_cast<std::uint16_t>(kind),
           static_cast<std::uint16_t>(value)};
  out_.cold[out_.coldCount++] = r;
}

void Rewriter::saveFlags() {
  hot_.store(8, atState(FRAME_SAVED_RAX), host::rax);
  committing();
  hot_.lahf();
  hot_.setcc(ccO, host::rax);
  record(RecordKind::flagsSaved, current_->offset);
}

void Rewriter::restoreFlags() {
  committing();
  hot_.arithmeticImmediate(1, 0, host::rax, 0x7f);
  hot_.sahf();
  hot_.load(8, host::rax, atState(FRAME_SAVED_RAX));
  record(RecordKind::instruction, current_->offset);
}

/// Touches no flags.
void Rewriter::movLinear(Assembler& a, std::uint8_t to, std::uint64_t linear) {
  if (!block_.isShared) {
    a.movImmediate(to, linear);
    return;
  }
  std::int32_t rest = pageBase(a, to, linear);
  if (rest != 0 || word() == 4) a.lea(word(), to, Mem{.base = to, .displacement = rest});
}

/// In shared code: `to` = the linear address less what is returned.
std::int32_t Rewriter::pageBase(Assembler& a, std::uint8_t to, std::uint64_t linear) {
  constexpr std::int64_t kFurthest = 0x7fff'0000;
  auto distance = static_cast<std::int64_t>(linear);
  if (word() == 4) distance = static_cast<std::int32_t>(distance);
  a.rotateRight(to, atState(FRAME_PAGE), 52);
  if (distance > kFurthest || distance < -kFurthest) {
    std::int64_t part = distance > 0 ? kFurthest : -kFurthest;
    a.lea(8, to, Mem{.base = to, .displacement = static_cast<std::int32_t>(part)});
    distance -= part;
  }
  return static_cast<std::int32_t>(distance);
}

void Rewriter::rewrite(const GuestInstruction& g) {
  switch (g.treatment) {
    case Treatment::generic:
      if (!generic(g)) interpretInstead(g);
      break;
    case Treatment::special:
      rewriteSpecial(g);
      break;
    case Treatment::system:
      if (!system(g)) interpretInstead(g);
      break;
    case Treatment::interpret:
      interpretInstead(g);
      break;
  }
}

void Rewriter::rewriteSpecial(const GuestInstruction& g) {
  bool done = false;
  switch (g.decoded.info->op) {
    case Op::mov:
      done = move(g);
      break;
    case Op::lea:
      done = loadAddress(g);
      break;
    case Op::xchg:
      done = exchange(g);
      break;
    case Op::bswap:
      done = byteSwap(g);
      break;
    case Op::push:
      done = push(g);
      break;
    case Op::pop:
      done = pop(g);
      break;
    case Op::leave:
      done = leave();
      break;
    case Op::nop:
    case Op::prefetch:
      done = true;
      break;
    case Op::pause:
    case Op::lfence:
    case Op::mfence:
    case Op::sfence:
      verbatim();
      done = true;
      break;
    default:
      done = branch(g);
      break;
  }
  if (!done) interpretInstead(g);
}

/// Nothing has been emitted for the instruction when this is called.
void Rewriter::interpretInstead(const GuestInstruction& g) {
  if (loop_) {
    loopFailed_ = true;
    return;
  }
  callStep(hot_, g);
}

/// Calls the interpreter; comes back behind the call if execution goes on at the next instruction of the block.
void Rewriter::callStep(Assembler& a, const GuestInstruction& g) {
  movLinear(a, host::group, block_.rip(g));
  if (g.crossesPage) {
    a.movImmediate(host::addend, kNextPage);
  } else if (g.endsBlock) {
    a.movImmediate(host::addend, kNowhere);
  } else {
    a.lea(8, host::addend, Mem{.base = host::group, .displacement = g.decoded.length});
  }
  a.callTo(thunks_.callStep);
}

}  // namespace lodge::translate
