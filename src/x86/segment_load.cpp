// SPDX-License-Identifier: Apache-2.0
#include "x86/segment_load.h"

#include "x86/segment_access.h"
#include "x86/system.h"
#include "x86/tlb_fill.h"
#include "x86/virtual_memory.h"

namespace lodge::x86 {

bool checkStackSegment(Cpu& cpu, std::uint16_t selector, unsigned cpl, bool null64, SegmentRegister& out) {
  if (isNull(selector)) {
    if (!null64 || cpl == 3 || rpl(selector) != cpl) return raiseGp(cpu, 0);
    out = nullSegment(selector, cpl);
    return true;
  }
  Descriptor descriptor;
  if (!readDescriptor(cpu, selector, descriptor, Vector::gp)) return false;
  if (rpl(selector) != cpl || descriptor.dpl() != cpl || !descriptor.isWritableData()) {
    return raiseGp(cpu, selectorCode(selector));
  }
  if (!descriptor.present()) return raise(cpu, Vector::ss, selectorCode(selector));
  if (!setAccessed(cpu, selector, descriptor)) return false;
  out = toSegment(descriptor, selector);
  return true;
}

namespace {

bool loadDataSegment(Cpu& cpu, Segment segment, std::uint16_t selector) {
  if (isNull(selector)) {
    cpu.state.segment[segment] = nullSegment(selector);
    return true;
  }
  Descriptor descriptor;
  if (!readDescriptor(cpu, selector, descriptor, Vector::gp)) return false;
  if (!descriptor.isReadable()) return raiseGp(cpu, selectorCode(selector));
  bool tooPrivileged = rpl(selector) > descriptor.dpl() || cpu.state.cpl > descriptor.dpl();
  if (!descriptor.isConforming() && tooPrivileged) return raiseGp(cpu, selectorCode(selector));
  if (!descriptor.present()) return raise(cpu, Vector::np, selectorCode(selector));
  if (!setAccessed(cpu, selector, descriptor)) return false;
  cpu.state.segment[segment] = toSegment(descriptor, selector);
  return true;
}

}  // namespace

bool loadSegment(Cpu& cpu, Segment segment, std::uint16_t selector) {
  SegmentRegister& reg = cpu.state.segment[segment];
  if (cpu.virtual8086()) {
    reg = realSegment(selector, 3);
    return true;
  }
  if (!cpu.protectedMode()) {
    // Limit and attributes stay ("unreal mode" lives on that).
    reg.selector = selector;
    reg.base = std::uint64_t{selector} << 4;
    reg.attributes |= 0x80;
    return true;
  }
  if (segment == ss) return checkStackSegment(cpu, selector, cpu.state.cpl, cpu.mode64(), reg);
  return loadDataSegment(cpu, segment, selector);
}

void loadRealCode(Cpu& cpu, std::uint16_t selector) {
  SegmentRegister& code = cpu.state.segment[cs];
  if (cpu.virtual8086()) {
    code = realSegment(selector, 3);
    return;
  }
  code.selector = selector;
  code.base = std::uint64_t{selector} << 4;
}

bool checkTargetOffset(Cpu& cpu, const Descriptor& code, std::uint64_t offset, std::uint32_t errorCode) {
  bool target64 = cpu.longMode() && code.longMode();
  bool good = target64 ? isCanonical(cpu, offset) : offset <= code.limit();
  return good || raiseGp(cpu, errorCode);
}

void dropInnerSegments(Cpu& cpu) {
  for (Segment segment : {es, ds, fs, gs}) {
    SegmentRegister& reg = cpu.state.segment[segment];
    bool conforming = !reg.isSystem() && (reg.type() & 0xc) == 0xc;
    if (isNull(reg.selector)) reg.selector = 0;  // the bases of FS and GS in 64-bit code stay
    if (reg.present() && !conforming && reg.dpl() < cpu.state.cpl) reg = nullSegment(0);
  }
}

void enterCode(Cpu& cpu, const SegmentRegister& code, unsigned cpl, std::uint64_t rip) {
  cpu.state.segment[cs] = code;
  cpu.state.cpl = static_cast<std::uint8_t>(cpl);
  cpu.state.rip = rip;
  if (cpu.listener) cpu.listener->modeChanged();
}

bool changeUserCode(Cpu& cpu, std::uint16_t selector) {
  Descriptor code;
  constexpr std::uint16_t kNullOrLevel = 0xfffc;
  std::uint32_t error = selector & kNullOrLevel;
  if (error == 0) return raiseGp(cpu, error);
  if (!readDescriptor(cpu, selector, code, Vector::gp)) return false;
  if (!code.isCode() || (selector & 3) != 3 || (!code.isConforming() && code.dpl() != 3)) return raiseGp(cpu, error);
  if (!code.present()) return raise(cpu, Vector::np, error);
  enterCode(cpu, toSegment(code, selector), 3, cpu.state.rip);
  return true;
}

bool peekStack(Cpu& cpu, std::uint64_t offset, unsigned size, std::uint64_t& value) {
  std::uint64_t linear = 0;
  std::uint64_t pointer = (cpu.state.gpr[rsp] + offset) & stackMask(cpu);
  return linearAddress(cpu, ss, pointer, size, Access::read, linear) && readLinear(cpu, linear, size, value);
}

bool loadLdtr(Cpu& cpu, std::uint16_t selector) {
  if (realOr8086(cpu)) return raiseUd(cpu);
  if (cpu.state.cpl != 0) return raiseGp(cpu, 0);
  if (isNull(selector)) {
    cpu.state.ldtr = nullSegment(selector);
    return true;
  }
  Descriptor descriptor;
  if ((selector & 4) != 0) return raiseGp(cpu, selectorCode(selector));
  if (!readSystemDescriptor(cpu, selector, descriptor, Vector::gp)) return false;
  if (!descriptor.isSystem() || descriptor.type() != system_type::ldt) return raiseGp(cpu, selectorCode(selector));
  if (!descriptor.present()) return raise(cpu, Vector::np, selectorCode(selector));
  if (cpu.longMode() && !isCanonical(cpu, descriptor.base())) return raiseGp(cpu, selectorCode(selector));
  cpu.state.ldtr = toSegment(descriptor, selector);
  return true;
}

bool loadTr(Cpu& cpu, std::uint16_t selector) {
  if (realOr8086(cpu)) return raiseUd(cpu);
  if (cpu.state.cpl != 0) return raiseGp(cpu, 0);
  if (isNull(selector)) return raiseGp(cpu, 0);
  Descriptor descriptor;
  if ((selector & 4) != 0) return raiseGp(cpu, selectorCode(selector));
  if (!readSystemDescriptor(cpu, selector, descriptor, Vector::gp)) return false;
  unsigned type = descriptor.type();
  bool available = type == system_type::tss32 || (type == system_type::tss16 && !cpu.longMode());
  if (!descriptor.isSystem() || !available) return raiseGp(cpu, selectorCode(selector));
  if (!descriptor.present()) return raise(cpu, Vector::np, selectorCode(selector));
  if (cpu.longMode() && !isCanonical(cpu, descriptor.base())) return raiseGp(cpu, selectorCode(selector));
  if (!setBusy(cpu, selector, true)) return false;
  cpu.state.tr = toSegment(descriptor, selector);
  cpu.state.tr.attributes |= 2;
  return true;
}

}  // namespace lodge::x86
