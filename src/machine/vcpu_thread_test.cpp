// SPDX-License-Identifier: Apache-2.0
#include "machine/vcpu_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

namespace lodge {
namespace {

// A vCPU that "executes" until stop is raised, and counts how often it was entered.
class FakeVcpu : public Vcpu {
 public:
  x86::Cpu& cpu() override { return *cpu_; }
  VcpuExit run() override {
    ++runs;
    while ((cpu_->events.load() & x86::event::stop) == 0) std::this_thread::yield();
    return VcpuExit::stopped;
  }
  void waitForEvent() override {}
  std::vector<std::pair<std::string, std::uint64_t>> statistics() const override { return {}; }

  static std::atomic<int> runs;

 private:
  std::unique_ptr<x86::Cpu> cpu_ = std::make_unique<x86::Cpu>();
};
std::atomic<int> FakeVcpu::runs{0};

TEST(VcpuThread, pausesResumesAndLeaves) {
  FakeVcpu::runs = 0;
  RunGate gate(2);
  VcpuThread a(std::make_unique<FakeVcpu>(), gate, [](VcpuExit) {});
  VcpuThread b(std::make_unique<FakeVcpu>(), gate, [](VcpuExit) {});
  a.start();
  b.start();
  gate.waitUntilParked();
  EXPECT_EQ(FakeVcpu::runs, 0);
  for (int round = 1; round <= 50; ++round) {
    gate.order(RunGate::Order::run);
    while (FakeVcpu::runs < 2 * round) std::this_thread::yield();
    gate.order(RunGate::Order::pause);
    a.interrupt();
    b.interrupt();
    gate.waitUntilParked();
    EXPECT_EQ(FakeVcpu::runs, 2 * round);
  }
  gate.order(RunGate::Order::leave);
}

TEST(VcpuThread, whereTheGateIsClosedNobodyGoesOn) {
  FakeVcpu::runs = 0;
  RunGate gate(1);
  VcpuThread vcpu(std::make_unique<FakeVcpu>(), gate, [](VcpuExit) {});
  vcpu.start();
  gate.order(RunGate::Order::run);
  while (FakeVcpu::runs == 0) std::this_thread::yield();
  gate.close();
  vcpu.interrupt();
  gate.waitUntilParked();
  int before = FakeVcpu::runs;
  gate.order(RunGate::Order::run);
  EXPECT_TRUE(gate.isPaused());
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(FakeVcpu::runs, before);
  gate.order(RunGate::Order::leave);
}

}  // namespace
}  // namespace lodge
