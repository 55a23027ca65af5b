// SPDX-License-Identifier: Apache-2.0
// EFER, the SYSCALL and SYSENTER registers, and the segment bases.
#include "x86/cpu_model.h"
#include "x86/msr.h"
#include "x86/system.h"
#include "x86/tlb.h"

namespace lodge::x86 {

namespace {

enum : std::uint32_t {
  kSysenterCs = 0x174,
  kSysenterEsp = 0x175,
  kSysenterEip = 0x176,
  kEfer = 0xc000'0080,
  kStar = 0xc000'0081,
  kLstar = 0xc000'0082,
  kCstar = 0xc000'0083,
  kSfmask = 0xc000'0084,
  kFsBase = 0xc000'0100,
  kGsBase = 0xc000'0101,
  kKernelGsBase = 0xc000'0102,
};

// The registers that are plain storage; addresses must be canonical.
std::uint64_t* storage(CpuState& state, std::uint32_t number, bool& isAddress) {
  isAddress = true;
  switch (number) {
    case kSysenterEsp:
      return &state.sysenterEsp;
    case kSysenterEip:
      return &state.sysenterEip;
    case kLstar:
      return &state.lstar;
    case kCstar:
      return &state.cstar;
    case kFsBase:
      return &state.segment[fs].base;
    case kGsBase:
      return &state.segment[gs].base;
    case kKernelGsBase:
      return &state.kernelGsBase;
    default:
      break;
  }
  isAddress = false;
  switch (number) {
    case kSysenterCs:
      return &state.sysenterCs;
    case kStar:
      return &state.star;
    case kSfmask:
      return &state.sfmask;
    default:
      return nullptr;
  }
}

MsrResult writeEfer(Cpu& cpu, std::uint64_t value) {
  CpuState& state = cpu.state;
  if ((value & ~(cpu.model->eferSupported | efer::lma)) != 0) return MsrResult::fault;
  std::uint64_t changed = state.efer ^ value;
  if ((changed & efer::lme) != 0 && (state.cr0 & cr0::pg) != 0) return MsrResult::fault;
  // LMA follows LME and PG by itself.
  state.efer = (value & ~efer::lma) | (state.efer & efer::lma);
  if ((changed & efer::nxe) != 0) flushTlbEverything(cpu);
  if (cpu.listener) cpu.listener->modeChanged();
  return MsrResult::done;
}

}  // namespace

MsrResult readSyscallMsr(Cpu& cpu, std::uint32_t number, std::uint64_t& value) {
  bool isAddress = false;
  if (number == kEfer) {
    value = cpu.state.efer;
    return MsrResult::done;
  }
  const std::uint64_t* from = storage(cpu.state, number, isAddress);
  if (!from) return MsrResult::unknown;
  value = *from;
  return MsrResult::done;
}

MsrResult writeSyscallMsr(Cpu& cpu, std::uint32_t number, std::uint64_t value) {
  bool isAddress = false;
  if (number == kEfer) return writeEfer(cpu, value);
  std::uint64_t* to = storage(cpu.state, number, isAddress);
  if (!to) return MsrResult::unknown;
  if (isAddress && !isCanonical(value, cpu.model->linearAddressBits)) return MsrResult::fault;
  *to = number == kSysenterCs || number == kSfmask ? value & 0xffff'ffff : value;
  return MsrResult::done;
}

}  // namespace lodge::x86
