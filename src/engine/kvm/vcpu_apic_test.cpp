// SPDX-License-Identifier: Apache-2.0
// A vCPU whose local APIC is KVM's, on a real KVM; skipped where the probe finds none.
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <thread>

#include "device/local_apic_index.h"
#include "engine/kvm/cpuid.h"
#include "engine/kvm/engine.h"
#include "engine/kvm/fake_environment.h"
#include "engine/kvm/probe_cache.h"
#include "x86/model/host_cpu.h"
#include "x86/system.h"

namespace lodge::kvm {
namespace {

constexpr std::uint64_t kBase = 0xfee0'0000, kEnabled = 0x800, kX2 = 0x400, kBsp = 0x100;
using namespace local_apic;
constexpr unsigned kLvtTimer = kLvtFirst, kLvtLint0 = kLvtFirst + 3, kLvtLint1 = kLvtFirst + 4;
constexpr std::uint32_t kMasked = 1 << 16, kPeriodic = 1 << 17, kDeadline = 2 << 17;

x86::LocalApicRegisters powerOn(unsigned id) {
  x86::LocalApicRegisters r;
  r.base = kBase | kEnabled | (id == 0 ? kBsp : 0);
  r.words[kId] = id << 24;
  r.words[kDestinationFormat] = 0xffff'ffff;
  r.words[kSpurious] = 0x1ff;
  for (unsigned n = kLvtTimer; n < kLvtTimer + 6; ++n) r.words[n] = kMasked;
  return r;
}

class KvmApicTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kCode = 0x1000, kHandler = 0x2000, kStack = 0x8000;

