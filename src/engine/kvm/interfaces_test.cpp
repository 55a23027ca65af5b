// SPDX-License-Identifier: Apache-2.0
// Nested virtualization and Hyper-V's interface, on a real KVM; skipped where the probe finds none.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine/kvm/cpuid.h"
#include "engine/kvm/engine.h"
#include "engine/kvm/fake_environment.h"
#include "engine/kvm/probe_cache.h"
#include "x86/model/host_cpu.h"
#include "x86/system.h"

namespace lodge::kvm {
namespace {

class KvmInterfacesTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kCode = 0x1000, kPage = 0x5000;

  void SetUp() override {
    static const ProbeResult probed = ProbeCache::ofHost().get([] { return probe(); });
    if (!probed.usable) GTEST_SKIP() << "no KVM to test with: " << probed.reason;
  }
  /// False: this host's KVM does not offer it, and says so.
  bool make(GuestInterfaces interfaces) {
    memory_ = std::move(*GuestMemory::create(4_MiB));
    model_ = std::move(*x86::makeCpuModel("x86-64-v2", 1));
    EXPECT_TRUE(limitModel(*model_, Irqchip::split));
    if (Status offered = offerInterfaces(*model_, interfaces); !offered) {
      EXPECT_EQ(offered.error().kind(), ErrorKind::unsupported) << offered.error().message();
      EXPECT_FALSE(offered.error().hint().empty());
      return false;
    }
    EngineSetup setup{.memory = *memory_,
                      .model = *model_,
                      .cpus = 1,
                      .trace = {},
                      .irqchip = Irqchip::split,
                      .interfaces = interfaces};
    engine_ = std::move(*makeEngine(setup, "/dev/kvm"));
    vcpu_ = std::move(*engine_->createVcpu(0, environment_));
    environment_.onPort = [this](std::uint64_t) {
      if (std::get<0>(environment_.ports.back()) == 0x13) vcpu_->cpu().raise(x86::event::stop);
    };
    return true;
  }
  /// After a reset, runs code in real mode; what it wrote to port 0x12. It ends with out 0x13, al, or after ten
  /// seconds.
  std::vector<std::uint64_t> run(std::initializer_list<int> code) {
    std::vector<std::byte> bytes;
    for (int byte : code) bytes.push_back(static_cast<std::byte>(byte));
    for (int byte : {0xe6, 0x13, 0xf4}) bytes.push_back(static_cast<std::byte>(byte));
    EXPECT_TRUE(memory_->write(Gpa{kCode}, bytes));
    vcpu_->settle();
    vcpu_->forget();
    x86::resetCpu(vcpu_->cpu(), false);
    x86::CpuState& state = vcpu_->cpu().state;
    state.segment[x86::cs] = {0, 0xffff, 0, 0x93};
    state.rip = kCode;
    environment_.ports.clear();
    std::atomic<bool> over{false};
    std::thread guard([&] {
      for (int i = 0; i < 1000 && !over; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      vcpu_->cpu().raise(x86::event::stop);
    });
    EXPECT_EQ(vcpu_->run(), VcpuExit::stopped);
    over = true;
    guard.join();
    vcpu_->cpu().events = 0;
    std::vector<std::uint64_t> values;
    for (const auto& [port, size, value] : environment_.ports) {
      if (port == 0x12) values.push_back(value);
    }
    return values;
  }

  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
  FakeEnvironment environment_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Vcpu> vcpu_;
};

TEST_F(KvmInterfacesTest, AGuestFindsHypervsAndAResetTakesItsPagesAway) {
  if (!make({.hyperv = true})) return;
  // The vendor's first four letters; identity 1; the hypercall page at 0x5000; reference counter; VP index.
  auto found =
      run({0x66, 0xb8, 0,    0, 0, 0x40, 0x0f, 0xa2, 0x66, 0x89, 0xd8, 0x66, 0xe7, 0x12,                    // cpuid
           0x66, 0xb9, 0,    0, 0, 0x40, 0x66, 0xb8, 1,    0,    0,    0,    0x66, 0x31, 0xd2, 0x0f, 0x30,  // wrmsr
           0x66, 0xb9, 1,    0, 0, 0x40, 0x66, 0xb8, 1,    0x50, 0,    0,    0x66, 0x31, 0xd2, 0x0f, 0x30,  // wrmsr
           0x66, 0xb9, 0x20, 0, 0, 0x40, 0x0f, 0x32, 0x66, 0xe7, 0x12,                                      // rdmsr
           0x66, 0xb9, 2,    0, 0, 0x40, 0x0f, 0x32, 0x66, 0xe7, 0x12});                                    // rdmsr
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0], 0x7263'694du);
  EXPECT_GT(found[1], 0u);
  EXPECT_EQ(found[2], 0u);
  std::uint16_t call = 0;
  ASSERT_TRUE(memory_->readObject(Gpa{kPage}, call));
  EXPECT_EQ(call, 0x010fu) << "VMCALL or VMMCALL";
  // rdmsr of the hypercall page's register
  EXPECT_EQ(run({0x66, 0xb9, 1, 0, 0, 0x40, 0x0f, 0x32, 0x66, 0xe7, 0x12}), std::vector<std::uint64_t>{0});
  // KVM's own leaves are behind: "KVMK"
  EXPECT_EQ(run({0x66, 0xb8, 0, 1, 0, 0x40, 0x0f, 0xa2, 0x66, 0x89, 0xd8, 0x66, 0xe7, 0x12}),
            std::vector<std::uint64_t>{0x4b4d'564b});
}

TEST_F(KvmInterfacesTest, WithoutARequestThereIsNone) {
  ASSERT_TRUE(make({}));
  EXPECT_EQ(run({0x66, 0xb8, 0, 0, 0, 0x40, 0x0f, 0xa2, 0x66, 0x89, 0xd8, 0x66, 0xe7, 0x12}),
            std::vector<std::uint64_t>{0x4b4d'564b});
  auto extended = run({0x66, 0xb8, 1, 0, 0, 0x80, 0x0f, 0xa2, 0x66, 0x89, 0xc8, 0x66, 0xe7, 0x12});
  ASSERT_EQ(extended.size(), 1u);
  EXPECT_EQ(extended[0] & 4, 0u) << "SVM";
}

TEST_F(KvmInterfacesTest, AGuestMayTurnSvmOn) {
  if (!make({.nested = true}) || model_->vendor != x86::CpuVendor::amd) return;
  for (int round = 0; round < 2; ++round) {
    // CPUID 0x80000001, ECX; EFER with SVME, as it is read back; VM_CR
    auto found = run({0x66, 0xb8, 1,    0,    0,    0x80, 0x0f, 0xa2, 0x66, 0x89, 0xc8, 0x66, 0xe7, 0x12,  //
                      0x66, 0xb9, 0x80, 0,    0,    0xc0, 0x0f, 0x32, 0x66, 0x0d, 0,    0x10, 0,    0,
                      0x0f, 0x30, 0x0f, 0x32, 0x66, 0xe7, 0x12,  //
                      0x66, 0xb9, 0x14, 1,    1,    0xc0, 0x0f, 0x32, 0x66, 0xe7, 0x12});
    ASSERT_EQ(found.size(), 3u);
    EXPECT_NE(found[0] & 4, 0u);
    EXPECT_EQ(found[1] & 0x1000, 0x1000u);
    EXPECT_EQ(found[2] & 0x10, 0u) << "not disabled";
  }
}

}  // namespace
}  // namespace lodge::kvm
