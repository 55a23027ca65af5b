// SPDX-License-Identifier: Apache-2.0
// Interrupt and trap gates of long mode (SDM vol. 3, 6.14).
#include "x86/delivery.h"
#include "x86/descriptor.h"
#include "x86/system.h"
#include "x86/tlb_fill.h"

namespace lodge::x86 {

namespace {

bool readGate(Cpu& cpu, const Event& event, Descriptor& gate) {
  const DescriptorTable& idtr = cpu.state.idtr;
  std::uint32_t offset = event.vector * 16u;
  if (offset + 15 > idtr.limit) return raiseGp(cpu, idtCode(event));
  if (!readSystem(cpu, idtr.base + offset, 8, gate.low) || !readSystem(cpu, idtr.base + offset + 8, 8, gate.high)) {
    return false;
  }
  bool typeBits = ((gate.high >> 40) & 31) != 0;
  gate.high &= 0xffff'ffff;
  bool known = gate.type() == system_type::interruptGate32 || gate.type() == system_type::trapGate32;
  if (!gate.isSystem() || !known || typeBits) return raiseGp(cpu, idtCode(event));
  if (event.software && gate.dpl() < cpu.state.cpl) return raiseGp(cpu, idtCode(event));
  return gate.present() || raise(cpu, Vector::np, idtCode(event));
}

struct Target {
  SegmentRegister code;
  unsigned cpl;
  bool inner;
};

bool findTarget(Cpu& cpu, const Event& event, const Descriptor& gate, Target& target) {
  std::uint16_t selector = gate.gateSelector();
  std::uint32_t code = selectorCode(selector) | event.ext();
  unsigned cpl = cpu.state.cpl;
  Descriptor descriptor;
  if (isNull(selector)) return raiseGp(cpu, event.ext());
  if (!readDescriptor(cpu, selector, descriptor, Vector::gp, event.ext())) return false;
  if (!descriptor.isCode() || descriptor.dpl() > cpl) return raiseGp(cpu, code);
  if (!descriptor.longMode() || descriptor.big()) return raiseGp(cpu, code);
  if (!descriptor.present()) return raise(cpu, Vector::np, code);
  target.inner = !descriptor.isConforming() && descriptor.dpl() < cpl;
  target.cpl = target.inner ? descriptor.dpl() : cpl;
  if (!setAccessed(cpu, selector, descriptor)) return false;
  target.code = toSegment(descriptor, static_cast<std::uint16_t>((selector & ~3u) | target.cpl));
  return true;
}

// IST, the inner level's stack, or the current one; aligned down to 16 bytes.
bool findStack(Cpu& cpu, const Event& event, const Descriptor& gate, const Target& target, std::uint64_t& pointer) {
  if (gate.gateIst() != 0) {
    if (!longModeStack(cpu, 0x24 + 8 * (gate.gateIst() - 1), event.ext(), pointer)) return false;
  } else if (target.inner) {
    if (!longModeStack(cpu, 4 + 8 * target.cpl, event.ext(), pointer)) return false;
  } else {
    pointer = cpu.state.gpr[rsp];
  }
  pointer &= ~15ull;
  return true;
}

}  // namespace

bool deliverLong(Cpu& cpu, const Event& event) {
  CpuState& state = cpu.state;
  Descriptor gate;
  Target target{};
  std::uint64_t pointer = 0;
  if (!readGate(cpu, event, gate) || !findTarget(cpu, event, gate, target)) return false;
  if (!findStack(cpu, event, gate, target, pointer)) return false;
  if (!isCanonical(cpu, gate.gateOffset())) return raiseGp(cpu, event.ext());

  Rights rights = target.cpl == 3 ? Rights::user : static_cast<Rights>((state.rflags >> 18) & 1);
  StackFrame frame(cpu, state.segment[ss], pointer, 8, true, rights);
  frame.push(state.segment[ss].selector);
  frame.push(state.gpr[rsp]);
  frame.push(event.flags);
  frame.push(state.segment[cs].selector);
  frame.push(event.returnRip);
  if (event.hasErrorCode) frame.push(event.errorCode);
  if (!frame.commit(event.ext())) return false;

  state.gpr[rsp] = frame.pointer();
  if (target.inner) state.segment[ss] = nullSegment(static_cast<std::uint16_t>(target.cpl), target.cpl);
  state.segment[cs] = target.code;
  state.cpl = static_cast<std::uint8_t>(target.cpl);
  state.rip = gate.gateOffset();
  enterHandler(cpu, gate.type() == system_type::interruptGate32);
  return true;
}

}  // namespace lodge::x86
