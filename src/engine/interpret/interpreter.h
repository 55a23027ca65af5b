// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "x86/cpu.h"

namespace lodge::interpret {

/// Executes the one instruction at CS:RIP and delivers whatever fault or trap it raises (so that afterwards CS:RIP is the next
/// instruction or the handler). REP strings run a bounded number of iterations and leave RIP on themselves if not done.
/// Guest vector state may be live or parked before; it may be either after (Cpu::fpuLive tells).
/// Does not look at cpu.events. Returns state.activity == Activity::running.
bool step(x86::Cpu& cpu);

/// Runs up to `limit` instructions; stops early when cpu.events is nonzero, when the CPU is not running, or after an
/// instruction that changed paging or mode. Returns how many were executed.
std::uint64_t run(x86::Cpu& cpu, std::uint64_t limit);

}  // namespace lodge::interpret
