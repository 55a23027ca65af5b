// SPDX-License-Identifier: Apache-2.0
// Control flow. Direct branches within the page are linked jumps; everything else goes through the code map
// (code_map.h).
#include "base/bytes.h"
#include "engine/translate/frame_layout.h"
#include "engine/translate/rewriter.h"

namespace lodge::translate {

namespace {
using namespace x86;
constexpr std::uint8_t kGsPrefix = 0x65, kXchg = 0x87, kJrcxz = 0xe3, kJumpBytes = 5;
}  // namespace

bool Rewriter::branch(const GuestInstruction& g) {
  switch (g.decoded.info->op) {
    case Op::jmp:
      jumpTo(branchTarget(block_, g));
      return true;
    case Op::jcc:
      return conditional(g);
    case Op::loop:
    case Op::loope:
    case Op::loopne:
    case Op::jcxz:
      return countedBranch(g);
    case Op::call:
      return call(g);
    case Op::jmp_indirect:
    case Op::call_indirect:
      return indirect(g);
    case Op::ret:
      return ret(g);
    default:
      return false;
  }
}

std::uint64_t Rewriter::linkStub(unsigned targetOffset) {
  std::uint64_t stub = cold_.here();
  recordCold(RecordKind::instruction, targetOffset);
  cold_.callTo(thunks_.exitLink);
  return stub;
}

/// `key`: of the code at the target, if it is another than the block's.
void Rewriter::addLink(std::uint64_t rel32, std::uint64_t stub, unsigned targetOffset, bool ungrouped,
                       std::uint32_t key) {
  if (key == 0) key = block_.key.bits;
  out_.links[out_.linkCount++] = {rel32, stub, static_cast<std::uint16_t>(targetOffset), ungrouped, key};
}

/// The state is that of the start of the instruction at `target`.
void Rewriter::jumpTo(std::uint64_t target) {
  std::uint64_t offset = target - block_.page;
  if (offset >= kPageSize) {
    movLinear(hot_, host::addend, target);
    record(RecordKind::dynamic, 0);
    jumpToTarget(hot_);
    return;
  }
  int index = block_.indexOf(target);
  if (index >= 0 && static_cast<unsigned>(index) < index_ + (current_->endsBlock ? 1 : 0)) {
    branchBack(hot_.jmp(), static_cast<unsigned>(index));
    return;
  }
  jumpByLink(static_cast<unsigned>(offset));
}

void Rewriter::jumpByLink(unsigned targetOffset) {
  hot_.keepTogether(1, 4);
  record(RecordKind::instruction, targetOffset);
  std::uint32_t at = hot_.jmp();
  std::uint64_t stub = linkStub(targetOffset);
  hot_.patchTo(at, stub);
  addLink(hot_.start() + at, stub, targetOffset);
}

bool Rewriter::conditional(const GuestInstruction& g) {
  auto cc = static_cast<Condition>(g.decoded.opcode & 15);
  std::uint64_t target = branchTarget(block_, g);
  std::uint64_t offset = target - block_.page;
  int index = block_.indexOf(target);
  if (index >= 0 && static_cast<unsigned>(index) <= index_) {
    branchBack(hot_.jcc(cc), static_cast<unsigned>(index));
  } else if (index >= 0) {
    forward_[forwardCount_++] = {hot_.jcc(cc), static_cast<unsigned>(index)};
  } else if (offset < kPageSize) {
    hot_.keepTogether(2, 4);
    std::uint32_t at = hot_.jcc(cc);
    std::uint64_t stub = linkStub(static_cast<unsigned>(offset));
    hot_.patchTo(at, stub);
    addLink(hot_.start() + at, stub, static_cast<unsigned>(offset));
  } else {
    branchToOtherPage(cc, target);
  }
  return true;
}

/// The current instruction's.
void Rewriter::branchToOtherPage(Condition cc, std::uint64_t target) {
  std::uint32_t at = hot_.jcc(cc);
  hot_.patchTo(at, cold_.here());
  recordCold(RecordKind::instruction, current_->offset);  // the branch again: it will be taken again
  movLinear(cold_, host::addend, target);
  recordCold(RecordKind::dynamic, 0);
  jumpToTarget(cold_);
}

/// To an instruction that has been written; emitLoops() may lead it elsewhere.
void Rewriter::branchBack(std::uint32_t rel32, unsigned head) {
  hot_.patchTo(rel32, entry_[head]);
  if (const LoopPlan::Loop* loop = loops_.endingAt(index_))
    backEdge_[static_cast<std::size_t>(loop - loops_.loops.data())] = rel32;
}

/// LOOP and JRCXZ have 8-bit displacements only: they jump over a jump.
bool Rewriter::countedBranch(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  std::uint64_t target = branchTarget(block_, g);
  std::uint64_t offset = target - block_.page;
  bool samePage = offset < kPageSize;
  if (!samePage) movLinear(hot_, host::addend, target);
  if (i.addressSize == 4) hot_.byte(0x67);
  hot_.byte(i.opcode);
  hot_.byte(5);
  record(RecordKind::instruction, g.offset + i.length);
  std::uint32_t over = hot_.jmp();
  if (samePage) {
    record(RecordKind::instruction, static_cast<unsigned>(offset));
    jumpTo(target);
  } else {
    record(RecordKind::dynamic, 0);
    jumpToTarget(hot_);
  }
  hot_.patchHere(over);
  return true;
}

bool Rewriter::call(const GuestInstruction& g) {
  std::uint64_t target = branchTarget(block_, g);
  auto slotBelow = -static_cast<std::int32_t>(word());
  Mem to = stackOperand(slotBelow, true);
  std::uint8_t spare = host::none;
  if (block_.isShared) {
    spare = spareBeside(to);
    movLinear(hot_, spare, block_.nextRip(g));
    hot_.store(word(), to, spare);
  } else {
    storeWord(to, block_.nextRip(g));
  }
  committing();
  moveStackPointer(slotBelow);
  bool samePage = target - block_.page < kPageSize;
  if (samePage || spare == host::none) {
    if (notesReturn(g)) noteReturn(spare);
    if (!samePage) movLinear(hot_, host::addend, target);
  } else {
    // The target is near the return address, which a register has.
    Mem near{.base = spare, .displacement = static_cast<std::int32_t>(target - block_.nextRip(g))};
    bool inverted = spare == host::addend && notesReturn(g);
    if (!inverted) hot_.lea(word(), host::addend, near);
    if (notesReturn(g)) noteReturn(spare);
    if (inverted) {
      hot_.legacy(word(), 0, 0xf7, 2, spare);  // NOT
      hot_.lea(word(), host::addend, near);
    }
  }
  if (samePage) {
    record(RecordKind::instruction, static_cast<unsigned>(target - block_.page));
    jumpTo(target);
  } else {
    record(RecordKind::dynamic, 0);
    jumpToTarget(hot_);
  }
  return true;
}

/// JMP and CALL through a register or memory.
bool Rewriter::indirect(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  bool isCall = i.info->op == Op::call_indirect;
  if (!targetsAreMapped()) return false;
  auto slotBelow = -static_cast<std::int32_t>(word());
  Mem to{};
  if (isCall && i.memory) {
    hot_.load(word(), host::addend, operand(i));
    hot_.store(8, atState(FRAME_SPARE), host::addend);  // the next probe needs the register
  }
  if (isCall) {  // r12 = host address of the return address
    to = stackOperand(slotBelow, true);
    hot_.lea(8, host::address, to);
  }
  if (i.memory) {
    hot_.load(word(), host::addend, isCall ? atState(FRAME_SPARE) : operand(i));
  } else if (isSpilled(i.rm)) {
    hot_.load(8, host::addend, slot(i.rm));
  } else {
    hot_.mov(word(), host::addend, hostOf(i.rm));
  }
  lookUpTarget(hot_);
  if (isCall) {
    std::uint64_t next = block_.nextRip(g);
    to = Mem{.base = host::address};
    bool immediate = word() == 4 || static_cast<std::int64_t>(next) == static_cast<std::int32_t>(next);
    immediate = immediate && !block_.isShared && !notesReturn(g);
    if (immediate) {
      hot_.storeImmediate32(word(), to, static_cast<std::int32_t>(next));
      committing();
    } else {
      hot_.store(8, atState(FRAME_SPARE), host::group);
      movLinear(hot_, host::group, next);
      hot_.store(word(), to, host::group);
      committing();
    }
    moveStackPointer(slotBelow);
    if (notesReturn(g)) noteReturn(host::group);
    if (!immediate) hot_.load(8, host::group, atState(FRAME_SPARE));
  }
  record(RecordKind::dynamic, 0);
  notePage(hot_);
  hot_.jmpIndirect(host::group);
  return true;
}

bool Rewriter::ret(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  if (!targetsAreMapped()) return false;
  auto moves = static_cast<std::int32_t>(word() + (i.info->form == Form::i ? i.immediate & 0xffff : 0));
  hot_.load(word(), host::addend, stackOperand(0, false));
  Assembler* a = &hot_;
  if (usesReturns()) {
    // r12 = the host's return point, RCX = 0 if it is that of r13.
    hot_.pext(host::address, host::guestRsp, atState(returnMask()));
    hot_.load(8, host::group, returnSlot(false));
    hot_.lea(8, host::group, Mem{.base = host::group, .index = host::addend, .displacement = 1});
    hot_.load(4, host::address, returnSlot(true));
    committing();
    hot_.legacy(8, 0, kXchg, host::group, host::rcx);
    hot_.byte(kJrcxz);
    hot_.byte(kJumpBytes);
    hot_.jmpTo(cold_.here());
    hot_.mov(8, host::rcx, host::group);
    moveStackPointer(moves);
    record(RecordKind::dynamic, 0);
    notePage(hot_, host::group);
    hot_.jmpIndirect(host::address);

    a = &cold_;
    recordCold(RecordKind::committing, g.offset);
    cold_.mov(8, host::rcx, host::group);
    recordCold(RecordKind::instruction, g.offset);
  }
  lookUpTarget(*a);
  moveStackPointer(*a, moves);
  if (a == &hot_) {
    record(RecordKind::dynamic, 0);
  } else {
    recordCold(RecordKind::dynamic, 0);
  }
  notePage(*a);
  a->jmpIndirect(host::group);
  return true;
}

/// Of the slot whose number is in r12: the key, or the host address.
Mem Rewriter::returnSlot(bool host) const {
  Mem m{.base = host::state, .index = host::address, .scale = 8, .displacement = layout::kernelReturns};
  if (key().has(ModeKey::user)) {
    m.base = host::none;
    m.segmentPrefix = kGsPrefix;
    m.displacement = key().has(ModeKey::code64) ? layout::user64Returns : layout::user32Returns;
  }
  if (host) {
    m.scale = 4;
    m.displacement += static_cast<std::int32_t>(offsetof(ReturnCache, hosts));
  }
  return m;
}

/// Whether the call leaves a note for its return (return_cache.h).
bool Rewriter::notesReturn(const GuestInstruction& g) const {
  return usesReturns() && g.offset + unsigned{g.decoded.length} < kPageSize;
}

/// After a call has moved the stack pointer. `from`: r13 or r14 with the return address, or none. Uses r12 and `from`
/// or r14.
void Rewriter::noteReturn(std::uint8_t from) {
  if (from == host::none) {
    from = host::group;
    hot_.movImmediate(from, ~block_.nextRip(*current_));
  } else {
    hot_.legacy(8, 0, 0xf7, 2, from);  // NOT
  }
  hot_.pext(host::address, host::guestRsp, atState(returnMask()));
  hot_.store(8, returnSlot(false), from);
  hot_.storeImmediate32(4, returnSlot(true), 0);
  returnPoint_ = hot_.size();
}

/// The next instruction is where the call before returns to.
void Rewriter::resolveReturn() {
  if (returnPoint_ == 0) return;
  storeLe(hot_.bytes() + returnPoint_ - 4, static_cast<std::uint32_t>(hot_.here()));
  returnPoint_ = 0;
}

/// Between instructions, before a jump to the user address in r13: shared code must know where it runs.
void Rewriter::notePage(Assembler& a, std::uint8_t scratch) {
  if (!notesPages()) return;
  a.pext(scratch, host::addend, atState(FRAME_MASK_LOW));
  a.store(8, atState(FRAME_PAGE), scratch);
}

/// Code with SMAP switched off has no map; what it does with computed targets is rare enough for the interpreter.
bool Rewriter::targetsAreMapped() const {
  return key().mode() != ExecMode::kernelAc;
}

/// The code map's word for a page; the register holds its index, inverted.
Mem Rewriter::codeMapWord(std::uint8_t index, ExecMode mode) const {
  if (mode == ExecMode::kernel)
    return {.base = host::state, .index = index, .scale = 8, .displacement = layout::kernelCodeTop};
  std::int32_t top = mode == ExecMode::user32 ? layout::user32CodeTop : layout::user64CodeTop;
  return {.index = index, .scale = 8, .segmentPrefix = kGsPrefix, .displacement = top};
}

/// Before an instruction that goes on in the next page: that must be the page which it was translated from.
void Rewriter::checkNextPage(const GuestInstruction& g) {
  bool keepFlags = g.liveIn != 0;
  if (keepFlags) saveFlags();
  if (block_.isShared) {
    hot_.load(8, host::address, atState(FRAME_PAGE));
    hot_.legacy(8, 0, 0xf7, 2, host::address);  // NOT
    Mem word = codeMapWord(host::address, key().mode());
    word.displacement -= 8;
    hot_.load(8, host::address, word);
    // The word and the page give the entry table (code_map.h).
    hot_.rotateRight(host::addend, atState(FRAME_PAGE), 52);
    hot_.lea(8, host::addend, Mem{.base = host::addend, .index = host::addend, .scale = kEntryStride - 1});
    hot_.lea(8, host::address,
             Mem{.base = host::address, .index = host::addend, .displacement = kEntryStride * kPageSize});
    hot_.movImmediate(host::addend, block_.nextTable);
  } else {
    std::uint64_t page = key().wrap(block_.page + kPageSize);
    unsigned bits = key().has(ModeKey::user) ? layout::user64CodeBits : layout::kernelCodeBits;
    std::uint64_t index = page >> 12 & ((std::uint64_t{1} << bits) - 1);
    hot_.movImmediate(host::address, ~index);
    hot_.load(8, host::address, codeMapWord(host::address, key().mode()));
    hot_.movImmediate(host::addend, block_.nextTable - kEntryStride * page);
  }
  constexpr unsigned kCmp = 7;
  hot_.arithmetic(8, kCmp, host::address, host::addend);
  hot_.patchTo(hot_.jcc(ccNe), cold_.here());
  recordCold(keepFlags ? RecordKind::flagsSaved : RecordKind::instruction, g.offset);
  if (keepFlags) restoreFlagsCold();
  callStep(cold_, g);
  if (keepFlags) restoreFlags();
}

/// r14 = host code for the guest address in r13. Keeps flags. Faults if r13 is not canonical. `notes`: as notePage()
/// does. Without BMI2 only inside an instruction, before it commits.
void Rewriter::lookUpTarget(Assembler& a, ExecMode mode, bool notes) {
  bool user = mode != ExecMode::kernel;
  if (host_.bmi2) {
    a.pext(host::group, host::addend, atState(user ? FRAME_MASK_LOW : FRAME_MASK_BOTH));
    if (notes && notesPages()) a.store(8, atState(FRAME_PAGE), host::group);
  } else {
    saveFlags();
    a.mov(8, host::group, host::addend);
    a.shiftLeft(8, host::group, user ? 17 : 16);
    a.shiftRight(8, host::group, user ? 29 : 28);
    restoreFlags();
  }
  a.legacy(8, 0, 0xf7, 2, host::group);  // NOT
  a.load(8, host::group, codeMapWord(host::group, mode));
  a.lea(8, host::group, Mem{.base = host::group, .index = host::addend, .scale = 4});
  a.load(4, host::group, Mem{.base = host::group, .index = host::addend});
}

/// Between instructions: to the canonical guest address in r13.
void Rewriter::jumpToTarget(Assembler& a) {
  if (!targetsAreMapped() || !host_.bmi2) {
    a.jmpTo(thunks_.indirectMiss);
    return;
  }
  lookUpTarget(a, key().mode(), true);
  a.jmpIndirect(host::group);
}

}  // namespace lodge::translate