  void SetUp() override {
    static const ProbeResult probed = ProbeCache::ofHost().get([] { return probe(); });
    if (!probed.usable) GTEST_SKIP() << "no KVM to test with: " << probed.reason;
    memory_ = std::move(*GuestMemory::create(4_MiB));
    auto model = x86::makeCpuModel("x86-64-v2", 2);
    ASSERT_TRUE(model) << model.error().message();
    model_ = std::move(*model);
    ASSERT_TRUE(limitModel(*model_, Irqchip::split));
    EngineSetup setup{.memory = *memory_, .model = *model_, .cpus = 2, .trace = {}, .irqchip = Irqchip::split};
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

TEST_F(KvmApicTest, RegistersComeBackAsTheyWent) {
  x86::LocalApicRegisters r = powerOn(0);
  r.words[kTaskPriority] = 0x30;
  r.words[kLogicalDestination] = 0x0200'0000;
  r.words[kCommandHigh] = 0x0100'0000;
  r.words[kIsr + 1] = 1 << 3;
  r.words[kTmr + 3] = 1 << 9;
  r.words[kIrr + 3] = 1 << 9;
  r.words[kIrr + 7] = 1 << 1;
  r.words[kLvtLint0] = 0x700;
  r.words[kLvtLint1] = 0x400;
  r.words[kLvtTimer] = kPeriodic | 0x40;
  r.words[kDivide] = 3;
  r.words[kInitialCount] = 0xffff'ffff;
  r.words[kCurrentCount] = 0xf000'0000;
  Status written = vcpu().writeApic(r);
  ASSERT_TRUE(written) << written.error().message();
  x86::LocalApicRegisters back = readApic();
  EXPECT_EQ(back.base, r.base);
  for (unsigned n :
       {kId + 0u, kTaskPriority + 0u, kLogicalDestination + 0u, kSpurious + 0u, kIsr + 1u, kTmr + 3u, kIrr + 3u,
        kIrr + 7u, kLvtLint0 + 0u, kLvtLint1 + 0u, kLvtTimer + 0u, kDivide + 0u, kInitialCount + 0u, kCommandHigh + 0u})
    EXPECT_EQ(back.words[n], r.words[n]) << std::hex << n;
  EXPECT_LE(back.words[kCurrentCount], 0xf000'0000u);
  EXPECT_GE(back.words[kCurrentCount], 0xe000'0000u);
}

TEST_F(KvmApicTest, X2ApicModeAndItsDeadline) {
  x86::LocalApicRegisters r = powerOn(1);
  r.base |= kX2;
  r.words[kId] = 1;
  r.words[kLogicalDestination] = 2;
  r.words[kLvtTimer] = kDeadline | 0x40;
  r.tscDeadline = x86::readTsc(vcpus_[1]->cpu()) + (std::uint64_t{1} << 50);
  Status written = vcpus_[1]->writeApic(r);
  ASSERT_TRUE(written) << written.error().message();
  x86::LocalApicRegisters back;
  ASSERT_TRUE(vcpus_[1]->readApic(back));
  EXPECT_EQ(back.base, r.base);
  EXPECT_EQ(back.words[kId], 1u);
  EXPECT_EQ(back.words[kLogicalDestination], 2u);
  EXPECT_EQ(back.tscDeadline, r.tscDeadline);
}

TEST_F(KvmApicTest, ARequestedVectorWakesAHalt) {
  x86::LocalApicRegisters r = powerOn(0);
  r.words[kIrr + 2] = 1;
  ASSERT_TRUE(vcpu().writeApic(r));
  startHalted();
  run();
  EXPECT_TRUE(handled());
  EXPECT_EQ(readApic().words[kIsr + 2], 1u);
}

TEST_F(KvmApicTest, ACountThatRunsWakesAHalt) {
  x86::LocalApicRegisters r = powerOn(0);
  r.words[kLvtTimer] = 0x40;
  r.words[kDivide] = 0xb;
  r.words[kInitialCount] = 3'000'000'000;
  r.words[kCurrentCount] = 2'000'000;  // nanoseconds
  ASSERT_TRUE(vcpu().writeApic(r));
  startHalted();
  run();
  EXPECT_TRUE(handled());
}

TEST_F(KvmApicTest, ADeadlineWakesAHaltAndOneThatIsPastDoesAtOnce) {
  for (std::int64_t ahead : {20'000'000, -1'000'000}) {
    environment_.ports.clear();
    x86::LocalApicRegisters r = powerOn(0);
    r.words[kLvtTimer] = kDeadline | 0x40;
    r.tscDeadline = x86::readTsc(vcpu().cpu()) + static_cast<std::uint64_t>(ahead);
    ASSERT_TRUE(vcpu().writeApic(r));
    startHalted();
    run();
    EXPECT_TRUE(handled()) << ahead;
    EXPECT_EQ(readApic().tscDeadline, 0u);
  }
}

TEST_F(KvmApicTest, AStopLeavesAHaltAsItIs) {
  ASSERT_TRUE(vcpu().writeApic(powerOn(0)));
  startHalted();
  for (int i = 0; i < 2; ++i) {
    std::thread other([this] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      vcpu().cpu().raise(x86::event::stop);
    });
    EXPECT_EQ(vcpu().run(), VcpuExit::stopped);
    other.join();
    vcpu().settle();
    EXPECT_EQ(state().activity, x86::Activity::halted);
    EXPECT_EQ(state().rip, kCode + 1);
    vcpu().cpu().events = 0;
  }
}

TEST_F(KvmApicTest, MessagesReachASleeperAndItsEoiIsTold) {
  std::vector<std::uint8_t> ended;
  engine_->setEoiListener([&](std::uint8_t vector) { ended.push_back(vector); });
  // Level-triggered, vector 0x40, to CPU 0; the handler: mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; out 0x11,
  // al
  MsiMessage message{kBase, 0xc040};
  engine_->setLevelMessages(std::span(&message, 1));
  write(kHandler, {0x66, 0xb9, 0x0b, 8, 0, 0, 0x66, 0x31, 0xc0, 0x66, 0x31, 0xd2, 0x0f, 0x30, 0xe6, 0x11, 0xcf});
  x86::LocalApicRegisters r = powerOn(0);
  r.base |= kX2;
  r.words[kId] = 0;
  r.words[kLogicalDestination] = 1;
  ASSERT_TRUE(vcpu().writeApic(r));
  startHalted();
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_TRUE(engine_->sendMsi(message));
  });
  run();
  other.join();
  EXPECT_TRUE(handled());
  EXPECT_EQ(ended, std::vector<std::uint8_t>{0x40});
  x86::LocalApicRegisters back = readApic();
  EXPECT_EQ(back.words[kTmr + 2], 1u);
  EXPECT_EQ(back.words[kIsr + 2], 0u);
}

TEST_F(KvmApicTest, AnEventSendsItsMessage) {
  ASSERT_TRUE(vcpu().writeApic(powerOn(0)));
  UniqueFd first(::eventfd(0, EFD_NONBLOCK)), second(::eventfd(0, EFD_NONBLOCK));
  MsiMessage wrong{kBase, 0x4041}, right{kBase, 0x4040};
  // What else is routed changes meanwhile.
  ASSERT_TRUE(engine_->setMsiEvent(first.get(), &wrong));
  ASSERT_TRUE(engine_->setMsiEvent(second.get(), &right));
  engine_->setLevelMessages(std::span(&wrong, 1));
  startHalted();
  std::thread other([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(::eventfd_write(second.get(), 1), 0);
  });
  run();
  other.join();
  EXPECT_TRUE(handled());
  EXPECT_EQ(readApic().words[kIsr + 2], 1u);
  // Another message, and none.
  ASSERT_TRUE(engine_->setMsiEvent(second.get(), &wrong));
  EXPECT_EQ(::eventfd_write(second.get(), 1), 0);
  EXPECT_EQ(readApic().words[kIrr + 2], 2u);
  EXPECT_FALSE(engine_->setMsiEvent(first.get(), nullptr));
  EXPECT_FALSE(engine_->setMsiEvent(second.get(), nullptr));
  EXPECT_EQ(::eventfd_write(first.get(), 1), 0);
  eventfd_t count = 0;
  EXPECT_EQ(::eventfd_read(first.get(), &count), 0) << "nobody took it";
}

TEST_F(KvmApicTest, AStoreThatIsWatchedIsAnEvent) {
  ASSERT_TRUE(vcpu().writeApic(powerOn(0)));
  UniqueFd event(::eventfd(0, EFD_NONBLOCK));
  ASSERT_TRUE(engine_->watchStores(8_MiB + 0x20, event.get()));
  // mov [0x20], ax; mov [0x20], ax; mov [0x22], ax; mov [0x20], al; out 0x12, al; hlt
  startReal({0xa3, 0x20, 0, 0xa3, 0x20, 0, 0xa3, 0x22, 0, 0xa2, 0x20, 0, 0xe6, 0x12, 0xf4});
  state().segment[x86::ds] = {8_MiB, 0xffff, 0, 0x93};
  state().gpr[x86::rax] = 0x1234;
  run();
  ASSERT_EQ(environment_.stores.size(), 2u) << "what is not watched, and what is not of two bytes";
  EXPECT_EQ(environment_.stores[0], std::make_tuple(8_MiB + 0x22, 2u, 0x1234u));
  EXPECT_EQ(environment_.stores[1], std::make_tuple(8_MiB + 0x20, 1u, 0x34u));
  eventfd_t count = 0;
  ASSERT_EQ(::eventfd_read(event.get(), &count), 0);
  EXPECT_EQ(count, 2u);
  engine_->unwatchStores(8_MiB + 0x20, event.get());
  startReal({0xa3, 0x20, 0, 0xe6, 0x12, 0xf4});
  state().segment[x86::ds] = {8_MiB, 0xffff, 0, 0x93};
  run();
  EXPECT_EQ(environment_.stores.size(), 3u);
}

TEST_F(KvmApicTest, The8259AsInterruptWakesAHaltIfTheApicLetsIt) {
  for (bool open : {false, true}) {
    environment_.ports.clear();
    x86::LocalApicRegisters r = powerOn(0);
    r.words[kLvtLint0] = open ? 0x700 : kMasked | 0x700;
    ASSERT_TRUE(vcpu().writeApic(r));
    startHalted();
    environment_.apic_.waiting = 0x40;
    if (open) {
      run();
      EXPECT_TRUE(handled());
      EXPECT_EQ(environment_.apic_.waiting, -1);
      EXPECT_EQ(readApic().words[kIsr + 2], 0u) << "it is not the local APIC's";
    } else {
      std::thread other([this] {
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        vcpu().cpu().raise(x86::event::interrupt);
        std::this_thread::sleep_for(std::chrono::milliseconds(30));
        vcpu().cpu().raise(x86::event::stop);
      });
      EXPECT_EQ(vcpu().run(), VcpuExit::stopped);
      other.join();
      vcpu().settle();
      vcpu().cpu().events = 0;
      EXPECT_TRUE(environment_.ports.empty());
      EXPECT_EQ(environment_.apic_.waiting, 0x40);
    }
  }
}

TEST_F(KvmApicTest, The8259AWaitsForTheInterruptFlag) {
  x86::LocalApicRegisters r = powerOn(0);
  r.words[kLvtLint0] = 0x700;
  ASSERT_TRUE(vcpu().writeApic(r));
  // cli; out 0x12, al; nop; sti; hlt; jmp to hlt
  startReal({0xfa, 0xe6, 0x12, 0x90, 0xfb, 0xf4, 0xeb, 0xfd});
  environment_.onPort = [this](std::uint64_t) {
    if (environment_.ports.size() == 1) {
      environment_.apic_.waiting = 0x40;
      vcpu().cpu().raise(x86::event::interrupt);
    } else {
      vcpu().cpu().raise(x86::event::stop);
    }
  };
  run();
  ASSERT_EQ(environment_.ports.size(), 2u);
  EXPECT_EQ(std::get<0>(environment_.ports[0]), 0x12u);
  EXPECT_EQ(std::get<0>(environment_.ports[1]), 0x11u);
}

TEST_F(KvmApicTest, AProcessorStartsBySipi) {
  ASSERT_TRUE(vcpus_[1]->writeApic(powerOn(1)));
  write(0x3000, {0xe6, 0x13, 0xf4});  // out 0x13, al; hlt
  Vcpu& other = *vcpus_[1];
  EXPECT_EQ(other.cpu().state.activity, x86::Activity::waitForSipi);
  std::thread sender([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    engine_->sendMsi({kBase | 1 << 12, 0x4603});
  });
  run(other);
  sender.join();
  ASSERT_EQ(environment_.ports.size(), 1u);
  EXPECT_EQ(std::get<0>(environment_.ports[0]), 0x13u);
  EXPECT_EQ(other.cpu().state.activity, x86::Activity::running);
  EXPECT_EQ(other.cpu().state.segment[x86::cs].base, 0x3000u);
}

TEST_F(KvmApicTest, WhatIsSentToAStoppedProcessorIsThereWhenItsStateIsTaken) {
  // One that was stopped, but whose state is KVM's still, gets an INIT from a CPU that is not.
  ASSERT_TRUE(vcpu().writeApic(powerOn(0)));
  ASSERT_TRUE(vcpus_[1]->writeApic(powerOn(1)));
  Vcpu& other = *vcpus_[1];
  other.cpu().state.activity = x86::Activity::running;
  other.cpu().state.segment[x86::cs] = {0, 0xffff, 0, 0x93};
  other.cpu().state.rip = kCode;
  write(kCode, {0xeb, 0xfe});
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    other.cpu().raise(x86::event::stop);
  });
  EXPECT_EQ(other.run(), VcpuExit::stopped);
  stopper.join();
  engine_->sendMsi({kBase | 1 << 12, 0x4040});
  engine_->sendMsi({kBase | 1 << 12, 0x4500});
  other.settle();
  EXPECT_EQ(other.cpu().state.activity, x86::Activity::waitForSipi);
}

}  // namespace
}  // namespace lodge::kvm
