// SPDX-License-Identifier: Apache-2.0
// Why an executor stopped, and what is done about it.
#include <x86intrin.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "engine/translate/executor.h"
#include "engine/translate/vcpu_context.h"
#include "x86/cpu_model.h"
#include "x86/system.h"
#include "x86/virtual_memory.h"

namespace lodge::translate {

using namespace x86;
using Place = ExecutorCode::Place;

namespace {
constexpr std::uint64_t kDebugTrap = 1, kPageFaultTrap = 14, kWriteError = 2, kFetchError = 16;
constexpr std::uint64_t kCallBytes = 2;  // SYSCALL, INT 80
constexpr std::uint8_t kInt3 = 0xcc, kInt1 = 0xf1;
}  // namespace

void Executor::step() {
  ++counters_.steps;
  context_.step();
  context_.cpu->parkFpu();
}

Executor::Stop Executor::handleFault(const Place& place) {
  Cpu& cpu = *context_.cpu;
  const ExecutorState& e = process_->state();
  bool isPageFault = e.signal == SIGSEGV && e.trap == kPageFaultTrap;
  std::uint64_t fault = e.hostPc ^ e.faultAddress << 1;
  bool write = (e.errorCode & kWriteError) != 0;
  cpu.state.rip = place.rip;
  // Both pages must be there before either is marked as used.
  bool crosses = isPageFault && mayCross(e.faultAddress);
  // The same once more: the host has another reason.
  if (isPageFault && !crosses && fault != lastFault_ && memory_.fill(cpu, e.faultAddress, write)) {
    lastFault_ = fault;
    ++counters_.fills;
    return Stop::goOn;
  }
  lastFault_ = ~std::uint64_t{0};
  ++counters_.faults;
  if (isPageFault) ++faults_;
  std::uint64_t linear = e.faultAddress;
  guestFault_ = {place.rip, linear, write, isPageFault, false};
  step();
  if (isPageFault && cpu.state.cpl != 3) noteGuestsFault();
  if (cpu.state.cpl == 3) {
    guestFault_ = {};
    for (std::uint64_t page : {linear, (linear | kPageMask) + 1}) {
      PageLook look{};
      bool used = crosses && page >> 47 == 0 && lookAtPage(cpu, page, look) && look.accessed && (!write || look.dirty);
      if (used) memory_.fill(cpu, page, write);
    }
  }
  return Stop::leave;
}

/// Faults so close to each other (microseconds) are better answered where they cost a third.
void Executor::noteGuestsFault() {
  constexpr std::uint64_t kApart = 25, kMicro = 1'000'000;
  std::uint64_t now = __rdtsc(), passed = now - std::exchange(burstAt_, now);
  burst_ = passed < context_.cpu->model->ticksPerSecond() / kMicro * kApart ? burst_ + 1 : 0;
}

/// New memory that is read before it is written takes two page faults of the guest's (a page of zeroes, then one of its
/// own), and so does a page of a file that is copied: the interpreter does what comes next, and the executor need not
/// be shown the first page, and stop once more. Whether it did something.
bool Executor::goOnAfterRead() {
  constexpr unsigned kFurther = 8;  // instructions
  Cpu& cpu = *context_.cpu;
  GuestFault fault = guestFault_;
  PageLook look{};
  if (!fault.valid || fault.write || fault.wentOn || fault.rip != cpu.state.rip || fault.linear >> 47 != 0)
    return false;
  if (!lookAtPage(cpu, fault.linear, look) || !look.accessed || look.writable) return false;
  constexpr std::uint64_t kNone = std::uint64_t{1} << 63;  // no address of a page fault
  const std::uint64_t before = cpu.state.cr2;
  bool goesOn = true, faulted = false;
  for (unsigned n = 0; n < kFurther && goesOn; ++n) {
    guestFault_.rip = cpu.state.rip;
    cpu.state.cr2 = kNone;
    step();
    faulted = cpu.state.cr2 != kNone;
    if (!faulted) cpu.state.cr2 = before;
    goesOn = !faulted && cpu.state.cpl == 3 && context_.frame->attention == 0 &&
             cpu.state.activity == Activity::running && cpu.state.interruptShadow == 0 &&
             (cpu.state.rflags & flag::tf) == 0;
  }
  if (!faulted) {
    guestFault_.rip = cpu.state.rip;  // it is still only read
    guestFault_.wentOn = true;
  } else {
    bool isSame = (cpu.state.cr2 & ~kPageMask) == (fault.linear & ~kPageMask);
    guestFault_ = {guestFault_.rip, cpu.state.cr2, isSame, true, false};
    if (isSame) ++counters_.pairs;
    noteGuestsFault();
  }
  return true;
}

/// The guest's kernel may have made what its program faulted for: the executor would fault for it once more.
void Executor::fillAfterFault() {
  const GuestFault fault = std::exchange(guestFault_, {});
  PageLook look{};
  if (!fault.valid || fault.rip != context_.cpu->state.rip || fault.linear >> 47 != 0) return;
  if (lookAtPage(*context_.cpu, fault.linear, look) && look.accessed && (!fault.write || (look.writable && look.dirty)))
    memory_.fill(*context_.cpu, fault.linear, fault.write);
}

/// Whether the access of the instruction at state.rip that begins at `linear` may go on in the next page.
bool Executor::mayCross(std::uint64_t linear) const {
  constexpr unsigned kLongest = 64, kWord = 8;
  Cpu& cpu = *context_.cpu;
  std::uint64_t left = kPageSize - (linear & kPageMask);
  if (left >= kLongest) return false;
  std::uint8_t bytes[kMaxInstructionLength];
  Instruction i;
  unsigned count = fetchInstruction(cpu, bytes);
  if (count == 0) cpu.exception.valid = false;
  if (count == 0 || decode(bytes, count, CodeSize::bits64, i) != DecodeStatus::ok) return true;
  unsigned most = std::max<unsigned>(memoryOperand(i).bytes, kWord);
  return most > left;
}

/// Stop::goOn: where it was.
Executor::Stop Executor::handleSignal() {
  CpuState& s = context_.cpu->state;
  const ExecutorState& e = process_->state();
  if (!process_->covers(e.hostPc)) return handleNative();
  Place place{};
  bool known = code_.locate(e.hostPc, place);
  constexpr unsigned kMostSteps = 64;  // guest code can write where it goes on, and would go on so for ever
  unsigned steps = 0;
  while (known && place.kind == Place::Kind::between && (e.signal == SIGUSR1 || e.signal == SIGTRAP)) {
    // A few more host instructions end the guest's. They do not fault.
    ++counters_.singleSteps;
    if (++steps > kMostSteps) return Stop::dead;
    ExecutorState& state = process_->state();
    state.flags |= flag::tf;
    state.kicked = 0;
    state.reason = EXECUTOR_REASON_ABORTED;
    if (!process_->run()) return Stop::dead;
    stepping_ = true;
    takeRegisters();
    stepping_ = false;
    if (state.reason == EXECUTOR_REASON_ABORTED) continue;  // a late kick: nothing has changed
    if (native_ && state.reason == EXECUTOR_REASON_SIGNAL && !process_->covers(e.hostPc)) {
      place = {e.hostPc, Place::Kind::boundary, 0};  // in code that runs as it is
      break;
    }
    if (state.reason != EXECUTOR_REASON_SIGNAL) return handleStop();
    known = code_.locate(e.hostPc, place);
  }
  if (!known || place.kind == Place::Kind::between) return Stop::dead;
  if (place.kind == Place::Kind::restore) s.gpr[place.reg & 15] = e.spill[0];
  if (place.kind == Place::Kind::restore3) {
    s.gpr[rcx] = e.spill[0];
    s.gpr[rdx] = e.spill[1];
    s.gpr[rax] = e.spill[2];
  }
  s.rip = place.rip;
  if (!takeSegments()) return Stop::leave;
  if (e.signal == SIGUSR1 || e.signal == SIGTRAP) {
    ++counters_.kicks;
    return Stop::leave;
  }
  return handleFault(place);
}

/// Code that runs as it is has loaded segment registers, with selectors of the host's that the guest has, too.
/// False: the guest does not, and gets an exception.
bool Executor::takeSegments() {
  if (!native_) return true;
  Cpu& cpu = *context_.cpu;
  const ExecutorState& e = process_->state();
  bool good = true;
  const Segment segments[] = {ds, es, fs, gs};
  for (unsigned n = 0; n < 4 && good; ++n) {
    if (e.selector[n] == cpu.state.segment[segments[n]].selector) continue;
    std::uint64_t base = cpu.state.segment[segments[n]].base;
    good = loadSegment(cpu, segments[n], e.selector[n]);
    if (good && (segments[n] == fs || segments[n] == gs)) cpu.state.segment[segments[n]].base = base;
  }
  auto code = static_cast<std::uint16_t>(e.codeSelector);
  if (good && code != cpu.state.segment[cs].selector) good = changeUserCode(cpu, code);
  if (!good) deliverException(cpu);
  return good && cpu.mode64();
}

/// A signal of guest code that runs as it is.
Executor::Stop Executor::handleNative() {
  Cpu& cpu = *context_.cpu;
  CpuState& s = cpu.state;
  const ExecutorState& e = process_->state();
  s.rip = e.hostPc;
  if (!takeSegments()) {
    bool isCall = e.signal == SIGSYS || (e.signal == SIGTRAP && e.trap != kDebugTrap);
    if (isCall && !cpu.mode64()) s.rip -= e.signal == SIGSYS ? kCallBytes : 1;  // once more, not here
    return Stop::leave;
  }
  if (e.signal == SIGUSR1) {
    ++counters_.kicks;
    return Stop::leave;
  }
  if (e.signal == SIGSYS) {
    ++counters_.calls;
    constexpr std::uint64_t kWord = 8;
    if (e.faultAddress >> 47 !=
        0) {  // the host's vsyscall page, which has returned already; here is where it was called
      s.rip = e.faultAddress;
      s.gpr[rsp] -= kWord;
    } else {
      s.rip -= kCallBytes;
    }
    step();
    return Stop::leave;
  }
  if (e.signal == SIGTRAP) {
    PageLook look{};
    std::uint64_t at = s.rip - 1;
    bool there = at >> 47 == 0 && lookAtPage(cpu, at, look);
    std::uint8_t last =
        there ? std::to_integer<std::uint8_t>(cpu.memory->deviceView()[look.offset + (at & kPageMask)]) : 0;
    if (e.trap == kDebugTrap && last != kInt1) {
      afterInstruction(cpu, flag::tf, 0);
      return Stop::leave;
    }
    s.rip -= last == kInt3 || last == kInt1 ? 1 : kCallBytes;
    step();
    return Stop::leave;
  }
  bool isFetch = e.signal == SIGSEGV && e.trap == kPageFaultTrap && (e.errorCode & kFetchError) != 0;
  if (!isFetch) return handleFault({s.rip, Place::Kind::boundary, 0});
  lastFault_ = ~std::uint64_t{0};
  ++counters_.fetches;
  if (!memory_.isExecutable(e.faultAddress & ~kPageMask) && showCode(e.faultAddress, false)) {
    --stops_;  // an investment
    return Stop::goOn;
  }
  if ((e.faultAddress & ~kPageMask) != (s.rip & ~kPageMask)) step();  // the end of an instruction
  return Stop::leave;
}

/// Registers are taken. Stop::goOn: where it was; leave: from the CPU's state.
Executor::Stop Executor::handleStop() {
  CpuState& s = context_.cpu->state;
  const ExecutorState& e = process_->state();
  switch (static_cast<ExecutorReason>(e.reason)) {
    case ExecutorReason::step:
      s.rip = e.exitRip;
      if (takeSegments()) step();
      return Stop::leave;
    case ExecutorReason::link: {
      ++counters_.links;
      std::uint32_t link = e.info;
      if (link >= code_.linkCount()) return Stop::dead;  // guest code wrote it
      std::uint64_t target = code_.linkTarget(link), clears = counters_.clears;
      s.rip = target;
      if (!takeSegments()) return Stop::leave;
      std::uint64_t host = lookUp(target, false);
      if (host == target && clears == counters_.clears) host = code_.wayTo(target);
      if (host != 0 && clears == counters_.clears) code_.follow(link, host);
      return Stop::leave;
    }
    case ExecutorReason::indirect: {
      ++counters_.indirect;
      std::uint64_t target = e.exitRip, clears = counters_.clears;
      s.rip = code_.siteOf(e.info);
      if (!takeSegments()) return Stop::leave;
      std::uint64_t host = lookUp(target, false);
      if (host == 0) {
        step();  // finds what is wrong with the target
      } else if (clears == counters_.clears) {
        code_.enterTarget(target, host, true);
      }
      return Stop::leave;
    }
    case ExecutorReason::signal:
      return handleSignal();
    case ExecutorReason::aborted:
      return Stop::leave;
  }
  return Stop::dead;
}

}  // namespace lodge::translate
