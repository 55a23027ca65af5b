// SPDX-License-Identifier: Apache-2.0
// What KVM notes of stores, on a real KVM; skipped where the probe finds none.
#include <gtest/gtest.h>

#include <thread>

#include "engine/kvm/cpuid.h"
#include "engine/kvm/engine.h"
#include "engine/kvm/fake_environment.h"
#include "engine/kvm/probe_cache.h"
#include "x86/model/host_cpu.h"
#include "x86/system.h"

namespace lodge::kvm {
namespace {

/// With dirty rings and gathered stores where this KVM has them, and without.
class KvmStoresTest : public testing::TestWithParam<bool> {
 protected:
  static constexpr std::uint64_t kCode = 0x1000, kVideo = 0xd000'0000, kVideoBytes = 32_MiB;

  void SetUp() override {
    static const ProbeResult probed = ProbeCache::ofHost().get([] { return probe(); });
    if (!probed.usable) GTEST_SKIP() << "no KVM to test with: " << probed.reason;
    memory_ = std::move(*GuestMemory::create(4_MiB, {.video = kVideoBytes}));
    memory_->useShadowMap();
    for (std::uint64_t at = 0xa0000; at < 0xc0000; at += kPageSize)
      memory_->setShadowPage(Gpa{at}, GuestMemory::kNoOffset, false);
    memory_->mapRegion(0, Gpa{kVideo}, memory_->videoOffset(), kVideoBytes);
    model_ = std::move(*x86::makeCpuModel("x86-64-v2", 1));
    ASSERT_TRUE(limitModel(*model_, Irqchip::user));
    EngineSetup setup{.memory = *memory_, .model = *model_, .cpus = 1, .trace = {}, .irqchip = Irqchip::user};
    auto engine = makeEngine(setup, "/dev/kvm", {.events = false, .dirtyRing = GetParam(), .coalescing = GetParam()});
    ASSERT_TRUE(engine) << engine.error().message();
    engine_ = std::move(*engine);
    vcpu_ = std::move(*engine_->createVcpu(0, environment_));
  }
  x86::CpuState& state() { return vcpu_->cpu().state; }
  void startReal(std::uint64_t data, std::initializer_list<int> code) {
    std::vector<std::byte> bytes;
    for (int byte : code) bytes.push_back(static_cast<std::byte>(byte));
    ASSERT_TRUE(memory_->write(Gpa{kCode}, bytes));
    state().segment[x86::cs] = {0, 0xffff, 0, 0x93};
    state().segment[x86::ds] = {data, 0xffff'ffff, 0, 0x8093};
    state().segment[x86::es] = state().segment[x86::ds];
    state().rip = kCode;
  }
  void runToHalt() {
    EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
    vcpu_->cpu().raise(x86::event::stop);
    EXPECT_EQ(vcpu_->run(), VcpuExit::stopped);
    vcpu_->cpu().events = 0;
    state().activity = x86::Activity::running;
  }
  std::uint64_t exits(const std::string& name) const {
    for (const auto& [key, value] : vcpu_->statistics()) {
      if (key == "exits." + name) return value;
    }
    return 0;
  }
  std::vector<std::uint64_t> dirtyPages() {
    engine_->collectVideoStores();
    std::vector<std::uint64_t> pages;
    for (std::uint64_t page = 0; page < kVideoBytes / kPageSize; ++page) {
      if (memory_->takeVideoDirty(page)) pages.push_back(page);
    }
    return pages;
  }

  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
  FakeEnvironment environment_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Vcpu> vcpu_;
};
INSTANTIATE_TEST_SUITE_P(Ways, KvmStoresTest, testing::Values(true, false),
                         [](const auto& info) { return info.param ? "best" : "plain"; });

TEST_P(KvmStoresTest, PagesOfVideoMemoryThatWereStoredTo) {
  dirtyPages();
  for (int round = 0; round < 3; ++round) {
    // mov [0x10], al; mov [0x5123], al; mov al, [0x7000]; hlt
    startReal(kVideo, {0xa2, 0x10, 0, 0xa2, 0x23, 0x51, 0xa0, 0, 0x70, 0xf4});
    runToHalt();
    auto pages = dirtyPages();
    std::erase(pages, round == 0 ? 7 : ~0u);  // KVM may map a page for stores when it is first read, and notes it then
    EXPECT_EQ(pages, (std::vector<std::uint64_t>{0, 5})) << "round " << round;
    EXPECT_TRUE(dirtyPages().empty());
  }
}

TEST_P(KvmStoresTest, MorePagesThanARingHolds) {
  dirtyPages();
  // mov ecx, 8192; xor edi, edi; next: mov [edi], al; add edi, 4096; dec ecx; jnz next; hlt
  startReal(kVideo, {0x66, 0xb9, 0,    0x20, 0,    0, 0x66, 0x31, 0xff, 0x67, 0x88, 0x07,
                     0x66, 0x81, 0xc7, 0,    0x10, 0, 0,    0x66, 0x49, 0x75, 0xf2, 0xf4});
  runToHalt();
  EXPECT_EQ(dirtyPages().size(), kVideoBytes / kPageSize);
}

TEST_P(KvmStoresTest, AMovedFrameBufferLosesNothing) {
  dirtyPages();
  startReal(kVideo, {0xa2, 0x10, 0x30, 0xf4});
  runToHalt();
  memory_->mapRegion(0, Gpa{kVideo + 256_MiB}, memory_->videoOffset(), kVideoBytes);
  vcpu_->cpu().raise(x86::event::flushTlb);
  startReal(kVideo + 256_MiB, {0xa2, 0x10, 0x40, 0xf4});
  runToHalt();
  EXPECT_EQ(dirtyPages(), (std::vector<std::uint64_t>{3, 4}));
}

TEST_P(KvmStoresTest, StoresToTheWindowComeInOrder) {
  // A hundred bytes to the window, then port 0x80 and another port; then one of the window is read.
  // mov cx, 100; xor di, di; next: mov [di], cl; inc di; loop next; out 0x80, al; out 0x21, al; mov [0x7000], cl;
  // mov al, [0]; hlt
  startReal(0xa0000, {0xb9, 100,  0,    0x31, 0xff, 0x88, 0x0d, 0x47, 0xe2, 0xfb, 0xe6,
                      0x80, 0xe6, 0x21, 0x88, 0x0e, 0,    0x70, 0xa0, 0,    0,    0xf4});
  std::size_t before = 0;
  environment_.onPort = [&](std::uint64_t) {
    if (std::get<0>(environment_.ports.back()) == 0x21) before = environment_.stores.size();
  };
  runToHalt();
  ASSERT_EQ(environment_.stores.size(), 101u);
  EXPECT_EQ(before, 100u) << "all that came before the other port's access";
  for (std::uint64_t n = 0; n < 100; ++n)
    EXPECT_EQ(environment_.stores[n], std::make_tuple(0xa0000 + n, 1u, 100 - n)) << n;
  EXPECT_EQ(environment_.stores[100], std::make_tuple(0xa7000u, 1u, 0u));
  ASSERT_EQ(environment_.ports.size(), 2u);
  EXPECT_EQ(std::get<0>(environment_.ports[0]), 0x80u);
  std::uint64_t most = GetParam() ? 5 : 200, least = GetParam() ? 1 : 102;
  EXPECT_LE(exits("mmio"), most);
  EXPECT_GE(exits("mmio"), least);
}

TEST_P(KvmStoresTest, ALookFindsWhatARunningGuestHasWritten) {
  if (!GetParam()) return;  // each store is an exit
  // mov [0x10], al; pause; jmp to itself: the guest does not come back by itself.
  startReal(0xa0000, {0xa2, 0x10, 0, 0xf3, 0x90, 0xeb, 0xfe});
  std::thread runner([&] { EXPECT_EQ(vcpu_->run(), VcpuExit::stopped); });
  bool seen = false;
  for (int i = 0; i < 500 && !seen; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    engine_->collectVideoStores();
    seen = !environment_.stores.empty();
  }
  vcpu_->cpu().raise(x86::event::stop);
  runner.join();
  EXPECT_TRUE(seen);
}

}  // namespace
}  // namespace lodge::kvm
