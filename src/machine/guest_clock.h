// SPDX-License-Identifier: Apache-2.0
// The parts of KVM's paravirtual clock that have to do with the host's (Linux Documentation/virt/kvm/x86/msr.rst and
// hypercalls.rst). Not while guest vector state is live.
#pragma once

#include <cstdint>

#include "x86/cpu.h"

namespace lodge {

/// Tells the guest, if it uses the clock, that the CPU stood still: its watchdogs begin anew. While the CPU does not
/// run.
void noteStandstill(x86::Cpu& cpu);

/// KVM_HC_CLOCK_PAIRING: writes the host's UTC, and the CPU's TSC at the same moment, to the structure at `gpa`.
/// Returns the hypercall's result: 0; -14, there is no memory; -95, a clock of another kind. On the CPU's thread.
std::int64_t pairClocks(x86::Cpu& cpu, std::uint64_t gpa, std::uint64_t kind);

}  // namespace lodge
