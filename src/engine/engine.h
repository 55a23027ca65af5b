// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/interface_state.h"
#include "engine/irqchip.h"
#include "memory/guest_memory.h"
#include "x86/cpu.h"
#include "x86/cpu_model.h"
#include "x86/local_apic_registers.h"

namespace lodge {

/// Why Vcpu::run() came back.
enum class VcpuExit : std::uint8_t {
  halted,    ///< HLT (or waiting for SIPI): call waitForEvent(), then run() again
  stopped,   ///< event::stop was set; it is cleared by whoever resumes. See settle()
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
  /// Makes CpuState precise after `stopped`, once no vCPU runs: until then, others may have sent this one an INIT. Any
  /// thread.
  virtual void settle() {}
  /// The machine is reset: what the engine alone knows of the guest is as at power-up, and CpuState counts. While no
  /// vCPU runs; any thread.
  virtual void forget() {}
  /// The local APIC's state, of an engine that keeps local APICs; after settle(). Errors: io.
  virtual Status readApic(x86::LocalApicRegisters&) { return Error(ErrorKind::unsupported, "no local APIC here"); }
  /// Sets it; CpuState's TSC offset is that of the deadline. While no vCPU runs. Errors: io.
  virtual Status writeApic(const x86::LocalApicRegisters&) {
    return Error(ErrorKind::unsupported, "no local APIC here");
  }
  /// What belongs to EngineSetup::interfaces and not to CpuState, but for NestedState::inUse; after settle(). Errors:
  /// io.
  virtual Status readInterfaces(InterfaceState&) { return {}; }
  /// Sets it, after forget() and before the vCPU runs. Errors: unsupported, with what the guest uses and the engine has
  /// not; io.
  virtual Status writeInterfaces(const InterfaceState& state) {
    if (state.nested.inUse == Virtualization::none) return {};
    return Error(ErrorKind::unsupported,
                 "the guest uses " + std::string(nameOf(state.nested.inUse)) + ", which this engine does not have");
  }
  /// Named counters for `lodge stats`: translations, exits by reason, TLB misses... Any thread; approximate.
  virtual std::vector<std::pair<std::string, std::uint64_t>> statistics() const = 0;
};

/// What guests are offered only where it is asked for, and the engine can.
struct GuestInterfaces {
  bool nested = false;  ///< the processor's virtualization
  bool hyperv = false;  ///< Hyper-V's interface
  bool any() const { return nested || hyperv; }
};

/// What an engine needs to make vCPUs. References must outlive it.
struct EngineSetup {
  GuestMemory& memory;
  const x86::CpuModel& model;
  unsigned cpus;
  std::uint64_t codeCacheBytes = 128_MiB;
  std::string trace;  ///< the --trace option's value; empty for none
  Irqchip irqchip = Irqchip::best;
  GuestInterfaces interfaces{};
};

/// A message-signalled interrupt, as devices write it (SDM vol. 3, 11.11).
struct MsiMessage {
  std::uint64_t address;
  std::uint32_t data;
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
  /// Whether local APICs are the engine's (Vcpu::readApic(), writeApic()), and the board's only pass on what the 8259A
  /// asks. If so, messages to them go by the functions that follow; any thread.
  virtual bool keepsLocalApics() const { return false; }
  /// Whether a CPU took it.
  virtual bool sendMsi(const MsiMessage&) { return false; }
  /// The messages of level-triggered inputs. EOIs of their vectors are told to setEoiListener()'s function.
  virtual void setLevelMessages(std::span<const MsiMessage>) {}
  /// From now on an event of the eventfd sends the message; null: no more. False: it does not. With keepsLocalApics().
  virtual bool setMsiEvent(int /*event*/, const MsiMessage*) { return false; }
  /// From now on each store of guests of two bytes at `gpa` is an event of the eventfd, and no device access. False: it
  /// stays one.
  virtual bool watchStores(std::uint64_t /*gpa*/, int /*event*/) { return false; }
  virtual void unwatchStores(std::uint64_t /*gpa*/, int /*event*/) {}
  /// Called on vCPUs' threads; set before the first vCPU runs.
  virtual void setEoiListener(std::function<void(std::uint8_t vector)>) {}
  /// What the engine made of the guest code at `linear`, as text for people (`lodge stats --dump`); empty if nothing.
  /// Any thread.
  virtual std::string describeCode([[maybe_unused]] std::uint64_t linear) const { return {}; }
};

/// By name: "kvm", "translate" or "interpret". Errors: unsupported, and the engine's own.
Result<std::unique_ptr<Engine>> makeEngine(std::string_view name, const EngineSetup& setup);

/// Adds to a CPU model what was asked for, after limitModel(). Errors: unsupported with a hint; io.
Status offerInterfaces(std::string_view engine, x86::CpuModel& model, GuestInterfaces interfaces,
                       Irqchip irqchip = Irqchip::best);

/// Takes from a CPU model what the engine of that name cannot give on this host, before anything is made of the model.
/// Errors: unsupported, io.
Status limitModel(std::string_view engine, x86::CpuModel& model, Irqchip irqchip = Irqchip::best);

/// Whether the engine of that name lets the guest's time stamp counter run at the model's rate on this host. Errors:
/// unsupported, with both rates; io.
Status keepsTscRate(std::string_view engine, const x86::CpuModel& model);

Result<std::unique_ptr<Engine>> makeInterpretEngine(const EngineSetup& setup);
Result<std::unique_ptr<Engine>> makeTranslateEngine(const EngineSetup& setup);
Result<std::unique_ptr<Engine>> makeKvmEngine(const EngineSetup& setup);

}  // namespace lodge
