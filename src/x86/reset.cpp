// SPDX-License-Identifier: Apache-2.0
// Power-up and INIT (SDM vol. 3, 10.1 and table 10-1, "9-1" in older editions).
#include "x86/cpu_model.h"
#include "x86/debug_registers.h"
#include "x86/system.h"
#include "x86/tlb.h"

namespace lodge::x86 {

namespace {

constexpr std::uint64_t kPatReset = 0x0007'0406'0007'0406;
constexpr std::uint64_t kApicBaseReset = 0xfee0'0000 | 1 << 11;
constexpr std::uint64_t kBootstrapProcessor = 1 << 8;
constexpr std::uint64_t kMiscEnableReset = 1 | 1 << 11 | 1 << 12;  // fast strings; no BTS, no PEBS

void resetSegments(CpuState& state) {
  for (SegmentRegister& segment : state.segment) segment = {0, 0xffff, 0, 0x93};
  state.segment[cs] = {0xffff'0000, 0xffff, 0xf000, 0x93};
  state.ldtr = {0, 0xffff, 0, 0x82};
  state.tr = {0, 0xffff, 0, 0x8b};
  state.gdtr = {0, 0xffff, 0};
  state.idtr = {0, 0xffff, 0};
}

std::uint32_t signature(const CpuModel& model) {
  for (const CpuidEntry& entry : model.leaves) {
    if (entry.leaf == 1) return entry.eax;
  }
  return 0;
}

// What both power-up and INIT set.
void resetCommon(Cpu& cpu) {
  CpuState& state = cpu.state;
  for (std::uint64_t& reg : state.gpr) reg = 0;
  state.gpr[rdx] = signature(*cpu.model);
  state.rip = 0xfff0;
  state.rflags = flag::reserved1;
  state.cr0 = cr0::et | (state.cr0 & (cr0::cd | cr0::nw));
  state.cr2 = state.cr3 = state.cr4 = 0;
  state.efer = 0;
  for (std::uint64_t& reg : state.dr) reg = 0;
  for (std::uint64_t& reg : state.pdpte) reg = 0;
  state.dr[6] = dr6::fixedOnes;
  state.dr[7] = dr7::fixedOnes;
  resetSegments(state);
  state.cpl = 0;
  state.activity = cpu.index == 0 ? Activity::running : Activity::waitForSipi;
  state.interruptShadow = 0;
  state.nmiBlocked = 0;
  state.smm = state.smmNmiBlocked = 0;
  state.pendingDebug = 0;
  cpu.exception.valid = false;
  cpu.deferredEvents = 0;
}

void store(std::byte* at, unsigned size, std::uint64_t value) {
  storeHost(at, size, value);
}

// x87 and SSE as power-up leaves them, in the XSAVE area's legacy region (SDM vol. 1, 10.5.1 and 13.4.2).
void resetVectorState(CpuState& state) {
  for (unsigned i = 0; i < sizeof state.xsave; i += 8) store(state.xsave + i, 8, 0);
  store(state.xsave + 0, 2, 0x40);     // FCW
  store(state.xsave + 4, 1, 0xff);     // abridged FTW: nothing empty
  store(state.xsave + 24, 4, 0x1f80);  // MXCSR
  store(state.xsave + 512, 8, 3);      // XSTATE_BV: x87 and SSE are in the area
}

void resetMsrs(Cpu& cpu) {
  CpuState& state = cpu.state;
  state.star = state.lstar = state.cstar = state.sfmask = state.kernelGsBase = 0;
  state.sysenterCs = state.sysenterEsp = state.sysenterEip = 0;
  // The TSC starts with the machine and runs through its resets; what the guest added goes. By the factor of the
  // engine, which need not be the model's: the host's count may be of months.
  state.tscOffset = state.tscOffset == 0 ? 0 - cpu.tscScale(cpu.model->tscBase) : state.tscOffset - state.tscAdjust;
  state.tscAux = state.tscAdjust = 0;
  state.pat = kPatReset;
  state.apicBase = kApicBaseReset | (cpu.index == 0 ? kBootstrapProcessor : 0);
  state.miscEnable = kMiscEnableReset;
  state.spcCtrl = 0;
  state.mtrrDefType = 0;
  for (std::uint64_t& reg : state.mtrrFixed) reg = 0;
  for (std::uint64_t& reg : state.mtrrPhysBase) reg = 0;
  for (std::uint64_t& reg : state.mtrrPhysMask) reg = 0;
  state.mcgStatus = 0;
  state.pkru = 0;
  state.xcr0 = 1;
  state.xss = 0;
  state.pvWallClock = state.pvSystemTime = state.pvSteal = state.pvEoi = state.pvPollControl = state.pvAsyncPf = 0;
  cpu.paravirtEoiArmed = false;
}

}  // namespace

void resetCpu(Cpu& cpu, bool isInit) {
  if (!isInit) {
    cpu.state.cr0 = cr0::cd | cr0::nw;
    cpu.state.smbase = 0x3'0000;
    resetMsrs(cpu);
    resetVectorState(cpu.state);
  }
  resetCommon(cpu);
  if (isInit) {
    cpu.parkFpu();
    cpu.environment->apic().reset();
  }
  flushTlbEverything(cpu);
  if (cpu.listener) {
    cpu.listener->addressSpaceChanged(false);
    cpu.listener->modeChanged();
  }
}

}  // namespace lodge::x86
