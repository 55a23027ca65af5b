// SPDX-License-Identifier: Apache-2.0
// Interrupts through a vector table of real-address mode: in that mode, and in virtual-8086 mode with CR4.VME.
#include "x86/delivery.h"
#include "x86/segment_load.h"
#include "x86/system.h"
#include "x86/tlb_fill.h"

namespace lodge::x86 {

namespace {

void enterRealHandler(CpuState& state, std::uint64_t farPointer) {
  SegmentRegister& code = state.segment[cs];
  code.selector = static_cast<std::uint16_t>(farPointer >> 16);
  code.base = std::uint64_t{code.selector} << 4;
  state.rip = farPointer & 0xffff;
}

}  // namespace

bool deliverReal(Cpu& cpu, const Event& event) {
  CpuState& state = cpu.state;
  std::uint64_t pointer = 0;
  if (event.vector * 4u + 3 > state.idtr.limit) return raiseGp(cpu, idtCode(event));
  std::uint64_t entry = (state.idtr.base + event.vector * 4u) & 0xffff'ffff;
  if (!readSystem(cpu, entry, 4, pointer)) return false;
  StackFrame frame(cpu, state.segment[ss], state.gpr[rsp], 2, false, Rights::supervisor);
  frame.push(event.flags & ~flag::rf);
  frame.push(state.segment[cs].selector);
  frame.push(event.returnRip);
  if (!frame.commit(event.ext())) return false;
  setStackPointer(cpu, frame.pointer());
  enterRealHandler(state, pointer);
  state.rflags &= ~flag::ac;
  enterHandler(cpu, true);
  return true;
}

namespace {

// Bit `vector` of the software interrupt redirection map, the 32 bytes below the I/O permission map (SDM vol.
// 3, 20.3.3).
bool redirectionBit(Cpu& cpu, std::uint8_t vector, bool& set) {
  const SegmentRegister& tr = cpu.state.tr;
  std::uint64_t mapBase = 0, byte = 0;
  if (tr.limit < 103) return raiseGp(cpu, 0);
  if (!readSystem(cpu, (tr.base + 102) & 0xffff'ffff, 2, mapBase)) return false;
  std::uint64_t offset = mapBase - 32 + vector / 8;
  if (mapBase < 32 || offset > tr.limit) return raiseGp(cpu, 0);
  if (!readSystem(cpu, (tr.base + offset) & 0xffff'ffff, 1, byte)) return false;
  set = ((byte >> (vector & 7)) & 1) != 0;
  return true;
}

}  // namespace

bool virtual8086Interrupt(Cpu& cpu, std::uint8_t vector, std::uint64_t nextRip, bool& handled) {
  CpuState& state = cpu.state;
  bool iopl3 = (state.rflags & flag::iopl) == flag::iopl;
  bool toIdt = true;
  if ((state.cr4 & cr4::vme) != 0 && !redirectionBit(cpu, vector, toIdt)) return false;
  if (toIdt) return iopl3 || raiseGp(cpu, 0);

  std::uint64_t pointer = 0;
  if (!readAs(cpu, vector * 4u, 4, pointer, Rights::user)) return false;
  std::uint64_t image = state.rflags;
  if (!iopl3) {
    image = (image & ~flag::if_) | flag::iopl | ((image & flag::vif) != 0 ? flag::if_ : 0);
  }
  StackFrame frame(cpu, state.segment[ss], state.gpr[rsp], 2, false, Rights::user);
  frame.push(image);
  frame.push(state.segment[cs].selector);
  frame.push(nextRip);
  if (!frame.commit(0)) return false;
  setStackPointer(cpu, frame.pointer());
  enterRealHandler(state, pointer);
  state.rflags &= ~(flag::tf | flag::nt | flag::rf | (iopl3 ? flag::if_ : flag::vif));
  handled = true;
  return true;
}

}  // namespace lodge::x86
