// SPDX-License-Identifier: Apache-2.0
// Interrupt, trap and task gates outside long mode (SDM vol. 3, 6.12; vol. 2, INT n).
#include "x86/delivery.h"
#include "x86/descriptor.h"
#include "x86/segment_load.h"
#include "x86/system.h"
#include "x86/task_switch.h"
#include "x86/tlb_fill.h"

namespace lodge::x86 {

namespace {

bool isInterruptGate(unsigned type) {
  return type == system_type::interruptGate16 || type == system_type::interruptGate32;
}

bool readGate(Cpu& cpu, const Event& event, Descriptor& gate) {
  const DescriptorTable& idtr = cpu.state.idtr;
  std::uint32_t offset = event.vector * 8u;
  if (offset + 7 > idtr.limit) return raiseGp(cpu, idtCode(event));
  if (!readSystem(cpu, (idtr.base + offset) & 0xffff'ffff, 8, gate.low)) return false;
  switch (gate.type()) {
    case system_type::taskGate:
    case system_type::interruptGate16:
    case system_type::trapGate16:
    case system_type::interruptGate32:
    case system_type::trapGate32:
      break;
    default:
      return raiseGp(cpu, idtCode(event));
  }
  if (!gate.isSystem()) return raiseGp(cpu, idtCode(event));
  if (event.software && gate.dpl() < cpu.state.cpl) return raiseGp(cpu, idtCode(event));
  return gate.present() || raise(cpu, Vector::np, idtCode(event));
}

bool deliverToTask(Cpu& cpu, const Event& event, const Descriptor& gate) {
  std::uint16_t selector = gate.gateSelector();
  Descriptor tss;
  if ((selector & 4) != 0) return raiseGp(cpu, selectorCode(selector) | event.ext());
  if (!readDescriptor(cpu, selector, tss, Vector::gp, event.ext())) return false;
  if (!isAvailableTss(tss)) return raiseGp(cpu, selectorCode(selector) | event.ext());
  if (!tss.present()) return raise(cpu, Vector::np, selectorCode(selector) | event.ext());
  TaskSwitch request{TaskSwitch::Kind::interrupt, selector, tss, event.returnRip, event.flags, event.ext()};
  if (!switchTask(cpu, request)) return false;
  if (event.hasErrorCode) {
    CpuState& state = cpu.state;
    unsigned slot = tss.type() == system_type::tss32 ? 4 : 2;
    StackFrame frame(cpu, state.segment[ss], state.gpr[rsp], slot, false, currentRights(cpu));
    frame.push(event.errorCode);
    if (!frame.commit(event.ext())) return false;
    setStackPointer(cpu, frame.pointer());
  }
  return true;
}

// Where the handler runs.
struct Target {
  SegmentRegister code;
  std::uint64_t offset;
  unsigned cpl;
  bool inner;
};

bool findTarget(Cpu& cpu, const Event& event, const Descriptor& gate, Target& target) {
  const CpuState& state = cpu.state;
  std::uint16_t selector = gate.gateSelector();
  std::uint32_t code = selectorCode(selector) | event.ext();
  Descriptor descriptor;
  if (isNull(selector)) return raiseGp(cpu, event.ext());
  if (!readDescriptor(cpu, selector, descriptor, Vector::gp, event.ext())) return false;
  if (!descriptor.isCode() || descriptor.dpl() > state.cpl) return raiseGp(cpu, code);
  if (!descriptor.present()) return raise(cpu, Vector::np, code);
  target.inner = !descriptor.isConforming() && descriptor.dpl() < state.cpl;
  if (cpu.virtual8086() && (!target.inner || descriptor.dpl() != 0)) return raiseGp(cpu, code);
  target.cpl = target.inner ? descriptor.dpl() : state.cpl;
  target.offset = gate.gateOffset() & ((gate.type() & 8) != 0 ? 0xffff'ffff : 0xffff);
  if (target.offset > descriptor.limit()) return raiseGp(cpu, event.ext());
  if (!setAccessed(cpu, selector, descriptor)) return false;
  target.code = toSegment(descriptor, static_cast<std::uint16_t>((selector & ~3u) | target.cpl));
  return true;
}

bool deliverToCode(Cpu& cpu, const Event& event, const Descriptor& gate) {
  CpuState& state = cpu.state;
  Target target{};
  if (!findTarget(cpu, event, gate, target)) return false;
  SegmentRegister stack = state.segment[ss];
  std::uint64_t pointer = state.gpr[rsp];
  std::uint32_t stackCode = event.ext();
  if (target.inner) {
    if (!innerStack(cpu, target.cpl, event.ext(), stack, pointer)) return false;
    stackCode |= selectorCode(stack.selector);
  }
  Rights rights = target.cpl == 3 ? Rights::user : static_cast<Rights>((state.rflags >> 18) & 1);
  StackFrame frame(cpu, stack, pointer, (gate.type() & 8) != 0 ? 4 : 2, false, rights);
  bool from8086 = cpu.virtual8086();
  if (from8086) {
    for (Segment segment : {gs, fs, ds, es}) frame.push(state.segment[segment].selector);
  }
  if (target.inner) {
    frame.push(state.segment[ss].selector);
    frame.push(state.gpr[rsp]);
  }
  frame.push(event.flags);
  frame.push(state.segment[cs].selector);
  frame.push(event.returnRip);
  if (event.hasErrorCode) frame.push(event.errorCode);
  if (!frame.commit(stackCode)) return false;

  state.segment[ss] = stack;
  setStackPointer(cpu, frame.pointer());
  if (from8086) {
    for (Segment segment : {gs, fs, ds, es}) state.segment[segment] = nullSegment(0);
  }
  state.segment[cs] = target.code;
  state.cpl = static_cast<std::uint8_t>(target.cpl);
  state.rip = target.offset;
  enterHandler(cpu, isInterruptGate(gate.type()));
  return true;
}

}  // namespace

bool deliverProtected(Cpu& cpu, const Event& event) {
  Descriptor gate;
  if (!readGate(cpu, event, gate)) return false;
  if (gate.type() == system_type::taskGate) return deliverToTask(cpu, event, gate);
  return deliverToCode(cpu, event, gate);
}

}  // namespace lodge::x86
