// SPDX-License-Identifier: Apache-2.0
// SYSCALL, SYSRET, SYSENTER, SYSEXIT (SDM vol. 2; AMD APM vol. 2, 6.1): no descriptor is read, the segments are fixed.
#include "x86/cpu_model.h"
#include "x86/descriptor.h"
#include "x86/events.h"
#include "x86/segment_load.h"
#include "x86/system.h"

namespace lodge::x86 {

namespace {

// Attributes of flat segments: code (execute, read, accessed) and data (write, accessed), present, 4 KiB granular.
constexpr std::uint16_t kCode32 = 0xc09b, kCode64 = 0xa09b, kData = 0xc093;

SegmentRegister flatSegment(std::uint16_t selector, std::uint16_t attributes, unsigned cpl) {
  return {0, 0xffff'ffff, static_cast<std::uint16_t>((selector & 0xfffc) | cpl),
          static_cast<std::uint16_t>(attributes | cpl << 5)};
}

void enterFlat(Cpu& cpu, std::uint64_t codeSelector, std::uint64_t stackSelector, bool code64, unsigned cpl,
               std::uint64_t rip) {
  cpu.state.segment[ss] = flatSegment(static_cast<std::uint16_t>(stackSelector), kData, cpl);
  auto code = flatSegment(static_cast<std::uint16_t>(codeSelector), code64 ? kCode64 : kCode32, cpl);
  enterCode(cpu, code, cpl, rip);
}

bool isAmd(const Cpu& cpu) {
  return cpu.model->vendor == CpuVendor::amd;
}

}  // namespace

bool syscallInstruction(Cpu& cpu, std::uint64_t nextRip) {
  CpuState& state = cpu.state;
  if ((state.efer & efer::sce) == 0) return raiseUd(cpu);
  if (!cpu.mode64() && !isAmd(cpu)) return raiseUd(cpu);
  if (!cpu.protectedMode()) return raiseUd(cpu);
  std::uint64_t selector = (state.star >> 32) & 0xffff;
  if (!cpu.longMode()) {
    state.gpr[rcx] = nextRip & 0xffff'ffff;
    state.rflags &= ~(flag::vm | flag::if_ | flag::rf);
    enterFlat(cpu, selector, selector + 8, false, 0, state.star & 0xffff'ffff);
    return true;
  }
  std::uint64_t target = cpu.mode64() ? state.lstar : state.cstar;
  state.gpr[rcx] = nextRip;
  state.gpr[r11] = state.rflags & ~flag::rf;
  state.rflags = (state.rflags & ~(state.sfmask | flag::rf)) | flag::reserved1;
  enterFlat(cpu, selector, selector + 8, true, 0, target);
  return true;
}

bool sysretInstruction(Cpu& cpu, unsigned operandSize) {
  CpuState& state = cpu.state;
  if ((state.efer & efer::sce) == 0) return raiseUd(cpu);
  if (!cpu.mode64() && !isAmd(cpu)) return raiseUd(cpu);
  if (!cpu.protectedMode()) return raiseUd(cpu);
  if (state.cpl != 0) return raiseGp(cpu, 0);
  bool to64 = operandSize == 8 && cpu.longMode();
  // Intel's faults here with CPL 0 and the user's stack pointer; AMD's returns first and faults at the fetch.
  if (to64 && !isAmd(cpu) && !isCanonical(cpu, state.gpr[rcx])) return raiseGp(cpu, 0);
  std::uint64_t selector = state.star >> 48;
  std::uint64_t rip = to64 ? state.gpr[rcx] : state.gpr[rcx] & 0xffff'ffff;
  if (cpu.longMode()) {
    constexpr std::uint64_t kLoaded = 0x3c'7fd7;  // all but RF, VM and reserved bits
    state.rflags = (state.gpr[r11] & kLoaded) | flag::reserved1;
  } else {
    state.rflags |= flag::if_;
  }
  enterFlat(cpu, to64 ? selector + 16 : selector, selector + 8, to64, 3, rip);
  rearmDeferredEvents(cpu);
  return true;
}

bool sysenterInstruction(Cpu& cpu) {
  CpuState& state = cpu.state;
  if (cpu.longMode() && isAmd(cpu)) return raiseUd(cpu);
  if (!cpu.protectedMode() || (state.sysenterCs & 0xfffc) == 0) return raiseGp(cpu, 0);
  std::uint64_t mask = cpu.longMode() ? ~0ull : 0xffff'ffff;
  state.rflags &= ~(flag::vm | flag::if_ | flag::rf);
  state.gpr[rsp] = state.sysenterEsp & mask;
  enterFlat(cpu, state.sysenterCs, (state.sysenterCs & 0xfffc) + 8, cpu.longMode(), 0, state.sysenterEip & mask);
  return true;
}

bool sysexitInstruction(Cpu& cpu, unsigned operandSize) {
  CpuState& state = cpu.state;
  if (cpu.longMode() && isAmd(cpu)) return raiseUd(cpu);
  if (!cpu.protectedMode() || state.cpl != 0 || (state.sysenterCs & 0xfffc) == 0) return raiseGp(cpu, 0);
  bool to64 = operandSize == 8;
  if (to64 && (!isCanonical(cpu, state.gpr[rcx]) || !isCanonical(cpu, state.gpr[rdx]))) return raiseGp(cpu, 0);
  std::uint64_t mask = to64 ? ~0ull : 0xffff'ffff;
  std::uint64_t base = state.sysenterCs & 0xfffc;
  std::uint64_t target = state.gpr[rdx] & mask;
  state.gpr[rsp] = state.gpr[rcx] & mask;
  enterFlat(cpu, base + (to64 ? 32 : 16), base + (to64 ? 40 : 24), to64, 3, target);
  return true;
}

}  // namespace lodge::x86
