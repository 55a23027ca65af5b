// SPDX-License-Identifier: Apache-2.0
// C++ that translated code calls. Guest vector registers are live; see trampolines.S for the conventions.
#include "engine/interpret/interpreter.h"
#include "engine/translate/trampolines.h"
#include "engine/translate/vcpu_context.h"
#include "x86/system.h"
#include "x86/tlb.h"
#include "x86/virtual_memory.h"

using namespace lodge;
using namespace lodge::x86;
using namespace lodge::translate;

namespace {

/// Whether user code, too, may use the page as it is entered into the user's table.
bool keyRestricts(const Cpu& cpu, const PageTranslation& page) {
  if ((cpu.state.cr4 & cr4::pke) == 0 || !page.user) return false;
  return (cpu.state.pkru >> (2 * page.protectionKey) & 3) != 0;
}

/// The pages where addresses of 32-bit code wrap: register_tracker.cpp relies on their absence.
bool isAtWrap(std::uint64_t linear) {
  std::uint64_t page = linear >> 12;
  return page == 0 || page == 0xfffff || page == 0x100000;
}

/// Enters a translated page into the table that the code's probe looks in. False: no table may hold it.
bool fillTlb(VcpuContext& context, std::uint64_t linear, const PageTranslation& page, bool write) {
  Cpu& cpu = *context.cpu;
  std::uint64_t offset = cpu.offsetOf(Gpa{page.gpa & ~kPageMask});
  if (offset == GuestMemory::kNoOffset || keyRestricts(cpu, page)) return false;
  if (write && !page.writable) return false;  // CR0.WP = 0: this access only
  bool lands = cpu.writableOffsetOf(Gpa{page.gpa}) != GuestMemory::kNoOffset;
  if (write && !lands) return false;
  if (write) cpu.memory->noteStore(offset);
  bool mayStore = write || (page.writable && page.dirty && lands && !cpu.memory->isVideoOffset(offset));
  const std::byte* host = (mayStore ? cpu.memory->cpuRw() : cpu.memory->cpuRo()) + offset;
  bool high = (linear >> 63) != 0;
  bool user = cpu.state.cpl == 3;
  if (!high && isAtWrap(linear)) return false;
  bool legacyKernel = !user && !cpu.longMode() && context.key().has(ModeKey::kernelTable);
  if (high || legacyKernel) {
    if (high && (user || page.user)) return false;
    context.spaces->kernelTable().fill(linear, host, page.global, page.pageSize);
    return true;
  }
  if (context.key().has(ModeKey::kernelTable)) return false;
  if (!page.user) {
    context.spaces->noteSupervisorPage(linear);
    context.frame->userKey = 0;  // user code must not start before the page is gone
  }
  if (page.global) context.spaces->noteLowGlobal();
  context.spaces->current().user.fill(linear, host, false, page.pageSize);
  return true;
}

}  // namespace

std::uint32_t lodgeTlbMiss(CpuState* state, std::uint64_t linear, std::uint32_t write) {
  VcpuContext& context = VcpuContext::of(state);
  StepPause pause(context);
  Cpu& cpu = *context.cpu;
  ++context.counters.tlbMisses;
  PageTranslation page;
  if (isCanonical(linear, kLinearBits) &&
      x86::translate(cpu, linear, write != 0 ? Access::write : Access::read, Privilege::current, page)) {
    if (fillTlb(context, linear, page, write != 0)) return 1;
  } else {
    cpu.exception.valid = false;  // the interpreter will find it again, at the right instruction
  }
  ++context.counters.tlbMissesFailed;
  return 0;
}

std::uint64_t lodgeLookupIndirect(CpuState* state, std::uint64_t target) {
  VcpuContext& context = VcpuContext::of(state);
  StepPause pause(context);
  ++context.counters.indirectMisses;
  PageUnit* unit = context.knownUnit(target);
  if (!unit || !unit->covers(target) || unit->key != context.key().bits) return 0;
  context.frame->page = target >> 12;
  return context.store->knownEntry(*unit, target & kPageMask);
}

std::uint64_t lodgeStep(CpuState* state, std::uint64_t rip, std::uint64_t next) {
  VcpuContext& context = VcpuContext::of(state);
  StepPause pause(context);
  ++context.counters.callouts;
  state->rip = rip;
  if (context.lockstep) {  // the check comes first
    context.stepPending = true;
    return 0;
  }
  if (next == kNextPage && context.wantsJoin(rip)) {
    context.joinAt = rip;
    context.step();
    return 0;
  }
  std::uint64_t invalidations = context.store->invalidations();
  context.codeDropped = false;
  context.step();
  return context.resume(next, invalidations);
}
