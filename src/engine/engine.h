// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "memory/guest_memory.h"
#include "x86/cpu.h"
#include "x86/cpu_model.h"

namespace lodge {

/// Why Vcpu::run() came back.
enum class VcpuExit : std::uint8_t {
  halted,    ///< HLT (or waiting for SIPI): call waitForEvent(), then run() again
  stopped,   ///< event::stop was set; it is cleared by whoever resumes
  shutdown,  ///< triple fault
  failed,    ///< the engine cannot go on with this guest; it has logged why
};

/// One virtual CPU on an engine. run(), waitForEvent() and cpu() between runs belong to the vCPU's thread.
class Vcpu {
 public:
  virtual ~Vcpu() = default;
  virtual x86::Cpu& cpu() = 0;
  /// Executes guest instructions until there is a reason to stop. On return CpuState is precise and vector state
  /// parked.
  virtual VcpuExit run() = 0;
  /// Sleeps until an event bit is set (or a pending interrupt can be taken).
  virtual void waitForEvent() = 0;
  /// Named counters for `lodge stats`: translations, exits by reason, TLB misses... Any thread; approximate.
  virtual std::vector<std::pair<std::string, std::uint64_t>> statistics() const = 0;
};

/// What an engine needs to make vCPUs. References must outlive it.
struct EngineSetup {
  GuestMemory& memory;
  const x86::CpuModel& model;
  unsigned cpus;
  std::uint64_t codeCacheBytes = 128_MiB;
  std::string trace;  ///< the --trace option's value; empty for none
};

/// An execution technique. Created once a machine; thread-safe.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::string_view name() const = 0;
  /// `index` 0..cpus-1. The CPU is at power-up state, BSP running.
  virtual Result<std::unique_ptr<Vcpu>> createVcpu(unsigned index, x86::CpuEnvironment& environment) = 0;
  /// Notes the stores of guests to video memory since the last call, if it does not do so as they happen:
  /// GuestMemory::noteStore(). Any thread.
  virtual void collectVideoStores() {}
  /// What the engine made of the guest code at `linear`, as text for people (`lodge stats --dump`); empty if nothing.
  /// Any thread.
  virtual std::string describeCode([[maybe_unused]] std::uint64_t linear) const { return {}; }
};

/// By name: "kvm", "translate" or "interpret". Errors: unsupported, and the engine's own.
Result<std::unique_ptr<Engine>> makeEngine(std::string_view name, const EngineSetup& setup);

/// Takes from a CPU model what the engine of that name cannot give on this host, before anything is made of the model.
/// Errors: unsupported, io.
Status limitModel(std::string_view engine, x86::CpuModel& model);

Result<std::unique_ptr<Engine>> makeInterpretEngine(const EngineSetup& setup);
Result<std::unique_ptr<Engine>> makeTranslateEngine(const EngineSetup& setup);
Result<std::unique_ptr<Engine>> makeKvmEngine(const EngineSetup& setup);

}  // namespace lodge
