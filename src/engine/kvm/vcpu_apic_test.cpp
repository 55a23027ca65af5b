// SPDX-License-Identifier: Apache-2.0
// A vCPU whose local APIC is KVM's, on a real KVM.
#include <sys/eventfd.h>

#include "engine/chip_keeper.h"
#include "engine/kvm/test_apics.h"

namespace lodge::kvm {
namespace {

std::string nameOf(const testing::TestParamInfo<Irqchip>& info) {
  return info.param == kKernelIrqchip ? "kernel" : "split";
}
/// The 8259As and the I/O APIC are the test's.
class KvmSplitTest : public KvmApicTest {};
INSTANTIATE_TEST_SUITE_P(Irqchips, KvmApicTest, testing::Values(Irqchip::split, kKernelIrqchip), nameOf);
INSTANTIATE_TEST_SUITE_P(Irqchips, KvmSplitTest, testing::Values(Irqchip::split), nameOf);

TEST_P(KvmApicTest, RegistersComeBackAsTheyWent) {
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

TEST_P(KvmApicTest, X2ApicModeAndItsDeadline) {
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

TEST_P(KvmApicTest, ARequestedVectorWakesAHalt) {
  x86::LocalApicRegisters r = powerOn(0);
  r.words[kIrr + 2] = 1;
  ASSERT_TRUE(vcpu().writeApic(r));
  startHalted();
  run();
  EXPECT_TRUE(handled());
  EXPECT_EQ(readApic().words[kIsr + 2], 1u);
}

TEST_P(KvmApicTest, ACountThatRunsWakesAHalt) {
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

TEST_P(KvmApicTest, ADeadlineWakesAHaltAndOneThatIsPastDoesAtOnce) {
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

TEST_P(KvmApicTest, AnInitThatWaitsForTheEndOfSystemManagementModeIsNotLost) {
  ASSERT_TRUE(vcpu().writeApic(powerOn(0)));
  startReal({0xe6, 0x12, 0xf4, 0xeb, 0xfd});
  state().smm = 1;
  vcpu().cpu().raise(x86::event::init);
  EXPECT_EQ(vcpu().run(), VcpuExit::stopped);
  EXPECT_EQ(vcpu().cpu().events & x86::event::init, 0u) << "it is KVM's";
  vcpu().settle();
  EXPECT_EQ(state().smm, 1);
  EXPECT_EQ(state().rip, kCode + 2);
  EXPECT_NE(vcpu().cpu().events & x86::event::init, 0u);
  // The end of the mode: a processor that waits for its SIPI.
  state().smm = 0;
  vcpu().cpu().events = x86::event::init;
  x86::handleEvents(vcpu().cpu());
  EXPECT_EQ(state().rip, 0xfff0u);
}

TEST_P(KvmApicTest, AStopLeavesAHaltAsItIs) {
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

TEST_P(KvmSplitTest, MessagesReachASleeperAndItsEoiIsTold) {
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

TEST_P(KvmApicTest, AnEventSendsItsMessage) {
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

TEST_P(KvmApicTest, AStoreThatIsWatchedIsAnEvent) {
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

TEST_P(KvmSplitTest, The8259AsInterruptWakesAHaltIfTheApicLetsIt) {
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

TEST_P(KvmSplitTest, The8259AWaitsForTheInterruptFlag) {
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

TEST_P(KvmApicTest, AProcessorStartsBySipi) {
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

TEST_P(KvmApicTest, WhatIsSentBeforeAResetIsGoneAfterIt) {
  constexpr std::uint32_t kNmi = 0x4400, kInit = 0x4500, kStartUp = 0x4603;
  ASSERT_TRUE(memory_->writeObject(Gpa{2 * 4}, std::uint16_t{kHandler}));
  for (std::vector<std::uint32_t> sent : {std::vector{kNmi}, {kInit}, {kInit, kStartUp}, {kNmi, kInit}}) {
    environment_.ports.clear();
    ASSERT_TRUE(vcpu().writeApic(powerOn(0)));
    startReal({0xe6, 0x12, 0xf4, 0xeb, 0xfd});  // out 0x12, al; hlt
    run();
    ASSERT_EQ(environment_.ports.size(), 1u);
    for (std::uint32_t data : sent) engine_->sendMsi({kBase, data});
    vcpu().forget();
    x86::resetCpu(vcpu().cpu(), false);
    ASSERT_TRUE(vcpu().writeApic(powerOn(0)));
    startReal({0xe6, 0x12, 0xf4, 0xeb, 0xfd});
    run();
    ASSERT_EQ(environment_.ports.size(), 2u) << std::hex << sent[0];
    EXPECT_EQ(std::get<0>(environment_.ports[1]), 0x12u) << std::hex << sent[0];
    EXPECT_EQ(state().rip, kCode + 2) << std::hex << sent[0];
  }
}

TEST_P(KvmApicTest, WhatIsSentToAStoppedProcessorIsThereWhenItsStateIsTaken) {
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
