// SPDX-License-Identifier: Apache-2.0
#include "machine/processors.h"

#include <fmt/format.h>

#include <limits>
#include <string_view>

#include "base/log.h"
#include "device/chip_state.h"
#include "engine/nested_keeper.h"
#include "machine/cpu_state.h"
#include "machine/guest_clock.h"
#include "machine/interface_state.h"
#include "x86/paravirt.h"
#include "x86/system.h"

namespace lodge {

namespace {

// Linux Documentation/virt/kvm/x86/hypercalls.rst.
constexpr std::uint64_t kKickCpu = 5, kClockPairing = 9, kSendIpi = 10, kSchedYield = 11;
constexpr std::int64_t kNoSuchHypercall = -1000;

/// How full the translator's cache is; everything else counts up.
bool isLevel(std::string_view counter) {
  return counter.starts_with("cache_") && counter.ends_with("_bytes");
}

/// What a CPU is between two instructions, whatever runs it. Engines may not scale its time stamp counter by the same
/// factor: it goes on from where it is at `hostTsc`.
void copyArchitecture(const x86::Cpu& from, x86::Cpu& to, std::uint64_t hostTsc) {
  to.state = from.state;
  to.state.tscOffset = from.tscAt(hostTsc) - to.tscScale(hostTsc);
  to.sipiVector = from.sipiVector.load();
  to.deferredEvents = from.deferredEvents;
  to.paravirtEoiArmed = from.paravirtEoiArmed;
  to.exception = from.exception;
  to.events = (from.events.load() & ~x86::event::quiesce) | x86::event::flushTlb;
  forgetDerivedState(to);
}

}  // namespace

Result<std::unique_ptr<Processors>> Processors::create(const Setup& setup) {
  auto processors = std::unique_ptr<Processors>(new Processors(setup));
  processors->clockWasSet();
  for (unsigned index = 0; index < setup.model.cpus; ++index) {
    if (Status added = processors->add(index); !added) return std::move(added).error();
  }
  return processors;
}

Status Processors::add(unsigned index) {
  Processor& p = cpus_.emplace_back();
  LocalApic::Setup apic{index,
                        index == 0,
                        setup_.model.physicalAddressBits,
                        setup_.apicBus,
                        p.signals,
                        setup_.loop,
                        [this, &p](std::uint64_t tsc) { return timeOfTsc(p.signals.cpu, tsc); }};
  p.apic = std::make_unique<LocalApic>(apic);
  VcpuEnvironment::Setup environment{
      setup_.ports,
      setup_.memory,
      *p.apic,
      setup_.loop.clock(),
      setup_.smmOnlyBase,
      p.signals.cpu,
      wallClockBase_,
      [this, &p](std::uint64_t number, const std::uint64_t(&a)[4]) { return hypercall(p, number, a); }};
  p.environment = std::make_unique<VcpuEnvironment>(std::move(environment));
  if (setup_.traceIo) p.tracer = std::make_unique<TracingEnvironment>(index, *p.environment);
  auto vcpu = setup_.engine.createVcpu(index, worldOf(p));
  if (!vcpu) return std::move(vcpu).error();
  p.signals.cpu = &(*vcpu)->cpu();
  p.thread = std::make_unique<VcpuThread>(std::move(*vcpu), gate_, setup_.onEnd);
  return {};
}

Processors::~Processors() {
  stop();
  setup_.doorbells.setWatcher(nullptr);
  setup_.chips.leave();
  setup_.apicBus.setKeeper(nullptr, [] {});
}

void Processors::stop() {
  gate_.order(RunGate::Order::leave);
  for (Processor& p : cpus_) {
    if (!p.thread) continue;
    p.thread->interrupt();
    p.thread->join();
  }
}

void Processors::start() {
  for (Processor& p : cpus_) p.thread->start();
}

void Processors::requestPause() {
  gate_.order(RunGate::Order::pause);
  for (Processor& p : cpus_) p.thread->interrupt();
}

void Processors::halt() {
  gate_.close();
  for (Processor& p : cpus_) p.thread->interrupt();
}

void Processors::pause() {
  requestPause();
  gate_.waitUntilParked();
  for (Processor& p : cpus_) p.thread->vcpu().settle();
}

void Processors::forgetTranslations() {
  for (Processor& p : cpus_) p.signals.raise(x86::event::flushTlb);
}

void Processors::resume() {
  if (Status given = giveApics(); !given) {
    log(LogLevel::error, "{}", given.error().message());
    return setup_.onEnd(VcpuExit::failed);
  }
  gate_.order(RunGate::Order::run);
}

void Processors::noteStandstill() {
  for (Processor& p : cpus_) lodge::noteStandstill(p.thread->cpu());
}

void Processors::clockWasSet() {
  wallClockBase_ = hostUtc() - setup_.loop.clock().now();
}

void Processors::useEngine(Engine& engine) {
  setup_.doorbells.setWatcher(nullptr);
  keeper_.engine = &engine;
  setup_.doorbells.setWatcher(&keeper_);
  engine.setEoiListener([bus = &setup_.apicBus](std::uint8_t vector) { bus->broadcastEoi(vector); });
}

/// Before vCPUs run: an engine that keeps local APICs gets their state.
Status Processors::giveApics() {
  if (apicsAreAway_ || !keeper_.engine->keepsLocalApics()) return {};
  Status done;
  setup_.apicBus.setKeeper(&keeper_, [&] {
    for (Processor& p : cpus_) {
      x86::Cpu& cpu = p.thread->cpu();
      x86::syncParavirtEoi(cpu);
      // INITs and SIPIs that a CPU has not seen yet are for the local APICs that sent them.
      constexpr std::uint32_t kOfBoard = x86::event::init | x86::event::sipi | x86::event::unhalt;
      if ((cpu.events.load() & kOfBoard) != 0) x86::handleEvents(cpu);
      if (Status written = p.thread->vcpu().writeApic(p.apic->surrender()); !written && done) done = std::move(written);
    }
  });
  apicsAreAway_ = true;
  return done ? setup_.chips.give(*keeper_.engine) : std::move(done);
}

/// While vCPUs stand still: the board's local APICs get their state back, to be saved, reset or moved.
Status Processors::takeApics() {
  if (!apicsAreAway_) return {};
  Status done = setup_.chips.take();
  setup_.apicBus.setKeeper(nullptr, [&] {
    for (Processor& p : cpus_) {
      x86::LocalApicRegisters registers;
      if (Status read = p.thread->vcpu().readApic(registers); !read && done) done = std::move(read);
      p.apic->adopt(registers);
    }
  });
  setup_.apicBus.endLostInterrupts();
  apicsAreAway_ = false;
  return done;
}

void Processors::takeChips() {
  if (Status taken = takeApics(); !taken) log(LogLevel::error, "{}", taken.error().message());
}

void Processors::transfer(state::Snapshot& snapshot, std::uint64_t hostTsc) {
  if (Status taken = takeApics(); !taken) log(LogLevel::error, "{}", taken.error().message());
  for (unsigned index = 0; index < count(); ++index) {
    Processor& p = cpus_[index];
    transferInterfaces(snapshot, index);  // an engine that has them not says so, and not what else it has not
    snapshot.section(fmt::format("cpu {}", index), 1,
                     [&](state::Archive& a) { transferCpu(a, p.thread->cpu(), hostTsc); });
  }
  // The timers of all go by the CPU's TSC; an APIC that is loaded may signal its CPU.
  for (unsigned index = 0; index < count(); ++index) {
    LocalApic& apic = *cpus_[index].apic;
    snapshot.section(fmt::format("local-apic {}", index), 1, [&](state::Archive& a) { transferChip(a, apic); });
  }
}

/// What is beside the CPU's own state. An engine that has nothing of it gives and takes what a CPU has at power-up.
void Processors::transferInterfaces(state::Snapshot& snapshot, unsigned index) {
  if (!setup_.interfaces.any()) return;
  Vcpu& vcpu = cpus_[index].thread->vcpu();
  InterfaceState state;
  Status done = snapshot.loading() ? Status{} : vcpu.readInterfaces(state);
  state.nested.inUse = lodge::virtualizationInUse(vcpu.cpu().state, state.nested);
  auto section = [&](const char* name, auto&& fields) {
    snapshot.section(fmt::format("{} {}", name, index), 1, [&](state::Archive& a) {
      fields(a);
      if (!done) a.fail(done.error().message());
    });
  };
  if (setup_.interfaces.nested) {
    section("nested", [&](state::Archive& a) {
      lodge::transfer(a, state.nested);
      if (a.mayApply() && !setup_.interfaces.hyperv) done = vcpu.writeInterfaces(state);
    });
  }
  if (setup_.interfaces.hyperv) {
    section("hyperv", [&](state::Archive& a) {
      transferHyperv(a, state);
      if (a.mayApply()) done = vcpu.writeInterfaces(state);
    });
  }
}

Status Processors::tryNested() {
  for (Processor& p : cpus_) {
    auto* keeper = dynamic_cast<NestedKeepingVcpu*>(&p.thread->vcpu());
    if (Status taken = keeper ? keeper->tryNested() : Status{}; !taken) return taken;
  }
  return {};
}

Virtualization Processors::virtualizationInUse() {
  for (unsigned index = 0; index < count() && setup_.interfaces.nested; ++index) {
    InterfaceState state;
    if (Status read = cpus_[index].thread->vcpu().readInterfaces(state); !read)
      log(LogLevel::error, "{}", read.error().message());
    if (auto used = lodge::virtualizationInUse(cpu(index).state, state.nested); used != Virtualization::none)
      return used;
  }
  return Virtualization::none;
}

Status Processors::moveTo(Engine& engine) {
  std::vector<std::unique_ptr<Vcpu>> others;
  for (unsigned index = 0; index < count(); ++index) {
    auto vcpu = engine.createVcpu(index, worldOf(cpus_[index]));
    if (!vcpu) return std::move(vcpu).error();
    others.push_back(std::move(*vcpu));
  }
  if (Status taken = takeApics(); !taken) return taken;
  std::uint64_t hostTsc = __builtin_ia32_rdtsc();
  for (unsigned index = 0; index < count(); ++index) {
    Processor& p = cpus_[index];
    x86::Cpu &from = p.thread->cpu(), &to = others[index]->cpu();
    copyArchitecture(from, to, hostTsc);
    p.signals.cpu = &to;
    others[index] = p.thread->exchange(std::move(others[index]));
    for (const auto& [name, value] : others[index]->statistics()) p.counted[name] += isLevel(name) ? 0 : value;
  }
  // A device's thread may have had the CPU before in its hands still.
  for (unsigned index = 0; index < count(); ++index) {
    Processor& p = cpus_[index];
    p.signals.raise((others[index]->cpu().events.load() & ~x86::event::quiesce) | x86::event::interrupt);
    p.apic->tscChanged();
  }
  useEngine(engine);
  return {};
}

void Processors::powerOn() {
  if (Status taken = takeApics(); !taken) log(LogLevel::error, "{}", taken.error().message());
  for (Processor& p : cpus_) {
    x86::Cpu& cpu = *p.signals.cpu;
    p.apic->powerOn();
    p.thread->vcpu().forget();
    cpu.events = 0;
    cpu.deferredEvents = 0;
    x86::resetCpu(cpu, false);
  }
}

Nanoseconds Processors::timeOfTsc(const x86::Cpu* cpu, std::uint64_t tsc) const {
  constexpr Nanoseconds kFar = std::numeric_limits<Nanoseconds>::max() / 2;
  Nanoseconds now = setup_.loop.clock().now();
  return cpu ? lodge::timeOfTsc(*cpu, tsc, __builtin_ia32_rdtsc(), now) : kFar;
}

std::int64_t Processors::hypercall(Processor& caller, std::uint64_t number, const std::uint64_t (&a)[4]) {
  switch (number) {
    case kSendIpi:
      return setup_.apicBus.sendParavirtIpi(a[0], a[1], static_cast<std::uint32_t>(a[2]), a[3], 64);
    case kClockPairing:
      return pairClocks(caller.thread->cpu(), a[0], a[1]);
    case kKickCpu:
      for (Processor& p : cpus_) {
        if (p.apic->id() == a[1]) p.signals.raise(x86::event::unhalt);
      }
      return 0;
    case kSchedYield:
      return 0;  // each vCPU has a thread; the host's scheduler knows better
    default:
      return kNoSuchHypercall;
  }
}

std::uint64_t Processors::slept() const {
  std::uint64_t all = 0;
  for (const Processor& p : cpus_) all += p.thread->slept();
  return all;
}

std::vector<std::pair<std::string, std::uint64_t>> Processors::statistics() const {
  std::vector<std::pair<std::string, std::uint64_t>> all;
  for (std::size_t i = 0; i < cpus_.size(); ++i) {
    for (auto& [name, value] : cpus_[i].thread->vcpu().statistics()) {
      auto before = cpus_[i].counted.find(name);
      std::uint64_t counted = before == cpus_[i].counted.end() ? 0 : before->second;
      all.emplace_back("vcpu" + std::to_string(i) + "." + name, counted + value);
    }
  }
  return all;
}

}  // namespace lodge
