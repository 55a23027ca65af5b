// SPDX-License-Identifier: Apache-2.0
// Registers that only Intel's or only AMD's processors have, as far as operating systems ask for them.
#include "x86/cpu_model.h"
#include "x86/msr.h"
#include "x86/system.h"

namespace lodge::x86 {

namespace {

constexpr std::uint32_t kBiosSignature = 0x8b;  // AMD: PATCH_LEVEL

// SDM vol. 4, chapter 2.
namespace intel {
enum : std::uint32_t {
  kPlatformId = 0x17,
  kEblCrPowerOn = 0x2a,
  kFeatureControl = 0x3a,
  kMicrocodeUpdate = 0x79,
  kFsbFrequency = 0xcd,
  kPlatformInfo = 0xce,
  kArchCapabilities = 0x10a,
  kBblCrCtl3 = 0x11e,
  kMiscEnable = 0x1a0,
};
}

// AMD APM vol. 2, appendix A, and the BKDG / PPR of family 17h.
namespace amd {
enum : std::uint32_t {
  kPerfFirst = 0xc001'0000,
  kPerfLast = 0xc001'0007,
  kSysCfg = 0xc001'0010,
  kHwcr = 0xc001'0015,
  kIorrFirst = 0xc001'0016,
  kTopMem = 0xc001'001a,
  kTopMem2 = 0xc001'001d,
  kNbCfg = 0xc001'001f,
  kPatchLoader = 0xc001'0020,
  kInterruptPending = 0xc001'0055,
  kMmioConfigBase = 0xc001'0058,
  kVmCr = 0xc001'0114,
  kOsvwIdLength = 0xc001'0140,
  kOsvwStatus = 0xc001'0141,
  kPerfExtendedFirst = 0xc001'0200,
  kPerfExtendedLast = 0xc001'020b,
  kLsCfg = 0xc001'1020,
  kIcCfg = 0xc001'1021,
  kDcCfg = 0xc001'1022,
  kDeCfg = 0xc001'1029,
  kBuCfg2 = 0xc001'102a,
};
constexpr std::uint64_t kHwcrTscFrequency = 1 << 24;  // TSC counts at the P0 rate
constexpr std::uint64_t kLfenceSerializes = 1 << 1;   // DE_CFG
constexpr std::uint64_t kSvmDisabled = 1 << 4 | 1 << 3;

// Configuration that reads as 0 and takes any write: workaround bits of silicon that is not there, counters without a
// PMU.
bool isInert(std::uint32_t number) {
  if (number >= kPerfFirst && number <= kPerfLast) return true;
  if (number >= kPerfExtendedFirst && number <= kPerfExtendedLast) return true;
  if (number >= kIorrFirst && number < kTopMem) return true;
  switch (number) {
    case kSysCfg:
    case kTopMem:
    case kTopMem2:
    case kNbCfg:
    case kInterruptPending:
    case kMmioConfigBase:
    case kLsCfg:
    case kIcCfg:
    case kDcCfg:
    case kBuCfg2:
      return true;
    default:
      return false;
  }
}
}  // namespace amd

MsrResult give(std::uint64_t& value, std::uint64_t what) {
  value = what;
  return MsrResult::done;
}

MsrResult readIntel(Cpu& cpu, std::uint32_t number, std::uint64_t& value) {
  switch (number) {
    case kBiosSignature:
      return give(value, 1ull << 32);
    case intel::kPlatformId:
    case intel::kEblCrPowerOn:
    case intel::kBblCrCtl3:
      return give(value, 0);
    case intel::kFeatureControl:
      return give(value, 1);  // locked, no VMX
    case intel::kFsbFrequency:
      return give(value, 3);
    case intel::kPlatformInfo:
      return give(value, (cpu.model->tscHz / 100'000'000 & 0xff) << 8);
    case intel::kArchCapabilities:
      if (cpu.model->archCapabilities == 0) return MsrResult::fault;
      return give(value, cpu.model->archCapabilities);
    case intel::kMiscEnable:
      return give(value, cpu.state.miscEnable);
    default:
      return MsrResult::unknown;
  }
}

MsrResult writeIntel(Cpu& cpu, std::uint32_t number, std::uint64_t value) {
  switch (number) {
    case kBiosSignature:  // written before CPUID to ask for the revision
    case intel::kMicrocodeUpdate:
    case intel::kEblCrPowerOn:
    case intel::kBblCrCtl3:
      return MsrResult::done;
    case intel::kMiscEnable: {
      constexpr std::uint64_t kReadOnly = 1 << 11 | 1 << 12;  // BTS and PEBS unavailable
      cpu.state.miscEnable = (value & ~kReadOnly) | (cpu.state.miscEnable & kReadOnly);
      return MsrResult::done;
    }
    default:
      return MsrResult::unknown;
  }
}

MsrResult readAmd(std::uint32_t number, std::uint64_t& value) {
  if (amd::isInert(number)) return give(value, 0);
  switch (number) {
    case kBiosSignature:
      return give(value, 1);
    case amd::kHwcr:
      return give(value, amd::kHwcrTscFrequency);
    case amd::kDeCfg:
      return give(value, amd::kLfenceSerializes);
    case amd::kVmCr:
      return give(value, amd::kSvmDisabled);
    case amd::kOsvwIdLength:
    case amd::kOsvwStatus:
      return give(value, 0);
    default:
      return MsrResult::unknown;
  }
}

MsrResult writeAmd(std::uint32_t number) {
  if (amd::isInert(number)) return MsrResult::done;
  switch (number) {
    case kBiosSignature:
    case amd::kPatchLoader:
    case amd::kHwcr:
    case amd::kDeCfg:
    case amd::kVmCr:
      return MsrResult::done;
    default:
      return MsrResult::unknown;
  }
}

}  // namespace

MsrResult readVendorMsr(Cpu& cpu, std::uint32_t number, std::uint64_t& value) {
  return cpu.model->vendor == CpuVendor::intel ? readIntel(cpu, number, value) : readAmd(number, value);
}

MsrResult writeVendorMsr(Cpu& cpu, std::uint32_t number, std::uint64_t value) {
  return cpu.model->vendor == CpuVendor::intel ? writeIntel(cpu, number, value) : writeAmd(number);
}

}  // namespace lodge::x86
