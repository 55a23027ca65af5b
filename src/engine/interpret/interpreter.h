// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "base/error.h"
#include "x86/cpu.h"

namespace lodge::interpret {

struct Context;
class ThunkCache;

/// The interpreter's memory for one vCPU: decoded instructions and native routines for vector instructions. Made by the
/// engine before the first step() or run(); must go before the Cpu does. Also installs the process's SIGFPE handler,
/// once.
class ContextOwner {
 public:
  /// `cacheEntries`: a power of two, of 192 bytes each. Errors: outOfMemory, io (no executable memory to be had).
  static Result<std::unique_ptr<ContextOwner>> create(x86::Cpu& cpu, unsigned cacheEntries = 4096);
  ~ContextOwner();
  ContextOwner(const ContextOwner&) = delete;
  ContextOwner& operator=(const ContextOwner&) = delete;

 private:
  ContextOwner() = default;
  x86::Cpu* cpu_ = nullptr;
  Context* context_ = nullptr;
  std::size_t contextBytes_ = 0;
};

/// Executes the one instruction at CS:RIP and delivers whatever fault or trap it raises (so that afterwards CS:RIP is
/// the next instruction or the handler). REP strings run a bounded number of iterations and leave RIP on themselves if
/// not done. Guest vector state may be live or parked before; it may be either after (Cpu::fpuLive tells). Does not
/// look at cpu.events. Returns state.activity == Activity::running.
bool step(x86::Cpu& cpu);

/// Runs up to `limit` instructions; stops early when cpu.events is nonzero, when the CPU is not running, or after an
/// instruction that changed paging or mode. Returns how many were executed.
std::uint64_t run(x86::Cpu& cpu, std::uint64_t limit);

/// For an engine that installs a SIGFPE handler of its own: if the fault is that of a vector instruction which the
/// interpreter runs natively, makes it a guest exception and returns true (the handler then just returns).
bool handleFloatingPointSignal(void* ucontext);

}  // namespace lodge::interpret
