// SPDX-License-Identifier: Apache-2.0
// Small guests on a real KVM; skipped where the probe finds none.
#include "engine/kvm/engine.h"

#include <gtest/gtest.h>

#include <thread>

#include "engine/kvm/cpuid.h"
#include "engine/kvm/fake_environment.h"
#include "engine/kvm/probe_cache.h"
#include "x86/model/host_cpu.h"
#include "x86/system.h"

namespace lodge::kvm {
namespace {

class KvmEngineTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kCode = 0x1000, kStack = 0x8000;

  void SetUp() override {
    static const ProbeResult probed = ProbeCache::ofHost().get([] { return probe(); });
    if (!probed.usable) GTEST_SKIP() << "no KVM to test with: " << probed.reason;
    memory_ = std::move(*GuestMemory::create(4_MiB));
    auto model = x86::makeCpuModel("x86-64-v2", 1);
    ASSERT_TRUE(model) << model.error().message();
    model_ = std::move(*model);
    ASSERT_TRUE(limitModel(*model_, Irqchip::user));
    EngineSetup setup{.memory = *memory_, .model = *model_, .cpus = 1, .trace = {}, .irqchip = Irqchip::user};
    auto engine = makeEngine(setup, "/dev/kvm");
    ASSERT_TRUE(engine) << engine.error().message();
    engine_ = std::move(*engine);
    auto vcpu = engine_->createVcpu(0, environment_);
    ASSERT_TRUE(vcpu) << vcpu.error().message();
    vcpu_ = std::move(*vcpu);
  }
  x86::CpuState& state() { return vcpu_->cpu().state; }
  /// Real mode, flat, at kCode.
  void startReal(std::initializer_list<int> code) {
    std::vector<std::byte> bytes;
    for (int byte : code) bytes.push_back(static_cast<std::byte>(byte));
    ASSERT_TRUE(memory_->write(Gpa{kCode}, bytes));
    state().segment[x86::cs] = {0, 0xffff, 0, 0x93};
    state().rip = kCode;
    state().gpr[x86::rsp] = kStack;
  }

  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::CpuModel> model_;
  FakeEnvironment environment_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Vcpu> vcpu_;
};

void stop(Vcpu& vcpu) {
  vcpu.cpu().raise(x86::event::stop);
}

TEST_F(KvmEngineTest, RunsToAHaltWithPortsAndRegisters) {
  // mov ax, 0x1234; out 0x10, ax; in ax, 0x20; mov bx, ax; hlt
  startReal({0xb8, 0x34, 0x12, 0xe7, 0x10, 0xe5, 0x20, 0x89, 0xc3, 0xf4});
  EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
  stop(*vcpu_);
  EXPECT_EQ(vcpu_->run(), VcpuExit::stopped);
  ASSERT_EQ(environment_.ports.size(), 1u);
  EXPECT_EQ(environment_.ports[0], std::make_tuple(0x10u, 2u, 0x1234u));
  EXPECT_EQ(state().gpr[x86::rbx] & 0xffff, 0x20u * 3 + 2);
  EXPECT_EQ(state().rip, kCode + 10);
  EXPECT_EQ(state().activity, x86::Activity::halted);
}

TEST_F(KvmEngineTest, AStopInAnAccessCompletesIt) {
  // in ax, 0x20; mov bx, ax; hlt: stopped by the access itself, before its value is in the register.
  startReal({0xe7, 0x30, 0xe5, 0x20, 0x89, 0xc3, 0xf4});
  environment_.onPort = [this](std::uint64_t) { stop(*vcpu_); };
  EXPECT_EQ(vcpu_->run(), VcpuExit::stopped);
  EXPECT_EQ(state().rip, kCode + 2);
  // What stands there may be changed while stopped.
  state().rip = kCode + 4;
  state().gpr[x86::rax] = 77;
  vcpu_->cpu().events = 0;
  EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
  stop(*vcpu_);
  vcpu_->run();
  EXPECT_EQ(state().gpr[x86::rbx] & 0xffff, 77u);
}

TEST_F(KvmEngineTest, DevicesInMemory) {
  // mov ax, 0xffff; mov ds, ax; mov eax, [0xf0f8] would be RAM: a device is at 8 MiB, reached with a 32-bit base.
  state().segment[x86::ds] = {8_MiB, 0xffff, 0, 0x93};
  // mov eax, [0x10]; mov [0x20], eax; hlt
  startReal({0x66, 0xa1, 0x10, 0x00, 0x66, 0xa3, 0x20, 0x00, 0xf4});
  EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
  ASSERT_EQ(environment_.stores.size(), 1u);
  EXPECT_EQ(environment_.stores[0], std::make_tuple(8_MiB + 0x20, 4u, 8_MiB + 0x10 + 4));
}

TEST_F(KvmEngineTest, InstructionsThatKvmCannotEmulateAreInterpreted) {
  state().segment[x86::ds] = {8_MiB, 0xffff, 0, 0x93};
  // fninit; fld1; fadd dword [0x10]; fist dword [0x20]; mov al, 7; hlt
  startReal({0xdb, 0xe3, 0xd9, 0xe8, 0xd8, 0x06, 0x10, 0x00, 0xdb, 0x16, 0x20, 0x00, 0xb0, 0x07, 0xf4});
  EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
  stop(*vcpu_);
  vcpu_->run();
  EXPECT_EQ(state().gpr[x86::rax] & 0xff, 7u);
  ASSERT_EQ(environment_.stores.size(), 1u);
  // The bits of 8 MiB + 0x14 as a number are next to nothing.
  EXPECT_EQ(environment_.stores[0], std::make_tuple(8_MiB + 0x20, 4u, 1u));
}

TEST_F(KvmEngineTest, InterruptsWakeAHaltAndWaitForTheirFlag) {
  std::uint16_t vector[2] = {0x2000, 0};
  ASSERT_TRUE(memory_->writeObject(Gpa{0x40 * 4}, vector));
  // The handler: out 0x11, al; iret
  ASSERT_TRUE(memory_->write(Gpa{0x2000}, std::as_bytes(std::span("\xe6\x11\xcf", 3))));
  // cli; out 0x10, al; nop; sti; hlt; hlt
  startReal({0xfa, 0xe6, 0x10, 0x90, 0xfb, 0xf4, 0xfa, 0xf4});
  environment_.onPort = [this](std::uint64_t) {
    if (environment_.ports.size() > 1) return;
    environment_.apic_.waiting = 0x40;  // while interrupts are off
    vcpu_->cpu().raise(x86::event::interrupt);
  };
  EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
  ASSERT_EQ(environment_.ports.size(), 2u);
  EXPECT_EQ(std::get<0>(environment_.ports[1]), 0x11u);
}

TEST_F(KvmEngineTest, NmiWakesAHaltWithInterruptsOff) {
  std::uint16_t vector[2] = {0x2000, 0};
  ASSERT_TRUE(memory_->writeObject(Gpa{2 * 4}, vector));
  ASSERT_TRUE(memory_->write(Gpa{0x2000}, std::as_bytes(std::span("\xe6\x11\xcf", 3))));
  // cli; hlt; out 0x12, al; hlt
  startReal({0xfa, 0xf4, 0xe6, 0x12, 0xf4});
  EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
  vcpu_->cpu().raise(x86::event::nmi);
  EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
  ASSERT_EQ(environment_.ports.size(), 2u);
  EXPECT_EQ(std::get<0>(environment_.ports[0]), 0x11u);
  EXPECT_EQ(std::get<0>(environment_.ports[1]), 0x12u);
}

TEST_F(KvmEngineTest, MsrsThatAreOurs) {
  // mov ecx, 0x3b; mov eax, 5; xor edx, edx; wrmsr; rdmsr; mov ebx, eax; mov ecx, 0x808; wrmsr; hlt
  startReal({0x66, 0xb9, 0x3b, 0,    0,    0,    0x66, 0xb8, 5,    0,    0, 0, 0x66, 0x31, 0xd2, 0x0f,
             0x30, 0x0f, 0x32, 0x66, 0x89, 0xc3, 0x66, 0xb9, 0x08, 0x08, 0, 0, 0x0f, 0x30, 0xf4});
  std::uint64_t offset = state().tscOffset;
  EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
  stop(*vcpu_);
  EXPECT_EQ(vcpu_->run(), VcpuExit::stopped);
  EXPECT_EQ(state().gpr[x86::rbx], 5u);
  EXPECT_EQ(state().tscAdjust, 5u);
  EXPECT_EQ(state().tscOffset, offset + 5);
  EXPECT_EQ(environment_.apic_.msrs[0x808], 5u);
}

TEST_F(KvmEngineTest, StealTimeIsToldByKvm) {
  constexpr std::uint32_t kAt = 0x5000;
  // mov ecx, 0x4b564d03; mov eax, 0x5001; xor edx, edx; wrmsr; hlt
  startReal({0x66, 0xb9, 0x03, 0x4d, 0x56, 0x4b, 0x66, 0xb8, 0x01, 0x50, 0, 0, 0x66, 0x31, 0xd2, 0x0f, 0x30, 0xf4});
  EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
  stop(*vcpu_);
  EXPECT_EQ(vcpu_->run(), VcpuExit::stopped);
  EXPECT_EQ(state().pvSteal, kAt | 1u);
  std::uint32_t version = 0;
  std::uint8_t preempted = 1;
  ASSERT_TRUE(memory_->readObject(Gpa{kAt + 8}, version));
  ASSERT_TRUE(memory_->readObject(Gpa{kAt + 16}, preempted));
  EXPECT_TRUE(version != 0 && version % 2 == 0) << version;
  EXPECT_EQ(preempted, 0) << "on another engine it runs";
}

TEST_F(KvmEngineTest, ARefusedValueIsAFault) {
  std::uint16_t handler[2] = {0x2000, 0};
  ASSERT_TRUE(memory_->writeObject(Gpa{13 * 4}, handler));
  ASSERT_TRUE(memory_->write(Gpa{0x2000}, std::as_bytes(std::span("\xb3\x0d\xf4", 3))));  // mov bl, 13; hlt
  // mov ecx, 0xc0000080 (EFER); mov eax, 1 << 30; xor edx, edx; wrmsr; hlt
  startReal({0x66, 0xb9, 0x80, 0, 0, 0xc0, 0x66, 0xb8, 0, 0, 0, 0x40, 0x66, 0x31, 0xd2, 0x0f, 0x30, 0xf4});
  EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
  stop(*vcpu_);
  EXPECT_EQ(vcpu_->run(), VcpuExit::stopped);
  EXPECT_EQ(state().gpr[x86::rbx] & 0xff, 13u);
  EXPECT_EQ(state().efer, 0u);
}

TEST_F(KvmEngineTest, TripleFaultIsAShutdown) {
  state().idtr = {0, 0, 0};
  startReal({0x0f, 0x0b});  // ud2
  EXPECT_EQ(vcpu_->run(), VcpuExit::shutdown);
  EXPECT_EQ(state().activity, x86::Activity::shutdown);
  // A reset makes it run again.
  x86::resetCpu(vcpu_->cpu(), false);
  startReal({0xf4});
  EXPECT_EQ(vcpu_->run(), VcpuExit::halted);
}

TEST_F(KvmEngineTest, AKickGetsALoopToStop) {
  startReal({0xeb, 0xfe});  // jmp $
  std::thread other([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stop(*vcpu_);
  });
  EXPECT_EQ(vcpu_->run(), VcpuExit::stopped);
  other.join();
  EXPECT_EQ(state().rip, kCode);
}

TEST_F(KvmEngineTest, StateThatIsLoadedIsWhatIsSaved) {
  startReal({0xeb, 0xfe});
  x86::CpuState& s = state();
  for (unsigned i = 0; i < 16; ++i) s.gpr[i] = 0x1111'0000'0000 * i + i;
  s.star = 0x0023'0010'0000'0000;
  s.lstar = 0xffff'8000'1234'0000;
  s.sfmask = 0x4700;
  s.kernelGsBase = 0xffff'9000'0000'0000;
  s.sysenterEip = 0x4444;
  s.pat = 0x0007'0406'0007'0401;
  s.dr[0] = 0x5555;
  s.cr2 = 0x6666;
  s.nmiBlocked = 1;
  s.gdtr = {0x3000, 0x27, 0};
  s.xsave[160] = std::byte{0x5a};  // in XMM0
  x86::CpuState before = s;
  environment_.apic_.tpr = 9;
  std::thread other([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    stop(*vcpu_);
  });
  EXPECT_EQ(vcpu_->run(), VcpuExit::stopped);
  other.join();
  EXPECT_EQ(std::memcmp(s.gpr, before.gpr, sizeof s.gpr), 0);
  EXPECT_EQ(s.star, before.star);
  EXPECT_EQ(s.lstar, before.lstar);
  EXPECT_EQ(s.sfmask, before.sfmask);
  EXPECT_EQ(s.kernelGsBase, before.kernelGsBase);
  EXPECT_EQ(s.sysenterEip, before.sysenterEip);
  EXPECT_EQ(s.pat, before.pat);
  EXPECT_EQ(s.dr[0], before.dr[0]);
  EXPECT_EQ(s.cr2, before.cr2);
  EXPECT_EQ(s.nmiBlocked, 1);
  EXPECT_EQ(s.gdtr.limit, 0x27u);
  EXPECT_EQ(s.xsave[160], std::byte{0x5a});
  EXPECT_EQ(s.tscOffset, before.tscOffset);
  EXPECT_EQ(environment_.apic_.tpr, 9);
}

}  // namespace

