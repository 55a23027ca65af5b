// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/executor_code.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/units.h"
#include "engine/translate/time_stamp.h"

namespace lodge::translate {

using namespace x86;
using Kind = ExecutorCode::Place::Kind;

namespace {

constexpr std::uint8_t kGsPrefix = 0x65, kFsPrefix = 0x64, kXchg = 0x87, kJrcxz = 0xe3, kJump = 0xe9, kJumpBytes = 5;
constexpr std::uint8_t kGroup5 = 0xff, kJumpThrough = 4;  // JMP [memory]
constexpr std::int32_t kThroughBytes = 6;
/// Of code: more than a block needs.
constexpr std::uint32_t kRoom = 32 * 1024;
/// Where code ends and what is seldom run begins.
constexpr std::uint32_t kCold = EXECUTOR_CODE_BYTES / 3 * 2;
constexpr std::uint64_t kHighestDisplacement = 0x7fff'0000;

Mem state(std::int32_t offset) {
  return {.base = host::rip, .displacement = offset};
}

bool isX87(const Instruction& i) {
  constexpr std::uint8_t kFirst = 0xd8, kLast = 0xdf;
  return i.encoding == Encoding::legacy && i.map == 0 && i.opcode >= kFirst && i.opcode <= kLast;
}

bool isHighByte(const Instruction& i) {
  return i.encoding == Encoding::legacy && i.rex == 0 && (i.info->attributes & attribute::byteForm) != 0 &&
         i.reg >= 4 && i.reg < 8;
}

}  // namespace

ExecutorCode::ExecutorCode(ExecutorProcess& process, std::uint64_t features, x86::TscScale tscScale)
    : process_(process), features_(features), tscScale_(tscScale) {
  clear();
}

void ExecutorCode::clear() {
  used_ = static_cast<std::uint32_t>(ExecutorProcess::stubBytes());
  coldUsed_ = kCold;
  blocks_.clear();
  byPage_.clear();
  starts_.clear();
  notes_.clear();
  coldNotes_.clear();
  links_.clear();
  sites_.clear();
  ways_.clear();
  wayTargets_.clear();
  for (std::uint32_t place : entered_) process_.targets()[place] = {};
  entered_.clear();
  for (std::uint32_t place : entered2_) process_.targets2()[place] = {};
  entered2_.clear();
  process_.targets()[0].key = 1;  // no branch to 0 finds code
}

std::uint64_t ExecutorCode::find(std::uint64_t rip) const {
  auto found = blocks_.find(rip);
  return found == blocks_.end() ? 0 : process_.codeAddress() + found->second;
}

void ExecutorCode::follow(std::uint32_t link, std::uint64_t host) {
  if (link >= links_.size()) return;
  const Link& l = links_[link];
  storeLe(process_.code() + l.rel32, static_cast<std::uint32_t>(host - (process_.codeAddress() + l.rel32 + 4)));
}

void ExecutorCode::followFrom(std::uint32_t first) {
  for (std::uint32_t n = first; n < links_.size(); ++n) {
    if (std::uint64_t host = find(links_[n].target)) follow(n, host);
  }
}

/// A jump to the guest's address, far away.
std::uint64_t ExecutorCode::wayTo(std::uint64_t rip) {
  auto [way, isNew] = ways_.try_emplace(rip, coldUsed_);
  if (!isNew) return process_.codeAddress() + way->second;
  if (!hasRoom()) {
    ways_.erase(way);
    return 0;
  }
  begin(cold_, coldUsed_);
  noteCold(kWay + static_cast<std::uint32_t>(wayTargets_.size()));
  wayTargets_.push_back(rip);
  cold_.legacy(4, 0, kGroup5, kJumpThrough,
               Mem{.base = host::rip, .displacement = distance(cold_.here()) + kThroughBytes});
  cold_.word64(rip);
  coldUsed_ += cold_.size();
  return process_.codeAddress() + way->second;
}

/// From the anchor.
std::int32_t ExecutorCode::distance(std::uint64_t host) const {
  return static_cast<std::int32_t>(host - process_.base());
}

void ExecutorCode::begin(Assembler& a, std::uint32_t offset) {
  a = Assembler(process_.code() + offset, process_.codeAddress() + offset, kRoom);
  a.setAnchor(process_.base());
}

void ExecutorCode::enterTarget(std::uint64_t rip, std::uint64_t host, bool first) {
  auto place = static_cast<std::uint32_t>(rip % ExecutorTarget::kCount);
  ExecutorTarget& entry = process_.targets()[place];
  if (first || entry.host == 0 || entry.key == -rip) {
    if (entry.host == 0) entered_.push_back(place);
    entry = {-rip, host};
  }
  auto start = static_cast<std::uint32_t>(rip * EXECUTOR_HASH >> EXECUTOR_HASH_SHIFT), free = start;
  for (unsigned way = 0; way < EXECUTOR_HASH_WAYS; ++way) {
    const ExecutorTarget& there = process_.targets2()[start + way];
    if (there.host != 0 && there.key != -rip) continue;
    free = start + way;
    if (there.host == 0) entered2_.push_back(free);
    break;
  }
  process_.targets2()[free] = {-rip, host};
}

void ExecutorCode::correctTarget(std::uint64_t rip, std::uint64_t host) {
  ExecutorTarget& entry = process_.targets()[rip % ExecutorTarget::kCount];
  if (entry.key == -rip && entry.host != 0) entry.host = host;
  ExecutorTarget* ways = process_.targets2() + (rip * EXECUTOR_HASH >> EXECUTOR_HASH_SHIFT);
  for (unsigned way = 0; way < EXECUTOR_HASH_WAYS; ++way) {
    if (ways[way].key == -rip && ways[way].host != 0) ways[way].host = host;
  }
}

namespace {
/// The last of those that begin at or before `offset`; null if there is none.
template <class T>
const T* lastAt(const std::vector<T>& all, std::uint64_t offset) {
  auto after =
      std::upper_bound(all.begin(), all.end(), offset, [](std::uint64_t at, const T& t) { return at < t.host; });
  return after == all.begin() ? nullptr : &*std::prev(after);
}
}  // namespace

bool ExecutorCode::locate(std::uint64_t host, Place& place) const {
  std::uint64_t offset = host - process_.codeAddress();
  if (offset >= kCold) {
    const ColdNote* note = offset < coldUsed_ ? lastAt(coldNotes_, offset) : nullptr;
    if (!note) return false;
    if (note->number >= kWay) {
      place = {wayTargets_[note->number - kWay], Kind::boundary, 0};
    } else if (note->number >= kSite) {
      place = {sites_[note->number - kSite], Kind::restore3, 0};
    } else {
      place = {links_[note->number].target, Kind::boundary, 0};
    }
    return true;
  }
  const Start* start = offset < used_ ? lastAt(starts_, offset) : nullptr;
  const Note* note = start ? lastAt(notes_, offset) : nullptr;
  if (!note) return false;
  place = {start->rip + note->offset, note->kind, note->reg};
  return true;
}

std::uint32_t ExecutorCode::offsetOf(const Assembler& a) const {
  return static_cast<std::uint32_t>(a.here() - process_.codeAddress());
}

/// Of the code that follows; `rip` is at most a page beyond the block's first instruction.
void ExecutorCode::note(Kind kind, std::uint64_t rip, std::uint8_t reg) {
  Note note{offsetOf(a_), static_cast<std::uint16_t>(rip - starts_.back().rip), kind, reg};
  if (!notes_.empty() && notes_.back().host == note.host) {
    notes_.back() = note;
  } else {
    notes_.push_back(note);
  }
}

void ExecutorCode::noteCold(std::uint32_t number) {
  coldNotes_.push_back({offsetOf(cold_), number});
}

std::uint64_t ExecutorCode::bytes() const {
  constexpr std::uint64_t kBlock = 128;  // in the maps
  return used_ + (coldUsed_ - kCold) + notes_.size() * sizeof(Note) +
         links_.size() * (sizeof(Link) + sizeof(ColdNote)) +
         (sites_.size() + wayTargets_.size()) * (sizeof(std::uint64_t) + sizeof(ColdNote)) + ways_.size() * kBlock +
         starts_.size() * (sizeof(Start) + kBlock) +
         (entered_.size() + entered2_.size()) * (sizeof(ExecutorTarget) + sizeof(std::uint32_t));
}

bool ExecutorCode::hasRoom() const {
  return kCold - used_ >= kRoom && EXECUTOR_CODE_BYTES - coldUsed_ >= kRoom;
}

std::uint64_t ExecutorCode::translate(Block& block, std::uint64_t rip, ModeKey key, const std::uint8_t* page,
                                      const std::uint8_t* next) {
  block.isShared = false;
  block.goesOnAfterCalls = false;
  block.misaligned = nullptr;
  if (!hasRoom()) return 0;
  decodeBlock(block, page, rip & ~kPageMask, static_cast<unsigned>(rip & kPageMask), key, features_, next);
  if (block.count == 0) return 0;
  block_ = &block;
  begin(a_, used_);
  begin(cold_, coldUsed_);
  jumps_.clear();
  pool_.clear();
  misses_.clear();
  successors_.clear();
  entries_.clear();
  blocks_[rip] = used_;
  byPage_[rip & ~kPageMask].push_back(rip);
  starts_.push_back({used_, rip});
  std::uint64_t start = a_.here();
  bool open = true;
  for (unsigned n = 0; n < block.count && open; ++n) {
    const GuestInstruction& g = block.instructions[n];
    entries_.push_back(a_.here());
    note(Kind::boundary, block.rip(g));
    if (!emit(g)) {
      exitForStep(block.rip(g));
      open = false;
    } else {
      open = !g.endsBlock;
    }
    if (!open) block.count = n + 1;
  }
  if (open) {
    const GuestInstruction& last = block.instructions[block.count - 1];
    note(Kind::boundary, block.nextRip(last));
    jumpTo(a_.jmp(), block.nextRip(last));
  }
  finish();
  used_ += static_cast<std::uint32_t>(alignUp(std::uint64_t{a_.size()}, 16));
  coldUsed_ += cold_.size();
  return start;
}

/// Jumps whose targets are known, ways out for the others, and constants.
void ExecutorCode::finish() {
  for (const Pending& jump : jumps_) {
    int index = block_->indexOf(jump.target);
    std::uint64_t host = index >= 0 && static_cast<unsigned>(index) < entries_.size()
                             ? entries_[static_cast<unsigned>(index)]
                             : find(jump.target);
    if (host != 0) {
      a_.patchTo(jump.rel32, host);
      continue;
    }
    auto rel32 = static_cast<std::uint32_t>(a_.start() - process_.codeAddress()) + jump.rel32;
    successors_.push_back({jump.target, false});
    a_.patchTo(jump.rel32, cold_.here());
    exitForLink(jump.target, rel32);
  }
  for (const Miss& miss : misses_) {
    a_.patchTo(miss.rel32, cold_.here());
    noteCold(kSite + static_cast<std::uint32_t>(sites_.size()));
    cold_.storeImmediate32(4, state(EXECUTOR_INFO), static_cast<std::int32_t>(sites_.size()));
    cold_.byte(0x48);  // LEA RCX, [RIP + disp32]
    cold_.byte(0x8d);
    cold_.byte(0x0d);
    cold_.word32(0);
    cold_.patchTo(cold_.size() - 4, a_.start() + miss.found);
    cold_.jmpTo(process_.stubAddress(executorMiss));
    sites_.push_back(miss.rip);
  }
  for (const Pool& p : pool_) {
    a_.patchTo(p.displacement, cold_.here());
    cold_.word64(p.value);
  }
}

/// Where the jump at `rel32` leads until there is code at `target`.
void ExecutorCode::exitForLink(std::uint64_t target, std::uint32_t rel32) {
  noteCold(static_cast<std::uint32_t>(links_.size()));
  cold_.storeImmediate32(4, state(EXECUTOR_INFO), static_cast<std::int32_t>(links_.size()));
  cold_.storeImmediate32(4, state(EXECUTOR_REASON), EXECUTOR_REASON_LINK);
  cold_.jmpTo(process_.stubAddress(executorExit));
  links_.push_back({target, rel32});
}

void ExecutorCode::dropPage(std::uint64_t page) {
  auto found = byPage_.find(page);
  if (found == byPage_.end()) return;
  for (std::uint64_t rip : found->second) {
    auto block = blocks_.find(rip);
    if (block == blocks_.end()) continue;
    if (!hasRoom()) return clear();
    // All that leads to a block leads to its beginning, which becomes a jump.
    std::uint32_t host = block->second;
    begin(cold_, coldUsed_);
    process_.code()[host] = kJump;
    storeLe(process_.code() + host + 1, coldUsed_ - (host + kJumpBytes));
    exitForLink(rip, host + 1);
    coldUsed_ += cold_.size();
    blocks_.erase(block);
  }
  byPage_.erase(found);
}

void ExecutorCode::jumpTo(std::uint32_t rel32, std::uint64_t target) {
  jumps_.push_back({rel32, target});
}

/// The registers are those of the start of the instruction at `rip`.
void ExecutorCode::exitForStep(std::uint64_t rip) {
  note(Kind::boundary, rip);
  a_.storeImmediate32(4, state(EXECUTOR_EXIT_RIP), static_cast<std::int32_t>(rip));
  a_.storeImmediate32(4, state(EXECUTOR_EXIT_RIP + 4), static_cast<std::int32_t>(rip >> 32));
  a_.storeImmediate32(4, state(EXECUTOR_REASON), EXECUTOR_REASON_STEP);
  a_.jmpTo(process_.stubAddress(executorExit));
}

/// Whether the host gives what the guest's processor would, memory operands included.
bool ExecutorCode::asItIs(const Instruction& i) const {
  switch (i.info->op) {
    case Op::gather:
    case Op::scatter:
    case Op::maskmov:
    case Op::vmaskmov:
    case Op::xlat:
    case Op::movs:
    case Op::cmps:
    case Op::scas:
    case Op::lods:
    case Op::stos:
      break;
    default:
      if (i.info->cls != OpClass::native || (i.info->attributes & attribute::vsib) == 0) return false;
  }
  return opcodeForFeatures(*i.info, features_) == i.info && vectorAllowed(i, block_->key);
}

/// False: the interpreter must do it.
bool ExecutorCode::emit(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  if (stepsX87_ && isX87(i)) return false;
  auto verbatim = [&] {
    if (i.memory && i.ripRelative) return relative(g);
    a_.bytes(g.bytes, i.length);
    return true;
  };
  switch (g.treatment) {
    case Treatment::generic:
      return verbatim();
    case Treatment::special:
      if (i.info->cls == OpClass::branch) return branch(g);
      if (i.info->op == Op::nop || i.info->op == Op::prefetch) return true;
      return verbatim();
    case Treatment::system:
      break;
    case Treatment::interpret:
      return asItIs(i) && verbatim();
  }
  switch (i.info->op) {
    case Op::bt:
    case Op::bts:
    case Op::btr:
    case Op::btc:
    case Op::cld:
    case Op::std:
    case Op::movs:
    case Op::cmps:
    case Op::scas:
    case Op::lods:
    case Op::stos:
    case Op::rdfsbase:
    case Op::wrfsbase:
    case Op::rdgsbase:
    case Op::wrgsbase:
      return verbatim();
    case Op::rdtsc:
    case Op::rdtscp:
      timeStamp(g);
      return true;
    default:
      return false;
  }
}

/// A load of 32 or 64 bits that overwrites a general register, so that its address may go through it.
bool ExecutorCode::loadsOver(const Instruction& i) const {
  Op op = i.info->op;
  bool loads = op == Op::movzx || op == Op::movsx || op == Op::movsxd || (op == Op::mov && i.info->form == Form::g_e);
  bool isByte = op == Op::mov && (i.info->attributes & attribute::byteForm) != 0;
  return loads && !isByte && i.operandSize >= 4 && i.reg != rsp;
}

/// A RIP-relative operand: the host's RIP is elsewhere.
bool ExecutorCode::relative(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  if (i.addressSizePrefix || i.segmentOverride != kNoSegment) return false;
  std::uint64_t rip = block_->rip(g), next = block_->nextRip(g);
  std::uint64_t address = next + static_cast<std::uint64_t>(i.displacement);
  if (i.info->op == Op::lea) {
    if (i.operandSize == 2) return false;
    a_.movImmediate(i.reg, i.operandSize == 4 ? static_cast<std::uint32_t>(address) : address);
    return true;
  }
  if (address < kHighestDisplacement) {
    a_.reencode(i, g.bytes, i.reg, Mem{.displacement = static_cast<std::int32_t>(address)}, i.vexV);
    return true;
  }
  std::uint8_t through = host::r11;
  bool over = loadsOver(i);
  if (over) {
    through = i.reg;
  } else if (isHighByte(i)) {
    through = host::rsi;  // without a REX prefix
  } else {
    while (through == (i.reg & 15) || through == (i.vexV & 15)) --through;
  }
  a_.store(8, state(EXECUTOR_SPILL0), through);
  a_.movImmediate(through, address);
  note(Kind::restore, rip, through);
  a_.reencode(i, g.bytes, i.reg, Mem{.base = through}, i.vexV);
  if (over) return true;
  note(Kind::restore, next, through);
  a_.load(8, through, state(EXECUTOR_SPILL0));
  return true;
}

/// Guest TSC = host TSC, by the guest's rate, + offset, without touching flags.
void ExecutorCode::timeStamp(const GuestInstruction& g) {
  bool withAux = g.decoded.info->op == Op::rdtscp;
  if (!withAux) a_.store(8, state(EXECUTOR_SPILL0), host::rcx);
  a_.bytes(g.bytes, g.decoded.length);
  note(Kind::between, starts_.back().rip);
  a_.rotateRight(host::rdx, host::rdx, 32);
  a_.lea(8, host::rax, Mem{.base = host::rax, .index = host::rdx});
  if (!tscScale_.isIdentity()) scaleTimeStamp(a_, tscScale_.ratio(), host::rcx);
  a_.load(8, host::rcx, state(EXECUTOR_TSC_OFFSET));
  a_.lea(8, host::rax, Mem{.base = host::rax, .index = host::rcx});
  a_.rotateRight(host::rdx, host::rax, 32);
  a_.mov(4, host::rdx, host::rdx);
  a_.mov(4, host::rax, host::rax);
  if (withAux) {
    a_.load(4, host::rcx, state(EXECUTOR_TSC_AUX));
  } else {
    a_.load(8, host::rcx, state(EXECUTOR_SPILL0));
  }
}

bool ExecutorCode::branch(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  switch (i.info->op) {
    case Op::jmp:
      jumpTo(a_.jmp(), branchTarget(*block_, g));
      return true;
    case Op::jcc:
      jumpTo(a_.jcc(static_cast<Condition>(i.opcode & 15)), branchTarget(*block_, g));
      return true;
    case Op::loop:
    case Op::loope:
    case Op::loopne:
    case Op::jcxz: {
      // Over a jump, as they have 8-bit displacements only.
      if (i.addressSize == 4) a_.byte(0x67);
      a_.byte(i.opcode);
      a_.byte(5);
      note(Kind::boundary, block_->nextRip(g));
      std::uint32_t over = a_.jmp();
      note(Kind::between, block_->rip(g));
      jumpTo(a_.jmp(), branchTarget(*block_, g));
      a_.patchHere(over);
      return true;
    }
    case Op::call:
      pushReturn(block_->nextRip(g));
      note(Kind::between, block_->rip(g));
      jumpTo(a_.jmp(), branchTarget(*block_, g));
      return true;
    case Op::jmp_indirect:
    case Op::call_indirect:
      return indirect(g);
    case Op::ret:
      ret(g);
      return true;
    default:
      return false;
  }
}

void ExecutorCode::pushReturn(std::uint64_t address) {
  successors_.push_back({address, true});
  if (address <= 0x7fff'ffff) {
    a_.byte(0x68);  // PUSH imm32
    a_.word32(static_cast<std::uint32_t>(address));
    return;
  }
  a_.byte(0xff);  // PUSH [RIP + disp32]
  a_.byte(0x35);
  pool_.push_back({a_.size(), address});
  a_.word32(0);
}

/// JMP and CALL through a register or memory.
bool ExecutorCode::indirect(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  std::uint64_t rip = block_->rip(g);
  if (i.memory && i.ripRelative && (i.addressSizePrefix || i.segmentOverride != kNoSegment)) return false;
  if (i.memory && i.addressSize != 8) return false;
  a_.store(8, state(EXECUTOR_SPILL0), host::rcx);
  if (!i.memory) {
    if (i.rm != rcx) a_.mov(8, host::rcx, i.rm);
  } else if (i.ripRelative) {
    a_.movImmediate(host::rcx, block_->nextRip(g) + static_cast<std::uint64_t>(i.displacement));
    note(Kind::restore, rip, host::rcx);
    a_.load(8, host::rcx, Mem{.base = host::rcx});
  } else {
    Mem m{.base = i.base == kNoRegister ? host::none : i.base,
          .index = i.index == kNoRegister ? host::none : i.index,
          .scale = i.scale,
          .displacement = static_cast<std::int32_t>(i.displacement)};
    if (i.segment == fs) m.segmentPrefix = kFsPrefix;
    if (i.segment == gs) m.segmentPrefix = kGsPrefix;
    a_.load(8, host::rcx, m);
  }
  note(Kind::restore, rip, host::rcx);
  lookUpRcx(rip);
  if (i.info->op == Op::call_indirect) pushReturn(block_->nextRip(g));
  jumpToTarget();
  return true;
}

void ExecutorCode::ret(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  std::uint64_t rip = block_->rip(g);
  auto moves = static_cast<std::int32_t>(8 + (i.info->form == Form::i ? i.immediate & 0xffff : 0));
  a_.store(8, state(EXECUTOR_SPILL0), host::rcx);
  a_.load(8, host::rcx, Mem{.base = host::rsp});
  note(Kind::restore, rip, host::rcx);
  lookUpRcx(rip);
  a_.lea(8, host::rsp, Mem{.base = host::rsp, .displacement = moves});
  jumpToTarget();
}

/// The word of the state for jumpToTarget() = the host address of the code at the guest address in RCX, whose own value
/// is in the first spill word. Keeps flags and registers. Where the table does not have it the instruction at `rip`
/// begins again once it does.
void ExecutorCode::lookUpRcx(std::uint64_t rip) {
  a_.store(8, state(EXECUTOR_SPILL1), host::rdx);
  a_.store(8, state(EXECUTOR_SPILL2), host::rax);
  note(Kind::restore3, rip);
  a_.loadZeroExtend16(host::rdx, host::rcx);
  a_.lea(8, host::rdx, Mem{.base = host::rdx, .index = host::rdx});
  a_.lea(8, host::rax, state(EXECUTOR_TABLE));
  a_.lea(8, host::rdx, Mem{.base = host::rax, .index = host::rdx, .scale = 8});
  a_.load(8, host::rax, Mem{.base = host::rdx});
  a_.lea(8, host::rax, Mem{.base = host::rax, .index = host::rcx});
  a_.legacy(8, 0, kXchg, host::rax, host::rcx);
  a_.byte(kJrcxz);
  a_.byte(kJumpBytes);
  std::uint32_t miss = a_.jmp();
  a_.load(8, host::rdx, Mem{.base = host::rdx, .displacement = 8});
  a_.store(8, state(EXECUTOR_TARGET), host::rdx);
  a_.load(8, host::rcx, state(EXECUTOR_SPILL0));
  a_.load(8, host::rdx, state(EXECUTOR_SPILL1));
  a_.load(8, host::rax, state(EXECUTOR_SPILL2));
  misses_.push_back({miss, a_.size(), rip});
  note(Kind::boundary, rip);
}

void ExecutorCode::jumpToTarget() {
  note(Kind::between, starts_.back().rip);
  a_.legacy(4, 0, kGroup5, kJumpThrough, state(EXECUTOR_TARGET));
}

}  // namespace lodge::translate
