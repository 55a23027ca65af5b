// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "device/apic_bus.h"
#include "device/doorbells.h"
#include "device/local_apic.h"
#include "engine/engine.h"
#include "machine/board_chips.h"
#include "machine/tracing_environment.h"
#include "machine/vcpu_environment.h"
#include "machine/vcpu_thread.h"
#include "state/snapshot.h"
#include "x86/cpu_model.h"

namespace lodge {

/// The machine's CPUs: each a vCPU with its local APIC, its view of the buses and its thread.
class Processors {
 public:
  struct Setup {
    Engine& engine;  ///< until moveTo()
    const x86::CpuModel& model;
    EventLoop& loop;
    ApicBus& apicBus;
    BoardChips& chips;
    Doorbells& doorbells;
    IoBus& ports;
    IoBus& memory;
    std::uint64_t smmOnlyBase;            ///< VcpuEnvironment's
    bool traceIo;                         ///< --trace io
    GuestInterfaces interfaces;           ///< whose state is saved, too
    std::function<void(VcpuExit)> onEnd;  ///< a triple fault, or an engine's failure; on the vCPU's thread
  };
  static Result<std::unique_ptr<Processors>> create(const Setup& setup);
  ~Processors();

  unsigned count() const { return static_cast<unsigned>(cpus_.size()); }
  x86::Cpu& cpu(unsigned index) { return cpus_[index].thread->cpu(); }
  /// Starts the threads; they wait until resume().
  void start();
  /// Returns when no vCPU executes; their states are precise then. Not on a vCPU's thread.
  void pause();
  void resume();
  /// All vCPUs forget address translations before their next instruction. Any thread.
  void forgetTranslations();
  /// Makes the calling vCPU, and soon all others, stop executing without waiting for them.
  void requestPause();
  /// requestPause(), which nothing but stop() ends. Any thread.
  void halt();
  /// Ends the threads, for good. CPUs and APICs stay, since devices may still signal them.
  void stop();
  /// All CPUs go on, in the state that they have, on another engine from now on; while paused. The engine before may be
  /// destroyed afterwards. Errors: the new engine's; the CPUs are then left as they were.
  Status moveTo(Engine& engine);
  /// What the engine has of the board's interrupt controllers and timers comes back, before the board is saved or
  /// reset; while paused. It goes again when the CPUs go on.
  void takeChips();
  /// Power-up state of all CPUs and APICs, while paused.
  void powerOn();
  /// Saves or loads all CPUs and their APICs, while paused. `hostTsc`: the host's TSC at the moment that is saved, or
  /// that the machine goes on from.
  void transfer(state::Snapshot& snapshot, std::uint64_t hostTsc);
  /// Whether the engine can go on with guests of the guest's that were loaded; after transfer(). Errors: unsupported,
  /// io.
  Status tryNested();
  /// What of the processor's virtualization the guest uses on one of its CPUs; while paused.
  Virtualization virtualizationInUse();
  /// Guests are told that their CPUs stood still for a time that their watchdogs could take for a fault; while paused.
  void noteStandstill();
  /// The clock was set: where the guest's wall clock begins follows from the host's again.
  void clockWasSet();
  /// How long CPUs have slept in HLT, all together, in nanoseconds. Any thread.
  std::uint64_t slept() const;
  /// Counters go on over changes of the engine; those of an engine that is not in use are not told. I/O thread.
  std::vector<std::pair<std::string, std::uint64_t>> statistics() const;

 private:
  /// A CPU as its local APIC sees it.
  struct Signals : ApicCpu {
    void raiseInterrupt() override { raise(x86::event::interrupt); }
    void raiseNmi() override { raise(x86::event::nmi); }
    void raiseSmi() override { raise(x86::event::smi); }
    void raiseInit() override { raise(x86::event::init); }
    void raiseStartUp(std::uint8_t vector) override {
      if (x86::Cpu* to = cpu) to->sipiVector = vector;
      raise(x86::event::sipi);
    }
    void raise(std::uint32_t bits) {
      if (x86::Cpu* to = cpu) to->raise(bits);
    }
    std::atomic<x86::Cpu*> cpu{nullptr};
  };
  struct Processor {
    Signals signals;
    std::unique_ptr<LocalApic> apic;
    std::unique_ptr<VcpuEnvironment> environment;
    std::unique_ptr<TracingEnvironment> tracer;  ///< in front of `environment`, if asked for
    std::unique_ptr<VcpuThread> thread;
    std::map<std::string, std::uint64_t> counted;  ///< by vCPUs of engines that it was on before
  };
  x86::CpuEnvironment& worldOf(Processor& p) {
    return p.tracer ? static_cast<x86::CpuEnvironment&>(*p.tracer) : *p.environment;
  }

  /// The engine as the bus sees it, if it keeps the local APICs, and as doorbells do.
  struct Keeper : ApicKeeper, DoorbellWatcher {
    bool sendMsi(std::uint64_t address, std::uint32_t data) override { return engine->sendMsi({address, data}); }
    void setLevelMessages(std::span<const Msi> messages) override {
      std::vector<MsiMessage> all;
      for (const Msi& each : messages) all.push_back({each.address, each.data});
      engine->setLevelMessages(all);
    }
    bool setMsiEvent(int event, const Msi* message) override {
      if (!message) return engine->setMsiEvent(event, nullptr);
      MsiMessage given{message->address, message->data};
      return engine->setMsiEvent(event, &given);
    }
    bool watch(std::uint64_t address, int event) override { return engine->watchStores(address, event); }
    void unwatch(std::uint64_t address, int event) override { engine->unwatchStores(address, event); }
    Engine* engine = nullptr;
  };

  Processors(const Setup& setup) : setup_(setup), gate_(setup.model.cpus) { useEngine(setup.engine); }
  void useEngine(Engine& engine);
  void transferInterfaces(state::Snapshot& snapshot, unsigned index);
  Status giveApics();
  Status takeApics();
  Status add(unsigned index);
  Nanoseconds timeOfTsc(const x86::Cpu* cpu, std::uint64_t tsc) const;
  std::int64_t hypercall(Processor& caller, std::uint64_t number, const std::uint64_t (&arguments)[4]);

  Setup setup_;
  Keeper keeper_;
  bool apicsAreAway_ = false;  ///< the engine has the local APICs' state
  RunGate gate_;
  Nanoseconds wallClockBase_ = 0;
  std::deque<Processor> cpus_;
};

}  // namespace lodge
