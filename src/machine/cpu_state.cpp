// SPDX-License-Identifier: Apache-2.0
#include "machine/cpu_state.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "machine/guest_clock.h"
#include "x86/cpu_model.h"
#include "x86/tlb.h"
#include "x86/virtual_memory.h"

namespace lodge {

using state::Archive;
using namespace x86;

namespace {

// The XSAVE area (SDM vol. 1, 13.4): legacy region, header, and the other state components where CPUID says.
constexpr std::size_t kXsaveHeader = 512, kXsaveLegacyBytes = 576, kMxcsr = 24;
constexpr std::uint32_t kMxcsrKnown = 0xffff, kXsaveLeaf = 0xd;

/// What a CPU of this model has of its XSAVE area in use.
std::size_t xsaveBytes(const CpuModel& model) {
  std::size_t end = kXsaveLegacyBytes;
  for (const CpuidEntry& entry : model.leaves) {
    bool component = entry.leaf == kXsaveLeaf && entry.subleaf >= 2 && entry.subleaf < 63;
    if (component && (model.xcr0Supported >> entry.subleaf & 1) != 0)
      end = std::max<std::size_t>(end, std::size_t{entry.ebx} + entry.eax);
  }
  return std::min(end, sizeof(CpuState::xsave));
}

void transferSegment(Archive& a, SegmentRegister& s) {
  a(s.base, s.limit, s.selector, s.attributes);
}

/// What XRSTOR would refuse, or what is beyond the model's state components.
bool isXsaveValid(const CpuState& s, const CpuModel& model) {
  auto components = loadLe<std::uint64_t>(s.xsave + kXsaveHeader);
  if ((components & ~model.xcr0Supported) != 0) return false;
  for (std::size_t at = kXsaveHeader + 8; at < kXsaveHeader + 64; ++at) {
    if (s.xsave[at] != std::byte{0}) return false;
  }
  return (loadLe<std::uint32_t>(s.xsave + kMxcsr) & ~kMxcsrKnown) == 0;
}

bool areModesValid(const CpuState& s) {
  bool paging = (s.cr0 & cr0::pg) != 0, protection = (s.cr0 & cr0::pe) != 0, pae = (s.cr4 & cr4::pae) != 0;
  bool lme = (s.efer & efer::lme) != 0, lma = (s.efer & efer::lma) != 0;
  if (paging && !protection) return false;
  if (lma != (lme && paging) || (lma && !pae)) return false;
  if ((s.cr0 >> 32) != 0 || ((s.cr0 & cr0::nw) != 0 && (s.cr0 & cr0::cd) == 0)) return false;
  if (lma && (s.rflags & flag::vm) != 0) return false;
  if (!protection && (s.rflags & flag::vm) != 0) return false;
  return lma || (s.cr4 & cr4::pcide) == 0;
}

bool arePrivilegesValid(const CpuState& s) {
  if (s.cpl > 3) return false;
  bool protection = (s.cr0 & cr0::pe) != 0;
  if (!protection) return s.cpl == 0;
  return (s.rflags & flag::vm) == 0 || s.cpl == 3;
}

bool areControlBitsKnown(const CpuState& s, const CpuModel& model) {
  std::uint64_t efer = model.eferSupported | efer::lma;
  constexpr std::uint64_t kFlags = 0x3f'7fd7;
  return (s.cr4 & ~model.cr4Supported) == 0 && (s.efer & ~efer) == 0 && (s.xcr0 & ~model.xcr0Supported) == 0 &&
         (s.xcr0 & 1) != 0 && (s.spcCtrl & ~model.specCtrlSupported) == 0 && (s.rflags & ~kFlags) == 0 &&
         (s.rflags & flag::reserved1) != 0 && s.xss == 0;
}

bool areAddressesValid(const CpuState& s, const CpuModel& model) {
  unsigned bits = model.linearAddressBits;
  for (const SegmentRegister& segment : s.segment) {
    if (!isCanonical(segment.base, bits)) return false;
  }
  for (std::uint64_t address : {s.ldtr.base, s.tr.base, s.gdtr.base, s.idtr.base, s.kernelGsBase, s.lstar, s.cstar,
                                s.sysenterEsp, s.sysenterEip, s.rip}) {
    if (!isCanonical(address, bits)) return false;
  }
  std::uint64_t physical = std::uint64_t{1} << model.physicalAddressBits;
  return s.cr3 < physical && (s.apicBase & ~std::uint64_t{0xfff}) < physical;
}

void validate(Archive& a, const Cpu& cpu) {
  const CpuState& s = cpu.state;
  const CpuModel& model = *cpu.model;
  a.require(s.activity <= Activity::shutdown && s.interruptShadow <= 2 && s.nmiBlocked <= 1 && s.smm <= 1 &&
                s.smmNmiBlocked <= 1,
            "what the CPU is doing");
  a.require(areModesValid(s), "the CPU's mode");
  a.require(arePrivilegesValid(s), "the CPU's privilege level");
  a.require(areControlBitsKnown(s, model), "control registers: bits that this CPU model does not have");
  a.require(areAddressesValid(s, model), "an address that the CPU does not have");
  a.require(isXsaveValid(s, model), "vector registers");
}

void transferRegisters(Archive& a, CpuState& s) {
  a(s.gpr, s.rip, s.rflags, s.cr0, s.cr2, s.cr3, s.cr4, s.efer, s.xcr0, s.xss, s.dr, s.pdpte);
  for (SegmentRegister& segment : s.segment) transferSegment(a, segment);
  transferSegment(a, s.ldtr);
  transferSegment(a, s.tr);
  a(s.gdtr.base, s.gdtr.limit, s.idtr.base, s.idtr.limit);
  a(s.cpl, s.activity, s.interruptShadow, s.nmiBlocked, s.pendingDebug);
}

void transferMsrs(Archive& a, CpuState& s) {
  a(s.star, s.lstar, s.cstar, s.sfmask, s.kernelGsBase, s.sysenterCs, s.sysenterEsp, s.sysenterEip);
  a(s.tscAux, s.tscAdjust, s.pat, s.apicBase, s.miscEnable, s.spcCtrl);
  a(s.mtrrDefType, s.mtrrFixed, s.mtrrPhysBase, s.mtrrPhysMask, s.mcgStatus, s.pkru);
  a(s.smm, s.smmNmiBlocked, s.smbase);
  a(s.pvWallClock, s.pvSystemTime, s.pvSteal, s.pvEoi, s.pvPollControl, s.pvAsyncPf);
}

}  // namespace

void transferCpu(Archive& a, Cpu& cpu, std::uint64_t hostTsc) {
  CpuState before = cpu.state;
  CpuState& s = cpu.state;
  if (a.loading()) std::memset(s.xsave, 0, sizeof s.xsave);
  transferRegisters(a, s);
  std::uint64_t tsc = cpu.tscAt(hostTsc);
  a(tsc);
  transferMsrs(a, s);
  a.bytes(std::span(s.xsave).first(xsaveBytes(*cpu.model)));
  // The engine's own events, and those that only make it look, are raised anew.
  constexpr std::uint32_t kKept = event::nmi | event::init | event::sipi | event::smi | event::unhalt;
  std::uint32_t events = (cpu.events.load() | cpu.deferredEvents) & kKept;
  bool paravirtEoi = cpu.paravirtEoiArmed;
  a(events, cpu.sipiVector, paravirtEoi);
  a.require((events & ~kKept) == 0, "the CPU's events");
  if (!a.loading()) return;
  validate(a, cpu);
  if (!a.ok()) {
    s = before;
    return;
  }
  s.tscOffset = tsc - cpu.tscScale(hostTsc);
  cpu.paravirtEoiArmed = paravirtEoi;
  cpu.deferredEvents = 0;
  cpu.exception = {};
  cpu.events = events | event::interrupt | event::flushTlb;
  forgetDerivedState(cpu);
}

Nanoseconds timeOfTsc(const Cpu& cpu, std::uint64_t tsc, std::uint64_t hostTsc, Nanoseconds now) {
  // A counter that is not scaled goes at the host's rate, whatever the guest was told on another host.
  std::uint64_t hz = cpu.tscScale.isIdentity() ? cpu.model->ticksPerSecond() : cpu.model->tscHz;
  return timeOfTsc(tsc, cpu.tscAt(hostTsc), hz, now);
}

void forgetDerivedState(Cpu& cpu) {
  flushTlbEverything(cpu);
  if (!cpu.listener) return;
  cpu.listener->addressSpaceChanged(false);
  cpu.listener->modeChanged();
}

}  // namespace lodge
