// SPDX-License-Identifier: Apache-2.0
// The loop of a vCPU: events, then translated code until it comes back, then what it wanted.
#include <utility>

#include "engine/interpret/interpreter.h"
#include "engine/translate/executor.h"
#include "engine/translate/lockstep.h"
#include "engine/translate/signals.h"
#include "engine/translate/trampolines.h"
#include "engine/translate/vcpu.h"
#include "x86/system.h"
#include "x86/tlb.h"
#include "x86/virtual_memory.h"

namespace lodge::translate {

using namespace x86;

namespace {
constexpr std::uint64_t kInterpreterSlice = 2000;

/// RF only holds off instruction breakpoints; without any, it need not wait for the next instruction to end.
void dropResumeFlag(Cpu& cpu) {
  if ((cpu.state.dr[7] & 0xff) == 0) cpu.state.rflags &= ~flag::rf;
}
}  // namespace

ModeKey VcpuContext::modeNow() const {
  ModeKey key = modeKey(*cpu);
  if (lockstep) key.bits &= ~ModeKey::timeStamp;
  return key;
}

void VcpuContext::step() {
  ++counters.steps;
  if (countOps) {
    std::uint8_t bytes[15];
    Instruction i;
    unsigned n = fetchInstruction(*cpu, bytes);
    CodeSize size = cpu->mode64()                  ? CodeSize::bits64
                    : cpu->state.segment[cs].big() ? CodeSize::bits32
                                                   : CodeSize::bits16;
    if (n != 0 && decode(bytes, n, size, i) == DecodeStatus::ok) {
      SteppedOp& op = steppedOps[static_cast<std::size_t>(i.info->op)];
      ++op.count;
      op.mnemonic = i.info->mnemonic;
    }
    cpu->exception.valid = false;
  }
  WorkMark mark(*cpu, Work::interpretation);
  bool isUser = cpu->state.cpl == 3;
  interpret::step(*cpu);
  if (isUser && cpu->state.cpl != 3) ++userFaults;
}

/// Whether the instruction at `rip`, which goes on in the next page, should be translated from now on.
bool VcpuContext::wantsJoin(std::uint64_t rip) {
  if (key().mode() == ExecMode::kernelAc) return false;
  const PageUnit* unit = knownUnit(rip);
  return unit && TranslationStore::mayJoin(*unit, knownUnit(key().wrap((rip | kPageMask) + 1)));
}

void TranslateVcpu::joinPages() {
  std::uint64_t rip = std::exchange(context_.joinAt, kNowhere);
  PageUnit* unit = context_.knownUnit(rip);
  if (!unit || unit->key != context_.frame->key || context_.store->needsReset()) return;
  if (PageUnit* next = findUnit(context_.key().wrap((rip | kPageMask) + 1))) {
    context_.cpu->parkFpu();
    context_.store->join(*unit, *next);
  } else {
    ++unit->joins;
  }
}

PageUnit* TranslateVcpu::findUnit(std::uint64_t rip) {
  Cpu& cpu = *context_.cpu;
  PageUnit* unit = context_.knownUnit(rip);
  if (unit && unit->covers(rip) && unit->key == context_.frame->key) return unit;
  PageTranslation page;
  CodeMap* map = context_.spaces->code(context_.key().mode());
  if (!isCanonical(rip, kLinearBits) || (map && !map->covers(rip))) return nullptr;
  if (!x86::translate(cpu, rip, Access::execute, Privilege::current, page)) {
    cpu.exception.valid = false;
    return nullptr;
  }
  std::uint64_t offset = cpu.offsetOf(Gpa{page.gpa & ~kPageMask});
  if (offset == GuestMemory::kNoOffset) return nullptr;
  cpu.parkFpu();
  unit = context_.store->unitFor(offset >> 12, rip & ~kPageMask, context_.key());
  if (!unit) return nullptr;
  if (map) {
    bool isKernels = (rip >> 63) != 0 || (!cpu.longMode() && cpu.state.cpl == 0);
    map->insert(rip, reinterpret_cast<std::uint64_t>(unit->entryTable), page.global && isKernels, page.pageSize);
    if (page.global && !isKernels) context_.spaces->noteLowGlobal();
  } else {
    context_.acPage(rip) = {rip & ~kPageMask, unit};
  }
  return unit;
}

std::uint64_t TranslateVcpu::lookUp() {
  std::uint64_t rip = context_.cpu->state.rip;
  PageUnit* unit = findUnit(rip);
  if (!unit) return 0;
  if (std::uint64_t host = context_.store->knownEntry(*unit, rip & kPageMask)) return host;
  context_.cpu->parkFpu();
  WorkMark mark(*context_.cpu, Work::translation);
  return context_.store->entryFor(*unit, rip & kPageMask, true).host;
}

/// Whatever translated 32-bit code takes for granted beside the key.
void VcpuContext::prepare32() {
  CpuState& state = cpu->state;
  for (unsigned r = 0; r < 8; ++r) state.gpr[r] &= 0xffff'ffff;
  frame->segmentGuard[0] = segmentGuard(state.segment[fs]);
  frame->segmentGuard[1] = segmentGuard(state.segment[gs]);
}

void VcpuContext::setKey(ModeKey key) {
  if (!key.has(ModeKey::code64)) prepare32();
  if (((key.bits ^ frame->key) & ModeKey::shared) != 0) frame->kernelKey = frame->userKey = 0;
  frame->key = key.bits;
  // Every map holds code for one key.
  std::uint32_t& known = mapKey[static_cast<std::size_t>(key.mode())];
  if (known != key.bits) {
    if (known != 0) dropCode();
    known = key.bits;
  }
  if (key.has(ModeKey::user)) {
    if (spaces->current().supervisorCount != 0) spaces->dropSupervisorPages();
    // SYSRET inline leaves IOPL 0 behind.
    bool isDirect = key.has(ModeKey::code64) && !key.has(ModeKey::portIo | ModeKey::accessCheck);
    frame->userKey = isDirect && !(executors && executors->isActive()) ? key.bits : 0;
  } else if (key.has(ModeKey::code64) && !key.has(ModeKey::accessCheck)) {
    frame->kernelKey = key.bits;
  }
}

std::uint64_t VcpuContext::resume(std::uint64_t next, std::uint64_t invalidationsBefore) {
  CpuState& state = cpu->state;
  if (state.activity != Activity::running || cpu->events.load(std::memory_order_relaxed) != 0) return 0;
  if (store->needsReset() || generation != store->generation()) return 0;
  dropResumeFlag(*cpu);
  ModeKey now = modeNow();
  if (!now.has(ModeKey::translatable)) return 0;
  if (now.has(ModeKey::user) && executors && executors->isActive()) return 0;
  if (!now.has(ModeKey::code64)) prepare32();
  bool same = now.bits == key().bits && !codeDropped && store->invalidations() == invalidationsBefore;
  std::uint64_t host = 1;
  if (state.rip != next || !same) {
    setKey(now);
    PageUnit* unit = knownUnit(state.rip);
    if (!unit || !unit->covers(state.rip) || unit->key != now.bits) return 0;
    host = store->knownEntry(*unit, state.rip & kPageMask);
    if (host == 0) return 0;
    frame->page = state.rip >> 12;
  }
  checkReturns();
  if (!cpu->fpuLive) cpu->unparkFpu();
  return host;
}

void TranslateVcpu::enter(std::uint64_t host) {
  Cpu& cpu = *context_.cpu;
  if (context_.lockstep) context_.lockstep->begin();
  if (!cpu.fpuLive) cpu.unparkFpu();
  context_.frame->page = cpu.state.rip >> 12;
  context_.checkReturns();
  if (context_.onHostStep) setTrapFlag(true);
  std::uint32_t reason = lodgeEnterCache(&cpu.state, reinterpret_cast<const void*>(host));
  if (context_.onHostStep) setTrapFlag(false);
  ++context_.counters.exits[reason];
  bool mustStep = handleExit(static_cast<ExitReason>(reason));
  if (context_.lockstep) {
    mustStep = mustStep || context_.stepPending;
    context_.stepPending = false;
    context_.lockstep->check(static_cast<ExitReason>(reason));
  }
  if (mustStep) context_.step();
}

/// True: the instruction at state.rip must be interpreted.
bool TranslateVcpu::handleExit(ExitReason reason) {
  Cpu& cpu = *context_.cpu;
  const Frame& frame = *context_.frame;
  switch (reason) {
    case ExitReason::attention:
    case ExitReason::dispatch:
      return false;
    case ExitReason::indirect:
      cpu.state.rip = frame.target;
      return false;
    case ExitReason::link: {
      cpu.parkFpu();
      WorkMark mark(cpu, Work::translation);
      nextHost_ = context_.store->follow(frame.exitAddress, frame.page, cpu.state.rip).host;
      return false;
    }
    case ExitReason::redo:
    case ExitReason::step: {
      TranslationStore::Place place;
      context_.store->locate(frame.exitAddress - 1, place);
      repairState(cpu.state, frame, place);
      return reason == ExitReason::step;
    }
    case ExitReason::misaligned: {
      context_.frame->misaligned = Frame::kMisaligned;
      TranslationStore::Place place;
      context_.store->locate(frame.exitAddress - 1, place);
      repairState(cpu.state, frame, place);
      cpu.parkFpu();
      context_.store->noteMisaligned(place);
      return false;
    }
    case ExitReason::fault:
      return true;
  }
  return false;
}

/// True: it ran user code, or what that wanted.
bool TranslateVcpu::runExecutor() {
  Executor* executor = executors_ && !context_.onHostStep ? executors_->current() : nullptr;
  if (!executor) return false;
  nextHost_ = 0;
  context_.joinAt = kNowhere;
  Executor::End end = executor->run();
  executors_->noteRun(*executor, end);
  return end == Executor::End::done || end == Executor::End::dead;
}

/// One round between two looks at events. `inside` is set by the caller.
void TranslateVcpu::executeSome() {
  Cpu& cpu = *context_.cpu;
  if (context_.generation != context_.store->generation()) {
    context_.generation = context_.store->generation();
    context_.dropCode();
    context_.spaces->releaseMemory();
    nextHost_ = 0;
  }
  if (executors_) executors_->look();
  if (runExecutor()) return;
  dropResumeFlag(cpu);
  ModeKey key = context_.modeNow();
  if (!key.has(ModeKey::translatable)) {
    nextHost_ = 0;
    WorkMark mark(cpu, Work::interpretation);
    // An interrupt shadow ends with the next instruction.
    context_.counters.interpreted += interpret::run(cpu, cpu.state.interruptShadow != 0 ? 1 : kInterpreterSlice);
    return;
  }
  context_.setKey(key);
  if (context_.joinAt != kNowhere) joinPages();
  std::uint64_t host = nextHost_;
  nextHost_ = 0;
  if (host == 0) host = lookUp();
  if (host != 0) {
    enter(host);
  } else if (!context_.store->needsReset()) {
    context_.step();
  }
}

VcpuExit TranslateVcpu::run() {
  Cpu& cpu = *context_.cpu;
  setCurrentContext(&context_);
  context_.spaces->loadGsBase();
  while (true) {
    context_.frame->attention = 0;
    context_.inside.exchange(1, std::memory_order_seq_cst);
    if (context_.store->needsReset()) {
      context_.inside.store(0, std::memory_order_seq_cst);
      nextHost_ = 0;
      cpu.parkFpu();
      context_.store->helpReset();
      continue;
    }
    bool eventful = cpu.events.load(std::memory_order_seq_cst) != 0 || cpu.state.activity != Activity::running;
    if (eventful) {
      nextHost_ = 0;
      if (context_.executors) context_.executors->noteEvent();
      if (!handleEvents(cpu)) break;
    }
    executeSome();
  }
  cpu.parkFpu();
  context_.inside.store(0, std::memory_order_seq_cst);
  nextHost_ = 0;
  setCurrentContext(nullptr);
  if ((cpu.events.load(std::memory_order_seq_cst) & event::stop) != 0) return VcpuExit::stopped;
  return cpu.state.activity == Activity::shutdown ? VcpuExit::shutdown : VcpuExit::halted;
}

void TranslateVcpu::runOnce() {
  setCurrentContext(&context_);
  context_.spaces->loadGsBase();
  context_.frame->attention = 0;
  context_.inside.exchange(1, std::memory_order_seq_cst);
  executeSome();
  context_.cpu->parkFpu();
  context_.inside.store(0, std::memory_order_seq_cst);
  setCurrentContext(nullptr);
}

}  // namespace lodge::translate