TEST(KvmLimitModel, TakesWhatKvmLacksAndKeepsWhatIsOurs) {
  auto model = x86::makeCpuModel("x86-64-v2", 2);
  ASSERT_TRUE(model);
  CpuidList supported(2);
  supported.entries()[0] = {};
  supported.entries()[0].function = 1;
  supported.entries()[0].edx = 1 << 4;  // a TSC, and nothing else
  supported.entries()[1] = {};
  supported.entries()[1].function = 0x8000'0008;
  supported.entries()[1].eax = 40;
  limitModel(**model, supported, 0, false);
  EXPECT_FALSE((*model)->has(x86::Feature::fsgsbase));
  EXPECT_EQ((*model)->cr4Supported & (x86::cr4::pcide | x86::cr4::smap | x86::cr4::umip), 0u);
  EXPECT_EQ((*model)->physicalAddressBits, 40u);
  EXPECT_EQ((*model)->archCapabilities, 0u);
  for (const x86::CpuidEntry& entry : (*model)->leaves) {
    if (entry.leaf == 1) {
      EXPECT_NE(entry.ecx & 1u << 21, 0u) << "x2APIC";
      EXPECT_NE(entry.ecx & 1u << 31, 0u) << "hypervisor";
      EXPECT_EQ(entry.ecx & 1u << 17, 0u) << "PCID";
      EXPECT_NE(entry.edx & 1u << 4, 0u) << "TSC";
    }
    if (entry.leaf == 0x4000'0001) {
      EXPECT_EQ(entry.eax & (1u << 7 | 1u << 11), 0u);
      EXPECT_NE(entry.eax & 1u << 3, 0u) << "clock";
    }
  }
}

}  // namespace lodge::kvm
