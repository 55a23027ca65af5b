// SPDX-License-Identifier: Apache-2.0
// The guest's time stamp counter as a time of the machine's, and the parts of KVM's paravirtual clock that have to do
// with the host's (Linux Documentation/virt/kvm/x86/msr.rst and hypercalls.rst). Not while guest vector state is live.
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "x86/cpu.h"

namespace lodge {

/// When a counter that shows `current` at the time `now`, and goes at `hz`, gets to `tsc`, which is above or has
/// passed: counters do not come round. `now` if it has; a time that never comes if that is too far.
Nanoseconds timeOfTsc(std::uint64_t tsc, std::uint64_t current, std::uint64_t hz, Nanoseconds now);

/// Tells the guest, if it uses the clock, that the CPU stood still: its watchdogs begin anew. While the CPU does not
/// run.
void noteStandstill(x86::Cpu& cpu);

/// KVM_HC_CLOCK_PAIRING: writes the host's UTC, and the CPU's TSC at the same moment, to the structure at `gpa`.
/// Returns the hypercall's result: 0; -14, there is no memory; -95, a clock of another kind. On the CPU's thread.
std::int64_t pairClocks(x86::Cpu& cpu, std::uint64_t gpa, std::uint64_t kind);

}  // namespace lodge
