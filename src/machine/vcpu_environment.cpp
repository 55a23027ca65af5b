// SPDX-License-Identifier: Apache-2.0
#include "machine/vcpu_environment.h"

namespace lodge {

std::uint64_t VcpuEnvironment::readMmio(Gpa gpa, unsigned size) {
  if (isApicPage(gpa, size)) return setup_.apic.read(raw(gpa) & kPageMask, size);
  return setup_.memory.read(raw(gpa), size);
}

void VcpuEnvironment::writeMmio(Gpa gpa, unsigned size, std::uint64_t value) {
  if (raw(gpa) >= setup_.smmOnlyBase && setup_.smmOnlyBase != 0 && raw(gpa) < 4_GiB) {
    const x86::Cpu* cpu = setup_.cpu;
    if (cpu && cpu->state.smm == 0) return;
  }
  if (isApicPage(gpa, size)) {
    setup_.apic.write(raw(gpa) & kPageMask, size, value);
  } else {
    setup_.memory.write(raw(gpa), size, value);
  }
}

}  // namespace lodge
