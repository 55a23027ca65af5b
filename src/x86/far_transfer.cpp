// SPDX-License-Identifier: Apache-2.0
// Far JMP, CALL and RET (SDM vol. 2; vol. 3, 5.8).
#include "x86/delivery.h"
#include "x86/descriptor.h"
#include "x86/segment_load.h"
#include "x86/system.h"
#include "x86/task_switch.h"

namespace lodge::x86 {

namespace {

struct FarTransfer {
  bool call;
  std::uint16_t selector;
  std::uint64_t offset;
  unsigned operandSize;
  std::uint64_t nextRip;
};

std::uint64_t truncate(std::uint64_t value, unsigned size) {
  return size == 8 ? value : value & (size == 4 ? 0xffff'ffff : 0xffff);
}

bool pushReturn(Cpu& cpu, unsigned slot, bool flat64, std::uint64_t nextRip) {
  CpuState& state = cpu.state;
  StackFrame frame(cpu, state.segment[ss], state.gpr[rsp], slot, flat64, currentRights(cpu));
  frame.push(state.segment[cs].selector);
  frame.push(nextRip);
  if (!frame.commit(0)) return false;
  if (flat64) {
    state.gpr[rsp] = frame.pointer();
  } else {
    setStackPointer(cpu, frame.pointer());
  }
  return true;
}

bool transferReal(Cpu& cpu, const FarTransfer& t) {
  std::uint64_t offset = truncate(t.offset, t.operandSize);
  if (offset > cpu.state.segment[cs].limit) return raiseGp(cpu, 0);
  if (t.call && !pushReturn(cpu, t.operandSize, false, t.nextRip)) return false;
  loadRealCode(cpu, t.selector);
  cpu.state.rip = offset;
  if (cpu.listener) cpu.listener->modeChanged();
  return true;
}

bool transferDirect(Cpu& cpu, const FarTransfer& t, Descriptor& code) {
  unsigned cpl = cpu.state.cpl;
  std::uint32_t error = selectorCode(t.selector);
  bool allowed = code.isConforming() ? code.dpl() <= cpl : rpl(t.selector) <= cpl && code.dpl() == cpl;
  if (!allowed) return raiseGp(cpu, error);
  if (cpu.longMode() && code.longMode() && code.big()) return raiseGp(cpu, error);
  if (!code.present()) return raise(cpu, Vector::np, error);
  std::uint64_t offset = truncate(t.offset, t.operandSize);
  if (!checkTargetOffset(cpu, code, offset) || !setAccessed(cpu, t.selector, code)) return false;
  if (t.call && !pushReturn(cpu, t.operandSize, cpu.mode64(), t.nextRip)) return false;
  enterCode(cpu, toSegment(code, static_cast<std::uint16_t>((t.selector & ~3u) | cpl)), cpl, offset);
  return true;
}

// The code segment and entry point that a call gate names.
struct GateTarget {
  Descriptor code;
  std::uint16_t selector;
  std::uint64_t offset;
  unsigned slot;
  bool inner;
};

bool readCallGate(Cpu& cpu, const FarTransfer& t, Descriptor& gate, GateTarget& target) {
  std::uint32_t gateError = selectorCode(t.selector);
  unsigned cpl = cpu.state.cpl;
  if (gate.dpl() < cpl || rpl(t.selector) > gate.dpl()) return raiseGp(cpu, gateError);
  if (!gate.present()) return raise(cpu, Vector::np, gateError);
  if (cpu.longMode() && !readDescriptorHigh(cpu, t.selector, gate, Vector::gp)) return false;

  target.selector = gate.gateSelector();
  std::uint32_t error = selectorCode(target.selector);
  if (isNull(target.selector)) return raiseGp(cpu, 0);
  if (!readDescriptor(cpu, target.selector, target.code, Vector::gp)) return false;
  const Descriptor& code = target.code;
  if (!code.isCode() || code.dpl() > cpl) return raiseGp(cpu, error);
  target.inner = !code.isConforming() && code.dpl() < cpl;
  if (target.inner && !t.call) return raiseGp(cpu, error);
  if (cpu.longMode() && (!code.longMode() || code.big())) return raiseGp(cpu, error);
  if (!code.present()) return raise(cpu, Vector::np, error);
  bool wide = (gate.type() & 8) != 0;
  target.slot = cpu.longMode() ? 8 : wide ? 4 : 2;
  target.offset = wide ? gate.gateOffset() : gate.gateOffset() & 0xffff;
  return checkTargetOffset(cpu, code, target.offset);
}

bool copyParameters(Cpu& cpu, StackFrame& frame, unsigned count, unsigned slot) {
  for (unsigned i = count; i-- > 0;) {
    std::uint64_t value = 0;
    if (!peekStack(cpu, std::uint64_t{i} * slot, slot, value)) return false;
    frame.push(value);
  }
  return true;
}

bool callInner(Cpu& cpu, const FarTransfer& t, const Descriptor& gate, GateTarget& target) {
  CpuState& state = cpu.state;
  unsigned cpl = target.code.dpl();
  bool wide = cpu.longMode();
  SegmentRegister stack = nullSegment(static_cast<std::uint16_t>(cpl), cpl);
  std::uint64_t pointer = 0;
  if (wide ? !longModeStack(cpu, 4 + 8 * cpl, 0, pointer) : !innerStack(cpu, cpl, 0, stack, pointer)) return false;
  StackFrame frame(cpu, stack, pointer, target.slot, wide, static_cast<Rights>((state.rflags >> 18) & 1));
  frame.push(state.segment[ss].selector);
  frame.push(state.gpr[rsp]);
  if (!wide && !copyParameters(cpu, frame, gate.gateParameters(), target.slot)) return false;
  frame.push(state.segment[cs].selector);
  frame.push(t.nextRip);
  if (!setAccessed(cpu, target.selector, target.code)) return false;
  if (!frame.commit(wide ? 0 : selectorCode(stack.selector))) return false;
  state.segment[ss] = stack;
  auto selector = static_cast<std::uint16_t>((target.selector & ~3u) | cpl);
  enterCode(cpu, toSegment(target.code, selector), cpl, target.offset);
  setStackPointer(cpu, frame.pointer());
  return true;
}

bool transferThroughGate(Cpu& cpu, const FarTransfer& t, Descriptor& gate) {
  GateTarget target{};
  if (!readCallGate(cpu, t, gate, target)) return false;
  if (target.inner) return callInner(cpu, t, gate, target);
  if (!setAccessed(cpu, target.selector, target.code)) return false;
  if (t.call && !pushReturn(cpu, target.slot, cpu.longMode(), t.nextRip)) return false;
  unsigned cpl = cpu.state.cpl;
  auto selector = static_cast<std::uint16_t>((target.selector & ~3u) | cpl);
  enterCode(cpu, toSegment(target.code, selector), cpl, target.offset);
  return true;
}

bool transferToTask(Cpu& cpu, const FarTransfer& t, std::uint16_t selector, const Descriptor& tss) {
  if (!isAvailableTss(tss)) return raiseGp(cpu, selectorCode(selector));
  if (!tss.present()) return raise(cpu, Vector::np, selectorCode(selector));
  auto kind = t.call ? TaskSwitch::Kind::call : TaskSwitch::Kind::jump;
  return switchTask(cpu, {kind, selector, tss, t.nextRip, cpu.state.rflags & ~flag::rf, 0});
}

bool transferThroughTaskGate(Cpu& cpu, const FarTransfer& t, const Descriptor& gate) {
  if (!gate.present()) return raise(cpu, Vector::np, selectorCode(t.selector));
  std::uint16_t selector = gate.gateSelector();
  Descriptor tss;
  if ((selector & 4) != 0) return raiseGp(cpu, selectorCode(selector));
  return readDescriptor(cpu, selector, tss, Vector::gp) && transferToTask(cpu, t, selector, tss);
}

bool transferToSystem(Cpu& cpu, const FarTransfer& t, Descriptor& descriptor) {
  std::uint32_t error = selectorCode(t.selector);
  unsigned type = descriptor.type();
  if (type == system_type::callGate32 || (type == system_type::callGate16 && !cpu.longMode())) {
    return transferThroughGate(cpu, t, descriptor);
  }
  if (cpu.longMode()) return raiseGp(cpu, error);
  if (type != system_type::taskGate && (type & 5) != 1) return raiseGp(cpu, error);
  if (descriptor.dpl() < cpu.state.cpl || descriptor.dpl() < rpl(t.selector)) return raiseGp(cpu, error);
  if (type == system_type::taskGate) return transferThroughTaskGate(cpu, t, descriptor);
  if ((t.selector & 4) != 0) return raiseGp(cpu, error);
  return transferToTask(cpu, t, t.selector, descriptor);
}

bool transfer(Cpu& cpu, const FarTransfer& t) {
  if (realOr8086(cpu)) return transferReal(cpu, t);
  Descriptor descriptor;
  if (isNull(t.selector)) return raiseGp(cpu, 0);
  if (!readDescriptor(cpu, t.selector, descriptor, Vector::gp)) return false;
  if (descriptor.isCode()) return transferDirect(cpu, t, descriptor);
  if (!descriptor.isSystem()) return raiseGp(cpu, selectorCode(t.selector));
  return transferToSystem(cpu, t, descriptor);
}

}  // namespace

bool farJump(Cpu& cpu, std::uint16_t selector, std::uint64_t offset, unsigned operandSize, std::uint64_t nextRip) {
  return transfer(cpu, {false, selector, offset, operandSize, nextRip});
}

bool farCall(Cpu& cpu, std::uint16_t selector, std::uint64_t offset, unsigned operandSize, std::uint64_t nextRip) {
  return transfer(cpu, {true, selector, offset, operandSize, nextRip});
}

}  // namespace lodge::x86
