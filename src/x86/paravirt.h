// SPDX-License-Identifier: Apache-2.0
// Parts of the paravirtual interface that event delivery and tests use.
#pragma once

#include <cstdint>

#include "x86/cpu.h"

namespace lodge::x86 {

/// TSC ticks to nanoseconds as pvclock_vcpu_time_info says it: shift, then multiply by a 0.32 fraction.
struct ClockScale {
  std::uint32_t multiplier;
  std::int8_t shift;
};
ClockScale clockScale(std::uint64_t tscHz);
std::uint64_t scaleTicks(const ClockScale& scale, std::uint64_t ticks);

/// If the guest skipped its last EOI by the shared flag, does it now. Before the APIC is asked anything.
void syncParavirtEoi(Cpu& cpu);
/// After LocalApic::acknowledge(): lets the guest skip the coming EOI if the APIC allows it.
void armParavirtEoi(Cpu& cpu);

}  // namespace lodge::x86
