// SPDX-License-Identifier: Apache-2.0
// The interpret engine: every instruction goes through the interpreter. Ordinary code but for Vcpu::run(), which parks
// vector state before it returns.
#include "engine/engine.h"

#include "engine/interpret/context.h"
#include "engine/interpret/interpreter.h"
#include "x86/events.h"
#include "x86/system.h"

namespace lodge {

namespace {

class InterpretVcpu : public Vcpu {
 public:
  static Result<std::unique_ptr<Vcpu>> create(const EngineSetup& setup, unsigned index,
                                              x86::CpuEnvironment& environment) {
    auto vcpu = std::unique_ptr<InterpretVcpu>(new InterpretVcpu());
    x86::Cpu& cpu = vcpu->cpu_;
    cpu.memory = &setup.memory;
    cpu.model = &setup.model;
    cpu.tscScale = setup.model.tscScale();
    cpu.environment = &environment;
    cpu.index = index;
    auto owner = interpret::ContextOwner::create(cpu);
    if (!owner) return std::move(owner).error().context("create vCPU " + std::to_string(index));
    vcpu->owner_ = std::move(*owner);
    x86::resetCpu(cpu, false);
    return std::unique_ptr<Vcpu>(std::move(vcpu));
  }

  x86::Cpu& cpu() override { return cpu_; }

  VcpuExit run() override {
    VcpuExit exit = loop();
    cpu_.parkFpu();
    return exit;
  }

  void waitForEvent() override { x86::waitForEvents(cpu_); }

  std::vector<std::pair<std::string, std::uint64_t>> statistics() const override {
    const auto& s = cpu_.interpreter->statistics;
    return {{"instructions", cpu_.instructionsInterpreted},
            {"decodes", s[interpret::kDecodes]},
            {"slow fetches", s[interpret::kSlowSteps]},
            {"faults", s[interpret::kFaults]}};
  }

 private:
  InterpretVcpu() = default;

  VcpuExit loop() {
    for (;;) {
      if (cpu_.events.load(std::memory_order_relaxed) != 0 || cpu_.state.activity != x86::Activity::running) {
        if (!x86::handleEvents(cpu_)) return reason();
      }
      interpret::run(cpu_, kSlice);
    }
  }

  VcpuExit reason() const {
    if ((cpu_.events.load(std::memory_order_relaxed) & x86::event::stop) != 0) return VcpuExit::stopped;
    return cpu_.state.activity == x86::Activity::shutdown ? VcpuExit::shutdown : VcpuExit::halted;
  }

  static constexpr std::uint64_t kSlice = 1 << 20;

  x86::Cpu cpu_;
  std::unique_ptr<interpret::ContextOwner> owner_;
};

class InterpretEngine : public Engine {
 public:
  explicit InterpretEngine(const EngineSetup& setup) : setup_(setup) {}
  std::string_view name() const override { return "interpret"; }
  Result<std::unique_ptr<Vcpu>> createVcpu(unsigned index, x86::CpuEnvironment& environment) override {
    return InterpretVcpu::create(setup_, index, environment);
  }

 private:
  EngineSetup setup_;
};

}  // namespace

Result<std::unique_ptr<Engine>> makeInterpretEngine(const EngineSetup& setup) {
  return std::unique_ptr<Engine>(std::make_unique<InterpretEngine>(setup));
}

}  // namespace lodge
