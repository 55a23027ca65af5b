// SPDX-License-Identifier: Apache-2.0
// Two vCPUs whose local APICs are KVM's, on a real KVM, for tests only; skipped where the probe finds none.
#pragma once

#include <gtest/gtest.h>

#include <thread>

#include "device/local_apic_index.h"
#include "engine/kvm/cpuid.h"
#include "engine/kvm/engine.h"
#include "engine/kvm/fake_environment.h"
#include "engine/kvm/probe_cache.h"
#include "x86/model/host_cpu.h"
#include "x86/system.h"

namespace lodge::kvm {

inline constexpr std::uint64_t kBase = 0xfee0'0000, kEnabled = 0x800, kX2 = 0x400, kBsp = 0x100;
using namespace local_apic;
inline constexpr unsigned kLvtTimer = kLvtFirst, kLvtLint0 = kLvtFirst + 3, kLvtLint1 = kLvtFirst + 4;
inline constexpr std::uint32_t kMasked = 1 << 16, kPeriodic = 1 << 17, kDeadline = 2 << 17;

inline x86::LocalApicRegisters powerOn(unsigned id) {
  x86::LocalApicRegisters r;
  r.base = kBase | kEnabled | (id == 0 ? kBsp : 0);
  r.words[kId] = id << 24;
  r.words[kDestinationFormat] = 0xffff'ffff;
  r.words[kSpurious] = 0x1ff;
  for (unsigned n = kLvtTimer; n < kLvtTimer + 6; ++n) r.words[n] = kMasked;
  return r;
}

/// By where the other interrupt controllers are.
class KvmApicTest : public testing::TestWithParam<Irqchip> {
 protected:
  static constexpr std::uint64_t kCode = 0x1000, kHandler = 0x2000, kStack = 0x8000;

  void SetUp() override {
    static const ProbeResult probed = ProbeCache::ofHost().get([] { return probe(); });
    if (!probed.usable) GTEST_SKIP() << "no KVM to test with: " << probed.reason;
    memory_ = std::move(*GuestMemory::create(4_MiB));
    auto model = x86::makeCpuModel("x86-64-v2", 2);
    ASSERT_TRUE(model) << model.error().message();
    model_ = std::move(*model);
    ASSERT_TRUE(limitModel(*model_, GetParam()));
    EngineSetup setup{.memory = *memory_, .model = *model_, .cpus = 2, .trace = {}, .irqchip = GetParam()};
    auto engine = makeEngine(setup, "/dev/kvm");
    ASSERT_TRUE(engine) << engine.error().message();
    engine_ = std::move(*engine);
    ASSERT_TRUE(engine_->keepsLocalApics());
    for (unsigned index = 0; index < 2; ++index) {
      auto vcpu = engine_->createVcpu(index, environment_);
      ASSERT_TRUE(vcpu) << vcpu.error().message();
      vcpus_.push_back(std::move(*vcpu));
    }
    // The handler of vector 0x40: out 0x11, al; iret
    std::uint16_t vector[2] = {kHandler, 0};
    ASSERT_TRUE(memory_->writeObject(Gpa{0x40 * 4}, vector));
    ASSERT_TRUE(memory_->write(Gpa{kHandler}, std::as_bytes(std::span("\xe6\x11\xcf", 3))));
    environment_.onPort = [this](std::uint64_t) {
      for (auto& vcpu : vcpus_) vcpu->cpu().raise(x86::event::stop);
    };
  }
  Vcpu& vcpu() { return *vcpus_[0]; }
  x86::CpuState& state() { return vcpu().cpu().state; }
  void write(std::uint64_t at, std::initializer_list<int> code) {
    std::vector<std::byte> bytes;
    for (int byte : code) bytes.push_back(static_cast<std::byte>(byte));
    ASSERT_TRUE(memory_->write(Gpa{at}, bytes));
  }
  /// Real mode, flat, at kCode.
  void startReal(std::initializer_list<int> code) {
    write(kCode, code);
    state().segment[x86::cs] = {0, 0xffff, 0, 0x93};
    state().rip = kCode;
    state().rflags = x86::flag::reserved1 | x86::flag::if_;
    state().gpr[x86::rsp] = kStack;
  }
  /// The processor sleeps in a HLT with its interrupt flag set; what follows is out 0x12, al and HLTs for ever.
  void startHalted() {
    startReal({0xf4, 0xe6, 0x12, 0xf4, 0xeb, 0xfd});
    state().rip = kCode + 1;
    state().activity = x86::Activity::halted;
  }
  /// Runs until a port is written, or for five seconds.
  void run(Vcpu& vcpu) {
    std::atomic<bool> over{false};
    std::thread guard([&] {
      for (int i = 0; i < 500 && !over; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      vcpu.cpu().raise(x86::event::stop);
    });
    EXPECT_EQ(vcpu.run(), VcpuExit::stopped);
    over = true;
    guard.join();
    vcpu.settle();
    vcpu.cpu().events = 0;
  }
  void run() { run(vcpu()); }
  x86::LocalApicRegisters readApic() {
    x86::LocalApicRegisters r;
    Status read = vcpu().readApic(r);
    EXPECT_TRUE(read) << read.error().message();
    return r;
  }
  bool handled() const { return !environment_.ports.empty() && std::get<0>(environment_.ports[0]) == 0x11; }

  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
  FakeEnvironment environment_;
  std::unique_ptr<Engine> engine_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
};

}  // namespace lodge::kvm
