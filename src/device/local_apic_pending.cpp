// SPDX-License-Identifier: Apache-2.0
// What engines ask while guest vector registers may be live: compiled without vector registers (CMakeLists.txt).
#include "device/local_apic.h"

namespace lodge {

bool LocalApic::pending() const {
  if (extInt_.load(std::memory_order_relaxed) || extIntMessage_.load(std::memory_order_relaxed)) return true;
  int vector = irr_.highest();
  return vector >= 0 && (vector & 0xf0) > (ppr_.load(std::memory_order_relaxed) & 0xf0);
}

std::uint8_t LocalApic::taskPriority() const {
  return tpr_.load(std::memory_order_relaxed) >> 4;
}

bool LocalApic::eoiMayBeSkipped() const {
  return lastAcknowledged_ >= 0 && irr_.highest() < 0 && !tmr_.test(static_cast<std::uint8_t>(lastAcknowledged_)) &&
         !extInt_.load(std::memory_order_relaxed) && !extIntMessage_.load(std::memory_order_relaxed);
}

}  // namespace lodge
