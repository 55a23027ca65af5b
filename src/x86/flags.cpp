// SPDX-License-Identifier: Apache-2.0
// System flags: PUSHF, POPF, CLI, STI, CLAC, STAC, and what the I/O privilege level guards.
#include "x86/debug_registers.h"
#include "x86/events.h"
#include "x86/system.h"
#include "x86/tlb_fill.h"

namespace lodge::x86 {

namespace {

unsigned iopl(const CpuState& state) {
  return (state.rflags >> 12) & 3;
}
bool restricted8086(const Cpu& cpu) {
  return cpu.virtual8086() && iopl(cpu.state) < 3;
}

void setFlags(Cpu& cpu, std::uint64_t value, std::uint64_t mask) {
  std::uint64_t before = cpu.state.rflags;
  cpu.state.rflags = (before & ~mask) | (value & mask) | flag::reserved1;
  std::uint64_t changed = before ^ cpu.state.rflags;
  if ((changed & flag::ac) != 0 && cpu.listener) cpu.listener->modeChanged();
  if ((changed & flag::if_) != 0) rearmDeferredEvents(cpu);
}

}  // namespace

bool pushFlags(Cpu& cpu, unsigned operandSize, std::uint64_t& image) {
  image = cpu.state.rflags & ~(flag::vm | flag::rf);
  if (!restricted8086(cpu)) return true;
  if ((cpu.state.cr4 & cr4::vme) == 0 || operandSize != 2) return raiseGp(cpu, 0);
  image = (image & ~flag::if_) | flag::iopl | ((image & flag::vif) != 0 ? flag::if_ : 0);
  return true;
}

bool popFlags(Cpu& cpu, std::uint64_t value, unsigned operandSize) {
  CpuState& state = cpu.state;
  std::uint64_t mask = flag::arithmetic | flag::tf | flag::df | flag::nt;
  if (operandSize >= 4) mask |= flag::ac | flag::id;
  if (restricted8086(cpu)) {
    bool wantsInterrupts = (value & flag::if_) != 0;
    if ((state.cr4 & cr4::vme) == 0 || operandSize != 2) return raiseGp(cpu, 0);
    if ((wantsInterrupts && (state.rflags & flag::vip) != 0) || (value & flag::tf) != 0) return raiseGp(cpu, 0);
    state.rflags = wantsInterrupts ? state.rflags | flag::vif : state.rflags & ~flag::vif;
  } else if (state.cpl <= iopl(state)) {
    mask |= flag::if_;
    if (state.cpl == 0) mask |= flag::iopl;
  }
  state.rflags &= ~flag::rf;
  setFlags(cpu, value, mask);
  return true;
}

bool setInterruptFlag(Cpu& cpu, bool value) {
  CpuState& state = cpu.state;
  if (!cpu.protectedMode() || state.cpl <= iopl(state)) {
    // STI opens the window one instruction late, and only if it was shut.
    if (value && (state.rflags & flag::if_) == 0) state.interruptShadow = 1;
    setFlags(cpu, value ? flag::if_ : 0, flag::if_);
    return true;
  }
  std::uint64_t enable = cpu.virtual8086() ? cr4::vme : cr4::pvi;
  if (state.cpl != 3 || (state.cr4 & enable) == 0) return raiseGp(cpu, 0);
  if (value && (state.rflags & flag::vip) != 0) return raiseGp(cpu, 0);
  state.rflags = value ? state.rflags | flag::vif : state.rflags & ~flag::vif;
  return true;
}

void setAccessCheck(Cpu& cpu, bool value) {
  setFlags(cpu, value ? flag::ac : 0, flag::ac);
}

bool checkUmip(Cpu& cpu) {
  bool blocked = (cpu.state.cr4 & cr4::umip) != 0 && cpu.state.cpl != 0 && cpu.protectedMode();
  return !blocked || raiseGp(cpu, 0);
}

namespace {

// The permission map of a 32-bit or 64-bit TSS (SDM vol. 1, 19.5.2).
bool allowedByMap(Cpu& cpu, std::uint16_t port, unsigned size) {
  const SegmentRegister& tr = cpu.state.tr;
  if (!tr.present() || (tr.type() & 8) == 0 || tr.limit < 103) return raiseGp(cpu, 0);
  std::uint64_t address = cpu.longMode() ? ~0ull : 0xffff'ffff;
  std::uint64_t mapBase = 0, bits = 0;
  if (!readSystem(cpu, (tr.base + 102) & address, 2, mapBase)) return false;
  // Two bytes are read always, for a range may cross into the second.
  std::uint64_t offset = mapBase + port / 8;
  if (offset + 1 > tr.limit) return raiseGp(cpu, 0);
  if (!readSystem(cpu, (tr.base + offset) & address, 2, bits)) return false;
  std::uint64_t wanted = ((1u << size) - 1) << (port & 7);
  return (bits & wanted) == 0 || raiseGp(cpu, 0);
}

}  // namespace

bool checkIoPermission(Cpu& cpu, std::uint16_t port, unsigned size) {
  bool free = !cpu.protectedMode() || (!cpu.virtual8086() && cpu.state.cpl <= iopl(cpu.state));
  if (!free && !allowedByMap(cpu, port, size)) return false;
  notePortAccess(cpu, port, size);
  return true;
}

}  // namespace lodge::x86
