// SPDX-License-Identifier: Apache-2.0
// All interrupt controllers and the PIT in KVM, on a real KVM.
#include "engine/chip_keeper.h"
#include "engine/kvm/test_apics.h"

namespace lodge::kvm {
namespace {

constexpr std::uint64_t kLevelEntry = 1 << 15, kRemoteIrr = 1 << 14, kMaskedEntry = 1 << 16;
constexpr std::uint8_t kVector = 0x40;
/// wrmsr of 0 to the x2APIC's EOI: mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr
#define EOI 0x66, 0xb9, 0x0b, 8, 0, 0, 0x66, 0x31, 0xc0, 0x66, 0x31, 0xd2, 0x0f, 0x30

class KvmChipsTest : public KvmApicTest {
 protected:
  /// 8259As that are set up and masked, an I/O APIC with masked pins, a PIT that nobody has written to.
  static x86::ChipRegisters fresh() {
    x86::ChipRegisters chips;
    for (unsigned n = 0; n < 2; ++n) {
      chips.pic[n].vectorBase = static_cast<std::uint8_t>(kVector + 8 * n);
      chips.pic[n].initialized = chips.pic[n].needIcw4 = true;
      chips.pic[n].imr = 0xff;
    }
    chips.ioApic.entries.fill(kMaskedEntry);
    chips.pit.channels[2].gate = false;
    return chips;
  }
  static void tickEvery(x86::ChipRegisters& chips, std::uint32_t count) {
    x86::PitCounter& c = chips.pit.channels[0];
    c.mode = 2;
    c.count = count;
    c.loaded = c.counting = true;
  }
  void SetUp() override {
    KvmApicTest::SetUp();
    chips_ = dynamic_cast<ChipKeepingEngine*>(engine_.get());
  }
  /// CPU 0 takes what 8259As and x2APICs have.
  void open(const x86::ChipRegisters& chips) {
    x86::LocalApicRegisters r = powerOn(0);
    r.base |= kX2;
    r.words[kId] = 0;
    r.words[kLogicalDestination] = 1;
    r.words[kLvtLint0] = 0x700;
    r.words[kSpurious] = spurious_;
    ASSERT_TRUE(vcpu().writeApic(r));
    ASSERT_TRUE(chips_ && chips_->keepsChips());
    Status written = chips_->writeChips(chips);
    ASSERT_TRUE(written) << written.error().message();
  }
  x86::ChipRegisters read() {
    x86::ChipRegisters chips = fresh();
    Status done = chips_->readChips(chips);
    EXPECT_TRUE(done) << done.error().message();
    return chips;
  }
  /// hlt; jmp to it. It sleeps already.
  void sleep() {
    startReal({0xf4, 0xeb, 0xfd});
    state().rip = kCode + 1;
    state().activity = x86::Activity::halted;
  }
  void stopAfter(unsigned writes) {
    environment_.onPort = [this, writes](std::uint64_t) {
      if (environment_.ports.size() >= writes) vcpu().cpu().raise(x86::event::stop);
    };
  }
  /// A line that is high since before the state comes falls in its handler's third turn.
  void askUntilItFalls() {
    x86::ChipRegisters chips = fresh();
    chips.ioApic.entries[19] = kLevelEntry | kVector;
    chips.ioApic.levels = 1 << 19;  // since before the state came here
    open(chips);
    write(kHandler, {EOI, 0xe6, 0x11, 0xcf});
    sleep();
    unsigned asked = 0;
    environment_.onPort = [&](std::uint64_t) {
      if (++asked == 3) chips_->setLine(19, false);  // after an EOI that has asked once more
      if (asked == 4) vcpu().cpu().raise(x86::event::stop);
    };
    run();
    EXPECT_EQ(asked, 4u);
  }
  ChipKeepingEngine* chips_ = nullptr;
  std::uint32_t spurious_ = 0x1ff;
};
INSTANTIATE_TEST_SUITE_P(Irqchips, KvmChipsTest, testing::Values(kKernelIrqchip), [](const auto&) { return "kernel"; });

TEST_P(KvmChipsTest, StateComesBackAsItWent) {
  x86::ChipRegisters chips = fresh();
  chips.pic[0].imr = 0xbd;
  chips.pic[0].irr = 0x02;
  chips.pic[0].isr = 0x40;
  chips.pic[0].lowestPriority = 3;
  chips.pic[1].elcr = 0x0c;
  chips.pic[1].autoEoi = chips.pic[1].readIsr = true;
  chips.ioApic.select = 0x13;
  chips.ioApic.id = 5;
  chips.ioApic.entries[9] = 0x0200'0000'0000'8831 | kRemoteIrr;
  chips.ioApic.entries[23] = kMaskedEntry | 0x31;
  tickEvery(chips, 60000);
  chips.pit.channels[2] = {.mode = 0, .gate = true, .loaded = true, .counting = true, .count = 50000};
  chips.pit.control = 1;
  open(chips);
  x86::ChipRegisters back = read();
  for (unsigned n = 0; n < 2; ++n) {
    EXPECT_EQ(back.pic[n].imr, chips.pic[n].imr);
    EXPECT_EQ(back.pic[n].irr, chips.pic[n].irr);
    EXPECT_EQ(back.pic[n].isr, chips.pic[n].isr);
    EXPECT_EQ(back.pic[n].elcr, chips.pic[n].elcr);
    EXPECT_EQ(back.pic[n].vectorBase, chips.pic[n].vectorBase);
    EXPECT_EQ(back.pic[n].lowestPriority, chips.pic[n].lowestPriority);
    EXPECT_EQ(back.pic[n].autoEoi, chips.pic[n].autoEoi);
    EXPECT_EQ(back.pic[n].readIsr, chips.pic[n].readIsr);
    EXPECT_TRUE(back.pic[n].initialized);
  }
  EXPECT_EQ(back.ioApic.select, chips.ioApic.select);
  EXPECT_EQ(back.ioApic.id, chips.ioApic.id);
  EXPECT_EQ(back.ioApic.entries, chips.ioApic.entries);
  EXPECT_EQ(back.pit.channels[0].mode, 2);
  EXPECT_EQ(back.pit.channels[0].count, 60000u);
  EXPECT_TRUE(back.pit.channels[0].loaded && back.pit.channels[0].counting);
  EXPECT_EQ(back.pit.channels[1].loaded, false);
  EXPECT_EQ(back.pit.channels[2].count, 50000u);
  EXPECT_TRUE(back.pit.channels[2].gate);
  EXPECT_EQ(back.pit.control & 1, 1);
}

TEST_P(KvmChipsTest, AnEdgeReachesThe8259AAndTheLocalApicKnowsNothingOfIt) {
  x86::ChipRegisters chips = fresh();
  chips.pic[0].imr = 0xfe;
  open(chips);
  sleep();
  std::thread device([this] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    chips_->setLine(0, true);
    chips_->setLine(0, false);
  });
  run();
  device.join();
  EXPECT_TRUE(handled());
  EXPECT_EQ(read().pic[0].isr, 1);
  EXPECT_EQ(readApic().words[kIsr + 2], 0u);
}

TEST_P(KvmChipsTest, AnInterruptOfTheSecond8259ATakesItsVector) {
  x86::ChipRegisters chips = fresh();
  chips.pic[0].imr = 0xfb;
  chips.pic[1].vectorBase = 0x38;  // IRQ 12 is vector 0x3c
  chips.pic[1].imr = 0xef;
  std::uint16_t vector[2] = {kHandler, 0};
  ASSERT_TRUE(memory_->writeObject(Gpa{0x3c * 4}, vector));
  open(chips);
  sleep();
  chips_->setLine(12, true);
  run();
  EXPECT_TRUE(handled());
  x86::ChipRegisters back = read();
  EXPECT_EQ(back.pic[0].isr, 4);
  EXPECT_EQ(back.pic[1].isr, 0x10);
}

TEST_P(KvmChipsTest, ALevelAsksUntilItIsGone) {
  askUntilItFalls();
  EXPECT_EQ(read().ioApic.entries[19], kLevelEntry | kVector);
  EXPECT_EQ(readApic().words[kIrr + 2], 0u);
}

TEST_P(KvmChipsTest, ALevelAsksAgainOfAGuestThatHadSwitchedEoiBroadcastsOff) {
  spurious_ = 0x11ff;
  askUntilItFalls();
  EXPECT_EQ(readApic().words[kSpurious], 0x1ffu);
}

TEST_P(KvmChipsTest, ALineThatWasHighWhenItsPinWasMaskedAsksOnceItIsSetUp) {
  x86::ChipRegisters chips = fresh();
  chips.ioApic.levels = 1 << 19;
  open(chips);
  // mov dword [0], 0x36; mov dword [0x10], kLevelEntry | kVector; hlt; jmp to it
  startReal({0x66, 0xc7, 6, 0, 0, 0x36, 0, 0, 0, 0x66, 0xc7, 6, 0x10, 0, kVector, 0x80, 0, 0, 0xf4, 0xeb, 0xfd});
  state().segment[x86::ds] = {0xfec0'0000, 0xffff, 0, 0x93};
  run();
  EXPECT_TRUE(handled());
}

TEST_P(KvmChipsTest, WhatWaitsInTheStateIsDelivered) {
  x86::ChipRegisters chips = fresh();
  chips.pic[0].imr = 0xfe;
  chips.pic[0].irr = 1;
  open(chips);
  sleep();
  run();
  EXPECT_TRUE(handled());
}

TEST_P(KvmChipsTest, ThePitTicks) {
  using Clock = std::chrono::steady_clock;
  x86::ChipRegisters chips = fresh();
  chips.pic[0].imr = 0xfe;
  tickEvery(chips, 11932);  // 10 ms
  auto began = Clock::now();
  open(chips);
  write(kHandler, {0xe6, 0x11, 0xb0, 0x20, 0xe6, 0x20, 0xcf});  // out 0x11, al; mov al, 0x20; out 0x20, al; iret
  sleep();
  stopAfter(5);
  run();
  EXPECT_EQ(environment_.ports.size(), 5u);
  EXPECT_GE(Clock::now() - began, std::chrono::milliseconds(49));
  x86::ChipRegisters back = read();
  EXPECT_EQ(back.pit.channels[0].count, 11932u);
  EXPECT_EQ(back.pit.channels[0].elapsed, 11932u / 2) << "KVM does not tell";
}

TEST_P(KvmChipsTest, ThePitTicksWhereAnotherHadLeftItsLineHigh) {
  open(fresh());
  chips_->setLine(0, true);
  x86::ChipRegisters chips = read();
  chips.pic[0].imr = 0xfe;
  tickEvery(chips, 11932);
  open(chips);
  write(kHandler, {0xe6, 0x11, 0xb0, 0x20, 0xe6, 0x20, 0xcf});  // as above
  sleep();
  stopAfter(5);
  run();
  EXPECT_EQ(environment_.ports.size(), 5u);
}

TEST_P(KvmChipsTest, APitThatIsSilentDoesNotTickAndGoesOnThen) {
  x86::ChipRegisters chips = fresh();
  chips.pitIsSilent = true;
  tickEvery(chips, 1193);
  open(chips);
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_EQ(read().pic[0].irr & 1, 0);
  unsigned asks = 0;
  for (int i = 0; i < 100 && asks == 0; ++i) {
    chips_->silencePit(false);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    asks = read().pic[0].irr & 1;
  }
  EXPECT_EQ(asks, 1u);
}

TEST_P(KvmChipsTest, PortsOfTheChipsAreNobodyElses) {
  open(fresh());
  // mov al, 3; out 0x61, al; in al, 0x61; mov [0x500], al; mov al, 0x5a; out 0x21, al; in al, 0x21; out 0x12, al; hlt
  startReal(
      {0xb0, 3, 0xe6, 0x61, 0xe4, 0x61, 0xa2, 0, 5, 0xb0, 0x5a, 0xe6, 0x21, 0xe4, 0x21, 0xe6, 0x12, 0xf4, 0xeb, 0xfd});
  run();
  ASSERT_EQ(environment_.ports.size(), 1u);
  EXPECT_EQ(environment_.ports[0], std::make_tuple(std::uint64_t{0x12}, 1u, std::uint64_t{0x5a}));
  std::uint8_t control = 0;
  ASSERT_TRUE(memory_->readObject(Gpa{0x500}, control));
  EXPECT_EQ(control & 3, 3);
  x86::ChipRegisters back = read();
  EXPECT_TRUE(back.pit.channels[2].gate);
  EXPECT_EQ(back.pic[0].imr, 0x5a);
}

}  // namespace
}  // namespace lodge::kvm
