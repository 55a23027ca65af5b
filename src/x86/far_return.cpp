// SPDX-License-Identifier: Apache-2.0
// Far RET and IRET (SDM vol. 2).
#include "x86/descriptor.h"
#include "x86/events.h"
#include "x86/segment_load.h"
#include "x86/system.h"
#include "x86/task_switch.h"
#include "x86/tlb_fill.h"

namespace lodge::x86 {

namespace {

// CS of a return: rights as RET and IRET demand them.
bool checkReturnCode(Cpu& cpu, std::uint16_t selector, Descriptor& code) {
  std::uint32_t error = selectorCode(selector);
  if (isNull(selector)) return raiseGp(cpu, 0);
  if (!readDescriptor(cpu, selector, code, Vector::gp)) return false;
  if (!code.isCode() || rpl(selector) < cpu.state.cpl) return raiseGp(cpu, error);
  bool level = code.isConforming() ? code.dpl() <= rpl(selector) : code.dpl() == rpl(selector);
  if (!level) return raiseGp(cpu, error);
  if (cpu.longMode() && code.longMode() && code.big()) return raiseGp(cpu, error);
  return code.present() || raise(cpu, Vector::np, error);
}

struct ReturnFrame {
  std::uint64_t rip = 0, flags = 0, pointer = 0;
  std::uint16_t code = 0, stack = 0;
};

// `bytes` from `offset` above the stack pointer on are within SS, where they do not wrap: before any is read (SDM
// vol. 2, RET and IRET: "IF top ... bytes of stack not within stack limits").
bool stackHolds(Cpu& cpu, std::uint64_t offset, unsigned bytes) {
  std::uint64_t pointer = (cpu.state.gpr[rsp] + offset) & stackMask(cpu), linear = 0;
  if (cpu.mode64() || pointer + bytes - 1 > stackMask(cpu)) return true;
  return linearAddress(cpu, ss, pointer, bytes, Access::read, linear);
}

// SS:RSP; `offset` of the first slot above the stack pointer.
bool peekStackPair(Cpu& cpu, std::uint64_t offset, unsigned slot, ReturnFrame& frame) {
  std::uint64_t selector = 0;
  if (!stackHolds(cpu, offset, 2 * slot) || !peekStack(cpu, offset, slot, frame.pointer)) return false;
  if (!peekStack(cpu, offset + slot, slot, selector)) return false;
  frame.stack = static_cast<std::uint16_t>(selector);
  return true;
}

bool peekCodePair(Cpu& cpu, unsigned slot, ReturnFrame& frame) {
  std::uint64_t selector = 0;
  if (!peekStack(cpu, 0, slot, frame.rip) || !peekStack(cpu, slot, slot, selector)) return false;
  frame.code = static_cast<std::uint16_t>(selector);
  return true;
}

// Commits a return to another stack: CPL, CS:RIP, SS:RSP.
void enterWithStack(Cpu& cpu, const ReturnFrame& frame, const Descriptor& code, const SegmentRegister& stack) {
  bool outer = rpl(frame.code) > cpu.state.cpl;
  cpu.state.segment[ss] = stack;
  enterCode(cpu, toSegment(code, frame.code), rpl(frame.code), frame.rip);
  setStackPointer(cpu, frame.pointer);
  if (outer) dropInnerSegments(cpu);
}

bool returnReal(Cpu& cpu, unsigned slot, std::uint16_t popBytes) {
  ReturnFrame frame;
  if (!peekCodePair(cpu, slot, frame)) return false;
  if (frame.rip > cpu.state.segment[cs].limit) return raiseGp(cpu, 0);
  setStackPointer(cpu, cpu.state.gpr[rsp] + 2 * slot + popBytes);
  loadRealCode(cpu, frame.code);
  cpu.state.rip = frame.rip;
  if (cpu.listener) cpu.listener->modeChanged();
  return true;
}

}  // namespace

bool farReturn(Cpu& cpu, unsigned operandSize, std::uint16_t popBytes) {
  if (realOr8086(cpu)) return returnReal(cpu, operandSize, popBytes);
  ReturnFrame frame;
  Descriptor code;
  if (!stackHolds(cpu, 0, 2 * operandSize) || !peekCodePair(cpu, operandSize, frame)) return false;
  if (!checkReturnCode(cpu, frame.code, code)) return false;
  if (rpl(frame.code) == cpu.state.cpl) {
    if (!checkTargetOffset(cpu, code, frame.rip) || !setAccessed(cpu, frame.code, code)) return false;
    setStackPointer(cpu, cpu.state.gpr[rsp] + 2 * operandSize + popBytes);
    enterCode(cpu, toSegment(code, frame.code), cpu.state.cpl, frame.rip);
    return true;
  }
  SegmentRegister stack;
  bool null64 = cpu.longMode() && code.longMode();
  if (!peekStackPair(cpu, 2 * operandSize + popBytes, operandSize, frame)) return false;
  if (!checkStackSegment(cpu, frame.stack, rpl(frame.code), null64, stack)) return false;
  if (!checkTargetOffset(cpu, code, frame.rip) || !setAccessed(cpu, frame.code, code)) return false;
  frame.pointer += popBytes;
  enterWithStack(cpu, frame, code, stack);
  return true;
}

namespace {

// Bits that IRET loads, by the CPL before it and the operand size.
std::uint64_t returnFlagMask(const Cpu& cpu, unsigned operandSize) {
  const CpuState& state = cpu.state;
  std::uint64_t mask = flag::arithmetic | flag::tf | flag::df | flag::nt;
  if (operandSize >= 4) mask |= flag::rf | flag::ac | flag::id;
  if (state.cpl <= ((state.rflags >> 12) & 3)) mask |= flag::if_;
  if (state.cpl == 0) {
    mask |= flag::iopl;
    if (operandSize >= 4) mask |= flag::vif | flag::vip;
  }
  return mask;
}

void loadFlags(Cpu& cpu, std::uint64_t value, std::uint64_t mask) {
  std::uint64_t before = cpu.state.rflags;
  cpu.state.rflags = (before & ~mask) | (value & mask) | flag::reserved1;
  if (((before ^ cpu.state.rflags) & (flag::ac | flag::vm)) != 0 && cpu.listener) cpu.listener->modeChanged();
  rearmDeferredEvents(cpu);
}

bool returnFromReal(Cpu& cpu, unsigned slot) {
  std::uint64_t flags = 0;
  bool in8086 = cpu.virtual8086();
  if (!peekStack(cpu, 2 * slot, slot, flags)) return false;
  std::uint64_t mask = flag::arithmetic | flag::tf | flag::if_ | flag::df | flag::nt;
  if (!in8086) mask |= flag::iopl;
  if (slot == 4) mask |= flag::rf | flag::ac | flag::id;
  if (!returnReal(cpu, slot, static_cast<std::uint16_t>(slot))) return false;
  loadFlags(cpu, flags, mask);
  return true;
}

// SDM vol. 3, 20.3.3.4: below IOPL 3 only the 16-bit form with VME, on VIF.
bool returnIn8086(Cpu& cpu, unsigned slot) {
  CpuState& state = cpu.state;
  if ((state.rflags & flag::iopl) == flag::iopl) return returnFromReal(cpu, slot);
  if ((state.cr4 & cr4::vme) == 0 || slot != 2) return raiseGp(cpu, 0);
  std::uint64_t flags = 0;
  if (!peekStack(cpu, 4, 2, flags)) return false;
  bool wantsInterrupts = (flags & flag::if_) != 0;
  if ((wantsInterrupts && (state.rflags & flag::vip) != 0) || (flags & flag::tf) != 0) return raiseGp(cpu, 0);
  if (!returnReal(cpu, 2, 2)) return false;
  loadFlags(cpu, flags, flag::arithmetic | flag::df | flag::nt | flag::tf);
  state.rflags = wantsInterrupts ? state.rflags | flag::vif : state.rflags & ~flag::vif;
  return true;
}

bool returnTo8086(Cpu& cpu, const ReturnFrame& frame) {
  CpuState& state = cpu.state;
  std::uint64_t pointer = 0, selectors[5];  // SS, ES, DS, FS, GS
  if (!stackHolds(cpu, 12, 24) || !peekStack(cpu, 12, 4, pointer)) return false;
  for (unsigned i = 0; i < 5; ++i) {
    if (!peekStack(cpu, 16 + 4 * i, 4, selectors[i])) return false;
  }
  // SDM: #GP(0) if EIP is outside the new CS's limit.
  if (frame.rip > 0xffff) return raiseGp(cpu, 0);
  static constexpr Segment kOrder[] = {ss, es, ds, fs, gs};
  for (unsigned i = 0; i < 5; ++i) {
    state.segment[kOrder[i]] = realSegment(static_cast<std::uint16_t>(selectors[i]), 3);
  }
  state.gpr[rsp] = pointer;
  constexpr std::uint64_t kAll = flag::arithmetic | flag::tf | flag::if_ | flag::df | flag::iopl | flag::nt | flag::rf |
                                 flag::vm | flag::ac | flag::vif | flag::vip | flag::id;
  loadFlags(cpu, frame.flags, kAll);
  enterCode(cpu, realSegment(frame.code, 3), 3, frame.rip);
  return true;
}

bool returnFromTask(Cpu& cpu, std::uint64_t nextRip) {
  std::uint64_t link = 0;
  if (!readSystem(cpu, cpu.state.tr.base & 0xffff'ffff, 2, link)) return false;
  auto selector = static_cast<std::uint16_t>(link);
  Descriptor tss;
  if ((selector & 4) != 0 || isNull(selector)) return raise(cpu, Vector::ts, selectorCode(selector));
  if (!readDescriptor(cpu, selector, tss, Vector::ts)) return false;
  if (!isBusyTss(tss)) return raise(cpu, Vector::ts, selectorCode(selector));
  if (!tss.present()) return raise(cpu, Vector::np, selectorCode(selector));
  return switchTask(cpu, {TaskSwitch::Kind::iret, selector, tss, nextRip, cpu.state.rflags & ~flag::rf, 0});
}

bool returnProtected(Cpu& cpu, unsigned slot) {
  ReturnFrame frame;
  Descriptor code;
  if (!stackHolds(cpu, 0, 3 * slot) || !peekCodePair(cpu, slot, frame)) return false;
  if (!peekStack(cpu, 2 * slot, slot, frame.flags)) return false;
  bool to8086 = (frame.flags & flag::vm) != 0 && cpu.state.cpl == 0 && !cpu.longMode() && slot == 4;
  if (to8086) return returnTo8086(cpu, frame);
  if (!checkReturnCode(cpu, frame.code, code)) return false;
  std::uint64_t mask = returnFlagMask(cpu, slot);
  SegmentRegister stack;
  // 64-bit mode's IRET always pops SS:RSP.
  bool loadsStack = cpu.mode64() || rpl(frame.code) != cpu.state.cpl;
  if (loadsStack) {
    bool null64 = cpu.longMode() && code.longMode();
    if (!peekStackPair(cpu, 3 * slot, slot, frame)) return false;
    if (!checkStackSegment(cpu, frame.stack, rpl(frame.code), null64, stack)) return false;
  }
  if (!checkTargetOffset(cpu, code, frame.rip) || !setAccessed(cpu, frame.code, code)) return false;
  if (loadsStack) {
    enterWithStack(cpu, frame, code, stack);
  } else {
    setStackPointer(cpu, cpu.state.gpr[rsp] + 3 * slot);
    enterCode(cpu, toSegment(code, frame.code), cpu.state.cpl, frame.rip);
  }
  loadFlags(cpu, frame.flags, mask);
  return true;
}

}  // namespace

bool interruptReturn(Cpu& cpu, unsigned operandSize, std::uint64_t nextRip) {
  // NMIs are unblocked by the execution of IRET, also if that faults (SDM vol. 3, 6.7.1 and 25.3).
  cpu.state.nmiBlocked = 0;
  rearmDeferredEvents(cpu);
  if (!cpu.protectedMode()) return returnFromReal(cpu, operandSize);
  if (cpu.virtual8086()) return returnIn8086(cpu, operandSize);
  if ((cpu.state.rflags & flag::nt) != 0) {
    return cpu.longMode() ? raiseGp(cpu, 0) : returnFromTask(cpu, nextRip);
  }
  return returnProtected(cpu, operandSize);
}

}  // namespace lodge::x86
