// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "state/archive.h"
#include "x86/cpu.h"

namespace lodge {

/// Saves or loads one CPU's architectural state and the events that it has not taken yet; while it does not run. The
/// state's TSC offset is saved as the guest's TSC at the moment when the host's was `hostTsc`, and loaded likewise.
/// A state that no CPU of this model can be in is refused.
void transferCpu(state::Archive& a, x86::Cpu& cpu, std::uint64_t hostTsc);

/// The engine must forget what it knows of the CPU's state: it was changed from outside.
void forgetDerivedState(x86::Cpu& cpu);

}  // namespace lodge
