// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lodge::x86 {

/// A local APIC while its CPU stands still, as its registers hold it (SDM vol. 3, table 11-1): what boards and engines
/// that keep local APICs themselves hand to each other. In x2APIC mode, too, the ICR is the two registers at 0x300 and
/// 0x310; the ID is 32 bits then.
struct LocalApicRegisters {
  std::uint64_t base = 0;         ///< IA32_APIC_BASE
  std::uint64_t tscDeadline = 0;  ///< IA32_TSC_DEADLINE; 0: not armed
  std::uint32_t words[64] = {};   ///< the register at offset 16 * n
};

}  // namespace lodge::x86
