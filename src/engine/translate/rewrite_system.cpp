// SPDX-License-Identifier: Apache-2.0
// System instructions that kernels execute all the time, without leaving translated code (docs/translator.md, System
// instructions). What is out of the ordinary goes to the interpreter from a cold path.
#include "engine/translate/frame_layout.h"
#include "engine/translate/rewriter.h"
#include "engine/translate/time_stamp.h"

namespace lodge::translate {

namespace {
using namespace x86;

constexpr auto kHostFlags = static_cast<std::int32_t>(HOST_FLAGS);
constexpr auto kInterruptFlag = static_cast<std::int32_t>(flag::if_);
constexpr auto kDirectionFlag = static_cast<std::int32_t>(flag::df);
constexpr auto kAccessFlag = static_cast<std::int32_t>(flag::ac);
// Numbers of ALU operations in opcode groups 80-83 and opcodes 00-3F.
constexpr unsigned kOr = 1, kAnd = 4, kXor = 6, kCmp = 7;

/// From the image's low word in AX: ROL AX,8; AND AL,8; ADD AL,78; SAHF.
constexpr std::array<std::uint8_t, 9> kFlagsFromImage = {0x66, 0xc1, 0xc0, 0x08, 0x24, 0x08, 0x04, 0x78, 0x9e};

Mem flagsInState() {
  return atState(STATE_RFLAGS);
}
Mem segmentBaseOf(unsigned segment) {
  return atState(static_cast<std::int32_t>(offsetof(CpuState, segment) + segment * sizeof(SegmentRegister) +
                                           offsetof(SegmentRegister, base)));
}
}  // namespace

bool Rewriter::system(const GuestInstruction& g) {
  switch (g.decoded.info->op) {
    case Op::pushf:
      return pushFlags(g);
    case Op::popf:
      return popFlags(g);
    case Op::cli:
      return changeFlag(kInterruptFlag, false);
    case Op::cld:
    case Op::std:
      return changeFlag(kDirectionFlag, g.decoded.info->op == Op::std);
    case Op::bt:
    case Op::bts:
    case Op::btr:
    case Op::btc:
      return bitString(g);
    case Op::movsreg_from:
      return readSelector(g);
    case Op::sti:
      return enableInterrupts(g);
    case Op::stac:
    case Op::clac:
      return changeAccessCheck(g);
    case Op::swapgs:
      return swapGs();
    case Op::rdtsc:
    case Op::rdtscp:
      return readTimeStamp(g);
    case Op::rdfsbase:
    case Op::rdgsbase:
    case Op::wrfsbase:
    case Op::wrgsbase:
      return accessSegmentBase(g);
    case Op::syscall:
    case Op::sysret:
      return systemCall(g);
    case Op::stos:
    case Op::movs:
    case Op::lods:
    case Op::scas:
    case Op::cmps:
      return g.decoded.repeat != 0 ? repeatedString(g) : singleString(g);
    default:
      return false;
  }
}

/// After saveFlags(), on a cold path.
void Rewriter::restoreFlagsCold() {
  recordCold(RecordKind::committing, current_->offset);
  cold_.arithmeticImmediate(1, 0, host::rax, 0x7f);
  cold_.sahf();
  cold_.load(8, host::rax, atState(FRAME_SAVED_RAX));
  recordCold(RecordKind::instruction, current_->offset);
}

bool Rewriter::pushFlags(const GuestInstruction& g) {
  Mem to = stackOperand(-static_cast<std::int32_t>(word()), true);
  hot_.lea(8, host::address, to);
  // The host's PUSHF writes below CpuState; what it takes from the guest is its arithmetic flags.
  hot_.byte(0x9c);
  hot_.byte(0x41);  // POP r13
  hot_.byte(0x5d);
  // Dead afterwards or not: if the store faults, the instruction begins again, and needs them.
  saveFlags();
  hot_.arithmeticImmediate(4, kAnd, host::addend, kHostFlags);
  hot_.load(8, host::group, flagsInState());
  hot_.arithmeticImmediate(8, kAnd, host::group, static_cast<std::int32_t>(~(HOST_FLAGS | flag::rf | flag::vm)));
  hot_.arithmetic(8, kOr, host::addend, host::group);
  hot_.store(word(), Mem{.base = host::address}, host::addend);
  committing();
  if (g.liveOut != 0) {
    hot_.arithmeticImmediate(1, 0, host::rax, 0x7f);
    hot_.sahf();
  }
  hot_.load(8, host::rax, atState(FRAME_SAVED_RAX));
  finishPush();
  return true;
}

/// Only IF (at CPL 0) and the arithmetic flags may change here.
bool Rewriter::popFlags(const GuestInstruction& g) {
  if (groupActive()) return false;
  hot_.load(word(), host::addend, stackOperand(0, false));
  bool kernel = !key().has(ModeKey::user);
  auto ignored = kHostFlags | (kernel ? kInterruptFlag : 0);
  committing();  // nothing yet, but the arithmetic flags are lost from here on
  hot_.mov(8, host::group, host::addend);
  hot_.arithmetic(8, kXor, host::group, flagsInState());
  hot_.testImmediate32(host::group, ~static_cast<std::uint32_t>(ignored) & 0x3fffff);
  std::uint64_t slow = cold_.here();
  hot_.patchTo(hot_.jcc(ccNe), slow);
  recordCold(RecordKind::committing, g.offset);
  callStep(cold_, g);
  recordCold(RecordKind::instruction, g.offset + g.decoded.length);  // done
  std::uint32_t back = cold_.jmp();
  if (kernel) {
    // IF from 0 to 1 with something waiting.
    hot_.arithmetic(4, kAnd, host::group, host::addend);
    hot_.testImmediate32(host::group, static_cast<std::uint32_t>(kInterruptFlag));
    std::uint32_t same = hot_.jcc(ccE);
    hot_.load(4, host::group, atState(CPU_EVENTS));
    hot_.arithmetic(4, kOr, host::group, atState(CPU_DEFERRED));
    hot_.patchTo(hot_.jcc(ccNe), slow);
    hot_.patchHere(same);
  }
  // All other bits are as they were.
  hot_.store(2, flagsInState(), host::addend);
  if (g.liveOut != 0) {
    hot_.store(8, atState(FRAME_SAVED_RAX), host::rax);
    hot_.mov(4, host::rax, host::addend);
    hot_.bytes(kFlagsFromImage.data(), kFlagsFromImage.size());
    hot_.load(8, host::rax, atState(FRAME_SAVED_RAX));
  }
  moveStackPointer(static_cast<std::int32_t>(word()));
  cold_.patchTo(back, hot_.here());
  return true;
}

/// One that lives in state.
bool Rewriter::changeFlag(std::int32_t flag, bool value) {
  bool keepFlags = !flagsDead();
  if (keepFlags) saveFlags();
  hot_.arithmeticImmediate(4, value ? kOr : kAnd, flagsInState(), value ? flag : ~flag);
  if (keepFlags) restoreFlags();
  return true;
}

/// Nothing can be waiting behind a clear IF here, or the interpreter does it. What comes right after STI must not be
/// interrupted: stiRip tells (signals.cpp).
bool Rewriter::enableInterrupts(const GuestInstruction& g) {
  bool keepFlags = !flagsDead();
  if (keepFlags) saveFlags();
  hot_.load(4, host::addend, atState(CPU_EVENTS));
  hot_.arithmetic(4, kOr, host::addend, atState(CPU_DEFERRED));
  hot_.patchTo(hot_.jcc(ccNe), cold_.here());
  recordCold(keepFlags ? RecordKind::flagsSaved : RecordKind::instruction, g.offset);
  if (keepFlags) restoreFlagsCold();
  callStep(cold_, g);
  recordCold(RecordKind::instruction, g.offset + g.decoded.length);  // done
  std::uint32_t back = cold_.jmp();
  hot_.movImmediate(host::addend, block_.nextRip(g));
  hot_.store(8, atState(FRAME_STI_RIP), host::addend);
  committing();
  hot_.arithmeticImmediate(4, kOr, flagsInState(), kInterruptFlag);
  if (keepFlags) {
    hot_.arithmeticImmediate(1, 0, host::rax, 0x7f);
    hot_.sahf();
    hot_.load(8, host::rax, atState(FRAME_SAVED_RAX));
  }
  cold_.patchTo(back, hot_.here());
  return true;
}

/// AC is known from the block's key, so that it can be added and subtracted. The block ends: the code that follows is
/// translated under the other key.
bool Rewriter::changeAccessCheck(const GuestInstruction& g) {
  if (!g.changesKey) return true;
  bool set = g.decoded.info->op == Op::stac;
  std::uint32_t newKey = block_.key.bits ^ (ModeKey::accessCheck | ModeKey::kernelTable);
  hot_.load(8, host::addend, flagsInState());
  hot_.lea(8, host::addend, Mem{.base = host::addend, .displacement = set ? kAccessFlag : -kAccessFlag});
  hot_.store(8, flagsInState(), host::addend);
  committing();
  hot_.storeImmediate32(4, atState(FRAME_KEY), static_cast<std::int32_t>(newKey));
  std::uint64_t next = block_.nextRip(g);
  std::uint64_t offset = next - block_.page;
  if (offset >= kPageSize) {
    hot_.movImmediate(host::addend, next);
    record(RecordKind::dynamic, 0);
    hot_.jmpTo(thunks_.indirectMiss);
    return true;
  }
  hot_.keepTogether(1, 4);
  record(RecordKind::instruction, static_cast<unsigned>(offset));
  std::uint32_t at = hot_.jmp();
  std::uint64_t stub = linkStub(static_cast<unsigned>(offset));
  hot_.patchTo(at, stub);
  addLink(hot_.start() + at, stub, static_cast<unsigned>(offset), false, newKey);
  return true;
}

bool Rewriter::swapGs() {
  Mem kernelBase = atState(static_cast<std::int32_t>(offsetof(CpuState, kernelGsBase)));
  hot_.load(8, host::address, segmentBaseOf(gs));
  hot_.load(8, host::addend, kernelBase);
  hot_.store(8, segmentBaseOf(gs), host::addend);
  committing();
  hot_.store(8, kernelBase, host::address);
  return true;
}

/// Guest TSC = host TSC, by the guest's rate, + tscOffset, without touching flags.
bool Rewriter::readTimeStamp(const GuestInstruction& g) {
  if (!host_.bmi2) return false;
  constexpr unsigned kShlx = 1, kShrx = 3;  // VEX.pp of 0F38 F7
  verbatim();
  committing();
  hot_.movImmediate(host::addend, 32);
  hot_.vex(kShlx, 2, true, 0, 0xf7, host::address, host::addend, host::rdx);
  hot_.lea(8, host::rax, Mem{.base = host::rax, .index = host::address});
  if (host_.tscRatio != x86::TscScale::kOne) scaleTimeStamp(hot_, host_.tscRatio, host::addend);
  hot_.load(8, host::address, atState(static_cast<std::int32_t>(offsetof(CpuState, tscOffset))));
  hot_.lea(8, host::rax, Mem{.base = host::rax, .index = host::address});
  if (host_.tscRatio != x86::TscScale::kOne) hot_.movImmediate(host::addend, 32);
  hot_.vex(kShrx, 2, true, 0, 0xf7, host::rdx, host::addend, host::rax);
  hot_.mov(4, host::rax, host::rax);
  if (g.decoded.info->op == Op::rdtscp) {
    hot_.load(4, host::rcx, atState(static_cast<std::int32_t>(offsetof(CpuState, tscAux))));
  }
  return true;
}

/// BT and friends on memory with a register bit offset, which reaches beyond the operand: finds the word first. Touches
/// no flags before the instruction itself.
bool Rewriter::bitString(const GuestInstruction& g) {
  if (!host_.bmi2) return false;
  constexpr unsigned kShlx = 1, kSarx = 2, kShrx = 3;  // VEX.pp of 0F38 F7
  constexpr std::uint8_t kMovsxd = 0x63;
  const Instruction& i = g.decoded;
  bool quad = i.operandSize == 8;
  RegMem offset = isSpilled(i.reg) ? RegMem(slot(i.reg)) : RegMem(hostOf(i.reg));
  std::uint8_t a = address(i);
  if (quad) {
    hot_.legacy(8, 0, 0x8b, host::group, offset);
  } else {
    hot_.legacy(8, 0, kMovsxd, host::group, offset);
  }
  hot_.movImmediate(host::addend, quad ? 6 : 5);
  hot_.vex(kSarx, 2, true, 0, 0xf7, host::group, host::addend, host::group);
  hot_.lea(word(), host::address,
           Mem{.base = a, .index = host::group, .scale = static_cast<std::uint8_t>(i.operandSize)});
  guardSegment(i);
  Mem word = probe(host::address, {i.operandSize, i.info->op != Op::bt, false});
  hot_.lea(8, host::address, word);
  hot_.movImmediate(host::addend, quad ? 58 : 59);
  hot_.vex(kShlx, 2, true, 0, 0xf7, host::group, host::addend, offset);
  hot_.vex(kShrx, 2, true, 0, 0xf7, host::group, host::addend, host::group);
  reencode(Mem{.base = host::address}, host::group, 0);
  return true;
}

/// MOV r, Sreg.
bool Rewriter::readSelector(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  // REX.R is ignored.
  Mem selector = atState(static_cast<std::int32_t>(offsetof(CpuState, segment) + (i.reg & 7) * sizeof(SegmentRegister) +
                                                   offsetof(SegmentRegister, selector)));
  std::uint8_t to = isSpilled(i.rm) ? host::addend : hostOf(i.rm);
  unsigned width = i.operandSize == 2 ? 2 : 8;
  if (width == 2) {
    hot_.load(2, to, selector);
  } else {
    hot_.loadZeroExtend16(to, selector);
  }
  if (isSpilled(i.rm)) hot_.store(width, slot(i.rm), to);
  return true;
}

bool Rewriter::accessSegmentBase(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  Op op = i.info->op;
  Mem base = segmentBaseOf(op == Op::rdfsbase || op == Op::wrfsbase ? fs : gs);
  unsigned width = i.operandSize == 8 ? 8 : 4;
  if (op == Op::rdfsbase || op == Op::rdgsbase) {
    std::uint8_t to = isSpilled(i.rm) ? host::addend : hostOf(i.rm);
    hot_.load(width, to, base);
    if (isSpilled(i.rm)) hot_.store(8, slot(i.rm), to);
    return true;
  }
  if (isSpilled(i.rm)) {
    hot_.load(width, host::address, slot(i.rm));
  } else {
    hot_.mov(width, host::address, hostOf(i.rm));
  }
  if (width == 8) {
    // #GP unless canonical.
    bool keepFlags = !flagsDead();
    if (keepFlags) saveFlags();
    hot_.mov(8, host::addend, host::address);
    hot_.shiftLeft(8, host::addend, 16);
    hot_.legacy(8, 0, 0xc1, 7, host::addend);  // SAR
    hot_.byte(16);
    hot_.arithmetic(8, kCmp, host::addend, host::address);
    hot_.patchTo(hot_.jcc(ccNe), cold_.here());
    recordCold(keepFlags ? RecordKind::flagsSaved : RecordKind::instruction, g.offset);
    if (keepFlags) restoreFlagsCold();
    callStep(cold_, g);
    // A base that is not canonical never goes on here.
    cold_.callTo(thunks_.exitStep);
    if (keepFlags) restoreFlags();
  }
  hot_.store(8, base, host::address);
  return true;
}

/// SYSCALL from user to kernel code, SYSRET the other way.
bool Rewriter::systemCall(const GuestInstruction& g) {
  bool isReturn = g.decoded.info->op == Op::sysret;
  movLinear(hot_, host::group, block_.rip(g));
  movLinear(hot_, host::addend, block_.nextRip(g));
  hot_.callTo(isReturn ? thunks_.sysret : thunks_.syscall);
  record(RecordKind::dynamic, 0);
  if (!host_.bmi2) {
    hot_.jmpTo(thunks_.indirectMiss);
    return true;
  }
  lookUpTarget(hot_, isReturn ? ExecMode::user64 : ExecMode::kernel);
  if (isReturn && host_.sharing) {
    hot_.pext(host::address, host::addend, atState(FRAME_MASK_LOW));
    hot_.store(8, atState(FRAME_PAGE), host::address);
  }
  hot_.jmpIndirect(host::group);
  return true;
}

}  // namespace lodge::translate
