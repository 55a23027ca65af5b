// SPDX-License-Identifier: Apache-2.0
#include "machine/vcpu_environment.h"

namespace lodge {

namespace {
// IA32_APIC_BASE (SDM vol. 3, 11.4.4): bit 11 enables the APIC, bit 10 takes the page away in favour of MSRs.
constexpr std::uint64_t kApicEnabled = 1 << 11, kX2ApicEnabled = 1 << 10;
}  // namespace

bool VcpuEnvironment::isApicPage(Gpa gpa, unsigned size) const {
  if (!cpu_) return false;
  std::uint64_t base = cpu_->state.apicBase;
  if ((base & (kApicEnabled | kX2ApicEnabled)) != kApicEnabled) return false;
  return alignDown(raw(gpa), kPageSize) == alignDown(base, kPageSize) && (raw(gpa) & kPageMask) + size <= kPageSize;
}

std::uint64_t VcpuEnvironment::readMmio(Gpa gpa, unsigned size) {
  if (isApicPage(gpa, size)) return setup_.apicPage.read(raw(gpa) & kPageMask, size);
  return setup_.memory.read(raw(gpa), size);
}

void VcpuEnvironment::writeMmio(Gpa gpa, unsigned size, std::uint64_t value) {
  if (isApicPage(gpa, size)) {
    setup_.apicPage.write(raw(gpa) & kPageMask, size, value);
  } else {
    setup_.memory.write(raw(gpa), size, value);
  }
}

}  // namespace lodge
