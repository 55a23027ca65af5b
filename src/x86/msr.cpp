// SPDX-License-Identifier: Apache-2.0
#include "x86/msr.h"

#include "x86/cpu_model.h"
#include "x86/system.h"

namespace lodge::x86 {

namespace {

// SDM vol. 4, table 2-2.
enum : std::uint32_t {
  kTsc = 0x10,
  kApicBase = 0x1b,
  kTscAdjust = 0x3b,
  kSpecCtrl = 0x48,
  kPredCmd = 0x49,
  kMcgCap = 0x179,
  kMcgStatus = 0x17a,
  kDebugCtl = 0x1d9,
  kLastBranchFirst = 0x1db,
  kLastExceptionLast = 0x1de,
  kTscDeadline = 0x6e0,
  kX2ApicFirst = 0x800,
  kX2ApicLast = 0x8ff,
  kXss = 0xda0,
  kTscAux = 0xc000'0103,
};

bool isApic(std::uint32_t number) {
  return number == kApicBase || number == kTscDeadline || (number >= kX2ApicFirst && number <= kX2ApicLast);
}

MsrResult readApic(Cpu& cpu, std::uint32_t number, std::uint64_t& value) {
  cpu.parkFpu();
  return cpu.environment->apic().readMsr(number, value) ? MsrResult::done : MsrResult::fault;
}

MsrResult writeApic(Cpu& cpu, std::uint32_t number, std::uint64_t value) {
  cpu.parkFpu();
  LocalApic& apic = cpu.environment->apic();
  if (!apic.writeMsr(number, value)) return MsrResult::fault;
  if (number == kApicBase && !apic.readMsr(kApicBase, cpu.state.apicBase)) cpu.state.apicBase = value;
  return MsrResult::done;
}

void moveTsc(Cpu& cpu, std::uint64_t delta) {
  cpu.state.tscOffset += delta;
  cpu.state.tscAdjust += delta;
  publishParavirtClock(cpu);
  cpu.parkFpu();
  cpu.environment->apic().tscChanged();
}

bool hasTscAux(const Cpu& cpu) {
  return cpu.model->has(Feature::rdtscp) || cpu.model->has(Feature::rdpid);
}

MsrResult readCommon(Cpu& cpu, std::uint32_t number, std::uint64_t& value) {
  const CpuState& state = cpu.state;
  if (number >= kLastBranchFirst && number <= kLastExceptionLast) {
    value = 0;
    return MsrResult::done;
  }
  switch (number) {
    case 0x0:
    case 0x1:
      value = 0;
      return MsrResult::done;  // P5_MC_ADDR, P5_MC_TYPE: aliases of bank 0, which is not there
    case kTsc:
      value = readTsc(cpu);
      return MsrResult::done;
    case kTscAdjust:
      value = state.tscAdjust;
      return MsrResult::done;
    case kSpecCtrl:
      if (cpu.model->specCtrlSupported == 0) return MsrResult::fault;
      value = state.spcCtrl;
      return MsrResult::done;
    case kMcgCap:
      value = 0;
      return MsrResult::done;  // no error reporting banks
    case kMcgStatus:
      value = state.mcgStatus;
      return MsrResult::done;
    case kDebugCtl:
      value = 0;
      return MsrResult::done;
    case kXss:
      if (!cpu.model->has(Feature::xsaves)) return MsrResult::fault;
      value = state.xss;
      return MsrResult::done;
    case kTscAux:
      if (!hasTscAux(cpu)) return MsrResult::fault;
      value = state.tscAux;
      return MsrResult::done;
    default:
      return MsrResult::unknown;
  }
}

MsrResult writeTscAux(Cpu& cpu, std::uint64_t value) {
  if (!hasTscAux(cpu)) return MsrResult::fault;
  // AMD drops the upper half, Intel refuses it.
  if (value >> 32 != 0 && cpu.model->vendor == CpuVendor::intel) return MsrResult::fault;
  cpu.state.tscAux = value & 0xffff'ffff;
  return MsrResult::done;
}

MsrResult writeCommon(Cpu& cpu, std::uint32_t number, std::uint64_t value) {
  CpuState& state = cpu.state;
  constexpr std::uint64_t kBranchTrace = 3;  // LBR and BTF: accepted, not carried out
  switch (number) {
    case 0x0:
    case 0x1:
      return MsrResult::done;
    case kTsc:
      moveTsc(cpu, value - readTsc(cpu));
      return MsrResult::done;
    case kTscAdjust:
      moveTsc(cpu, value - state.tscAdjust);
      return MsrResult::done;
    case kSpecCtrl:
      if (cpu.model->specCtrlSupported == 0 || (value & ~cpu.model->specCtrlSupported) != 0) return MsrResult::fault;
      state.spcCtrl = value;
      return MsrResult::done;
    case kPredCmd:
      if (cpu.model->specCtrlSupported == 0 || value > 1) return MsrResult::fault;
      return MsrResult::done;
    case kMcgStatus:
      state.mcgStatus = value & 7;
      return MsrResult::done;
    case kDebugCtl:
      return (value & ~kBranchTrace) == 0 ? MsrResult::done : MsrResult::fault;
    case kXss:
      return cpu.model->has(Feature::xsaves) && value == 0 ? MsrResult::done : MsrResult::fault;
    case kTscAux:
      return writeTscAux(cpu, value);
    default:
      return MsrResult::unknown;
  }
}

}  // namespace

bool readMsr(Cpu& cpu, std::uint32_t number, std::uint64_t& value) {
  if (cpu.state.cpl != 0) return raiseGp(cpu, 0);
  MsrResult result = isApic(number) ? readApic(cpu, number, value) : readSyscallMsr(cpu, number, value);
  if (result == MsrResult::unknown) result = readCommon(cpu, number, value);
  if (result == MsrResult::unknown) result = readMemoryTypeMsr(cpu, number, value);
  if (result == MsrResult::unknown) result = readParavirtMsr(cpu, number, value);
  if (result == MsrResult::unknown) result = readVendorMsr(cpu, number, value);
  return result == MsrResult::done || raiseGp(cpu, 0);
}

bool writeMsr(Cpu& cpu, std::uint32_t number, std::uint64_t value) {
  if (cpu.state.cpl != 0) return raiseGp(cpu, 0);
  MsrResult result = isApic(number) ? writeApic(cpu, number, value) : writeSyscallMsr(cpu, number, value);
  if (result == MsrResult::unknown) result = writeCommon(cpu, number, value);
  if (result == MsrResult::unknown) result = writeMemoryTypeMsr(cpu, number, value);
  if (result == MsrResult::unknown) result = writeParavirtMsr(cpu, number, value);
  if (result == MsrResult::unknown) result = writeVendorMsr(cpu, number, value);
  return result == MsrResult::done || raiseGp(cpu, 0);
}

std::uint64_t readTsc(Cpu& cpu) {
  std::uint32_t low, high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high));
  return cpu.tscAt(std::uint64_t{high} << 32 | low);
}

}  // namespace lodge::x86
