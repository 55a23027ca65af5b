// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/host_features.h"

#include <asm/prctl.h>
#include <cpuid.h>
#include <sys/auxv.h>
#include <sys/syscall.h>

#include "base/trace.h"
#include "engine/translate/host_call.h"

namespace lodge::translate {

namespace {
constexpr unsigned long kHwcap2FsGsBase = 1 << 1;  // Linux arch/x86/include/uapi/asm/hwcap2.h

HostFeatures detect() {
  HostFeatures found{};
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0) {
    found.bmi1 = (b >> 3 & 1) != 0;
    found.bmi2 = (b >> 8 & 1) != 0;
  }
  if (__get_cpuid(0x80000001, &a, &b, &c, &d) != 0) found.lahf64 = (c & 1) != 0;
  found.fsgsbase = (::getauxval(AT_HWCAP2) & kHwcap2FsGsBase) != 0;
  return found;
}

const HostFeatures detected = detect();
}  // namespace

HostFeatures hostFeatures() {
  HostFeatures found = detected;
  found.bmi1 = found.bmi1 && !isWithheld(HostFeature::bmi1);
  found.bmi2 = found.bmi2 && !isWithheld(HostFeature::bmi2);
  found.fsgsbase = found.fsgsbase && !isWithheld(HostFeature::fsgsbase);
  return found;
}

void setGsBase(std::uint64_t value) {
  if (detected.fsgsbase && !isWithheld(HostFeature::fsgsbase)) {
    asm volatile("wrgsbase %0" : : "r"(value) : "memory");
  } else {
    hostCall(SYS_arch_prctl, ARCH_SET_GS, value);
  }
}

}  // namespace lodge::translate
