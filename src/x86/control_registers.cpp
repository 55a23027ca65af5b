// SPDX-License-Identifier: Apache-2.0
// MOV to and from control registers, XSETBV, INVLPG, INVPCID (SDM vol. 3, 2.5, 4.10; vol. 2, MOV CRn).
#include "x86/cpu_model.h"
#include "x86/paging.h"
#include "x86/system.h"
#include "x86/tlb_fill.h"

namespace lodge::x86 {

namespace {

constexpr std::uint64_t kCr0Defined =
    cr0::pe | cr0::mp | cr0::em | cr0::ts | cr0::et | cr0::ne | cr0::wp | cr0::am | cr0::nw | cr0::cd | cr0::pg;
constexpr std::uint64_t kNoFlush = 1ull << 63;
constexpr std::uint64_t kPcidMask = 0xfff;

void modeChanged(Cpu& cpu) {
  if (cpu.listener) cpu.listener->modeChanged();
}

bool paePaging(std::uint64_t cr0Value, std::uint64_t cr4Value, std::uint64_t eferValue) {
  return (cr0Value & cr0::pg) != 0 && (cr4Value & cr4::pae) != 0 && (eferValue & efer::lma) == 0;
}

// What turning paging on or off does to long mode (9.8.5); false: #GP.
bool switchPaging(Cpu& cpu, std::uint64_t value, std::uint64_t& newEfer) {
  const CpuState& state = cpu.state;
  bool wasOn = (state.cr0 & cr0::pg) != 0, isOn = (value & cr0::pg) != 0;
  if (isOn && !wasOn && (state.efer & efer::lme) != 0) {
    bool tss16 = state.tr.present() && state.tr.isSystem() && (state.tr.type() & 8) == 0;
    if ((state.cr4 & cr4::pae) == 0 || state.segment[cs].longMode() || tss16) return false;
    newEfer |= efer::lma;
  }
  if (wasOn && !isOn) {
    if (cpu.mode64() || (state.cr4 & cr4::pcide) != 0) return false;
    newEfer &= ~efer::lma;
  }
  return true;
}

bool writeCr0(Cpu& cpu, std::uint64_t value) {
  CpuState& state = cpu.state;
  if (value >> 32 != 0) return raiseGp(cpu, 0);
  value = (value & kCr0Defined) | cr0::et;
  if ((value & cr0::pg) != 0 && (value & cr0::pe) == 0) return raiseGp(cpu, 0);
  if ((value & cr0::nw) != 0 && (value & cr0::cd) == 0) return raiseGp(cpu, 0);
  std::uint64_t newEfer = state.efer;
  if (!switchPaging(cpu, value, newEfer)) return raiseGp(cpu, 0);
  std::uint64_t changed = state.cr0 ^ value;
  if (paePaging(value, state.cr4, newEfer) && (changed & (cr0::pg | cr0::cd | cr0::nw)) != 0) {
    if (!loadPdptes(cpu, state.cr3)) return raiseGp(cpu, 0);
  }
  state.cr0 = value;
  state.efer = newEfer;
  if ((changed & cr0::pg) != 0) {
    flushTlbEverything(cpu);
  } else if ((changed & (cr0::wp | cr0::pe)) != 0) {
    flushTlb(cpu, true);
  }
  modeChanged(cpu);
  return true;
}

bool writeCr3(Cpu& cpu, std::uint64_t value) {
  CpuState& state = cpu.state;
  bool noFlush = false;
  if ((state.cr4 & cr4::pcide) != 0) {
    noFlush = (value & kNoFlush) != 0;
    value &= ~kNoFlush;
  }
  if (cpu.longMode()) {
    if ((value & (reservedAddressBits(cpu) | 0xfff0'0000'0000'0000)) != 0) return raiseGp(cpu, 0);
  } else {
    value &= 0xffff'ffff;
  }
  if (paePaging(state.cr0, state.cr4, state.efer) && !loadPdptes(cpu, value)) return raiseGp(cpu, 0);
  state.cr3 = value;
  // The small TLB knows no PCIDs.
  if ((state.cr4 & cr4::pcide) != 0) {
    clearTlb(cpu);
  } else {
    clearTlbButGlobal(cpu);
  }
  if (cpu.listener) cpu.listener->addressSpaceChanged(noFlush);
  return true;
}

bool checkCr4(Cpu& cpu, std::uint64_t value) {
  const CpuState& state = cpu.state;
  std::uint64_t changed = state.cr4 ^ value;
  if ((value & ~cpu.model->cr4Supported) != 0) return false;
  if (cpu.longMode() && ((value & cr4::pae) == 0 || (changed & cr4::la57) != 0)) return false;
  if ((changed & value & cr4::pcide) != 0 && (!cpu.longMode() || (state.cr3 & kPcidMask) != 0)) return false;
  constexpr std::uint64_t kReload = cr4::pae | cr4::pge | cr4::pse | cr4::smep;
  bool pae = paePaging(state.cr0, value, state.efer);
  return !pae || (changed & kReload) == 0 || loadPdptes(cpu, state.cr3);
}

bool writeCr4(Cpu& cpu, std::uint64_t value) {
  CpuState& state = cpu.state;
  if (!checkCr4(cpu, value)) return raiseGp(cpu, 0);
  std::uint64_t changed = state.cr4 ^ value;
  state.cr4 = value;
  if ((changed & (cr4::pge | cr4::pae | cr4::pse | cr4::pcide | cr4::la57)) != 0) {
    flushTlbEverything(cpu);
  } else if ((changed & (cr4::smep | cr4::smap | cr4::pke)) != 0) {
    flushTlb(cpu, true);
  }
  modeChanged(cpu);
  return true;
}

bool writeCr8(Cpu& cpu, std::uint64_t value) {
  if (value > 15) return raiseGp(cpu, 0);
  cpu.parkFpu();
  LocalApic& apic = cpu.environment->apic();
  apic.setTaskPriority(static_cast<std::uint8_t>(value));
  if (apic.pending()) cpu.events.fetch_or(event::interrupt, std::memory_order_relaxed);
  return true;
}

}  // namespace

bool readControl(Cpu& cpu, unsigned number, std::uint64_t& value) {
  const CpuState& state = cpu.state;
  if (number != 0 && number != 2 && number != 3 && number != 4 && number != 8) return raiseUd(cpu);
  if (state.cpl != 0) return raiseGp(cpu, 0);
  switch (number) {
    case 0:
      value = state.cr0;
      break;
    case 2:
      value = state.cr2;
      break;
    case 3:
      value = state.cr3;
      break;
    case 4:
      value = state.cr4;
      break;
    default:
      cpu.parkFpu();
      value = cpu.environment->apic().taskPriority();
      break;
  }
  return true;
}

bool writeControl(Cpu& cpu, unsigned number, std::uint64_t value) {
  if (number != 0 && number != 2 && number != 3 && number != 4 && number != 8) return raiseUd(cpu);
  if (cpu.state.cpl != 0) return raiseGp(cpu, 0);
  switch (number) {
    case 0:
      return writeCr0(cpu, value);
    case 3:
      return writeCr3(cpu, value);
    case 4:
      return writeCr4(cpu, value);
    case 8:
      return writeCr8(cpu, value);
    default:
      cpu.state.cr2 = value;
      return true;
  }
}

bool writeXcr(Cpu& cpu, std::uint32_t number, std::uint64_t value) {
  constexpr std::uint64_t kX87 = 1, kSse = 2, kAvx = 4, kAvx512 = 7 << 5;
  if ((cpu.state.cr4 & cr4::osxsave) == 0) return raiseUd(cpu);
  if (cpu.state.cpl != 0 || number != 0) return raiseGp(cpu, 0);
  if ((value & ~cpu.model->xcr0Supported) != 0 || (value & kX87) == 0) return raiseGp(cpu, 0);
  if ((value & kAvx) != 0 && (value & kSse) == 0) return raiseGp(cpu, 0);
  std::uint64_t avx512 = value & kAvx512;
  if (avx512 != 0 && (avx512 != kAvx512 || (value & kAvx) == 0)) return raiseGp(cpu, 0);
  cpu.state.xcr0 = value;
  modeChanged(cpu);
  return true;
}

void setPkru(Cpu& cpu, std::uint32_t value) {
  if (cpu.state.pkru == value) return;
  cpu.state.pkru = value;
  if ((cpu.state.cr4 & cr4::pke) == 0) return;
  clearTlb(cpu);
  if (cpu.listener) cpu.listener->flushEverything();
}

// INVLPG of an address that is not canonical does nothing.
void invalidatePage(Cpu& cpu, std::uint64_t linear) {
  if (!cpu.mode64()) linear &= 0xffff'ffff;
  if (isCanonical(cpu, linear)) flushTlbPage(cpu, linear);
}

namespace {

bool pcidOperands(Cpu& cpu, std::uint64_t type, std::uint64_t pcid, std::uint64_t linear) {
  if (cpu.state.cpl != 0 || type > 3) return false;
  if (type >= 2) return true;
  if (pcid > kPcidMask) return false;
  if ((cpu.state.cr4 & cr4::pcide) == 0 && pcid != 0) return false;
  return type != 0 || isCanonical(cpu, linear);
}

}  // namespace

// SDM vol. 2, INVPCID. Without PCIDE everything is tagged with PCID 0.
bool invalidatePcid(Cpu& cpu, std::uint64_t type, std::uint64_t pcid, std::uint64_t linear) {
  if (!pcidOperands(cpu, type, pcid, linear)) return raiseGp(cpu, 0);
  std::uint64_t current = (cpu.state.cr4 & cr4::pcide) != 0 ? cpu.state.cr3 & kPcidMask : 0;
  TranslationCacheListener* listener = cpu.listener;
  switch (type) {
    case 0:
      if (pcid == current) clearTlbPage(cpu, linear);
      if (listener) listener->flushPcidPage(static_cast<std::uint16_t>(pcid), linear);
      break;
    case 1:
      if (pcid == current) clearTlbButGlobal(cpu);
      if (listener) listener->flushPcid(static_cast<std::uint16_t>(pcid));
      break;
    default:
      // Type 3 keeps global translations; dropping them, too, is allowed.
      clearTlb(cpu);
      if (listener) listener->flushEverything();
      break;
  }
  return true;
}

}  // namespace lodge::x86
