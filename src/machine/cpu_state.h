// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/clock.h"
#include "state/archive.h"
#include "x86/cpu.h"

namespace lodge {

/// Saves or loads one CPU's architectural state and the events that it has not taken yet; while it does not run. The
/// state's TSC offset is saved as the guest's TSC at the moment when the host's was `hostTsc`, and loaded likewise.
/// A state that no CPU of this model can be in is refused.
void transferCpu(state::Archive& a, x86::Cpu& cpu, std::uint64_t hostTsc);

/// When this CPU's time stamp counter comes to `tsc`, by a clock at which it is `now`; `hostTsc`: the host's counter
/// then. `now` where that is past; far away at most.
Nanoseconds timeOfTsc(const x86::Cpu& cpu, std::uint64_t tsc, std::uint64_t hostTsc, Nanoseconds now);

/// The engine must forget what it knows of the CPU's state: it was changed from outside.
void forgetDerivedState(x86::Cpu& cpu);

}  // namespace lodge
