// SPDX-License-Identifier: Apache-2.0
// Accesses that may be done while the guest's vector registers are live (CMakeLists.txt).
#include "machine/vcpu_environment.h"

namespace lodge {

bool VcpuEnvironment::readPortLive(std::uint16_t port, unsigned size, std::uint64_t& value) {
  return setup_.ports.readLive(port, size, value);
}

bool VcpuEnvironment::writePortLive(std::uint16_t port, unsigned size, std::uint64_t value) {
  return setup_.ports.writeLive(port, size, value);
}

bool VcpuEnvironment::readMmioLive(Gpa gpa, unsigned size, std::uint64_t& value) {
  return !isApicPage(gpa, size) && setup_.memory.readLive(raw(gpa), size, value);
}

bool VcpuEnvironment::writeMmioLive(Gpa gpa, unsigned size, std::uint64_t value) {
  bool maySmmOnly = setup_.smmOnlyBase != 0 && raw(gpa) >= setup_.smmOnlyBase;
  return !maySmmOnly && !isApicPage(gpa, size) && setup_.memory.writeLive(raw(gpa), size, value);
}

}  // namespace lodge
