// SPDX-License-Identifier: Apache-2.0
// How asynchronous events reach a vCPU. Protocol: any thread sets bits with Cpu::raise(); the vCPU's thread takes them
// in handleEvents() (x86/system.h) between instructions. An event that is masked just then moves to
// Cpu::deferredEvents, so that `events` stays zero and execution (or sleep in HLT) goes on; whoever lifts a mask calls
// rearmDeferredEvents().
#pragma once

#include "x86/cpu.h"

namespace lodge::x86 {

/// Sleeps until cpu.events is nonzero. No vector state is touched. The vCPU's thread, with the CPU halted, waiting for
/// SIPI or shut down; the caller then runs handleEvents(), which consumes or defers every bit but `stop` and `quiesce`.
void waitForEvents(Cpu& cpu);

/// To be called when IF became 1, an interrupt shadow ended, NMIs were unblocked, or a debugger changed any of those.
/// The functions of x86/system.h do it themselves; engines that write IF themselves (STI, POPF, IRET inline) must, too,
/// and then look at `events`.
inline void rearmDeferredEvents(Cpu& cpu) {
  if (cpu.deferredEvents == 0) return;
  cpu.events.fetch_or(cpu.deferredEvents, std::memory_order_relaxed);
  cpu.deferredEvents = 0;
}

}  // namespace lodge::x86
