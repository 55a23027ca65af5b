// SPDX-License-Identifier: Apache-2.0
#include "device/local_apic.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/fake_clock.h"
#include "device/apic_bus.h"
#include "device/fakes.h"

namespace lodge {
namespace {

constexpr std::uint64_t kBase = 0xfee0'0000, kEnable = 0x800, kX2 = 0x400, kBsp = 0x100;

struct FakePic : ExtIntSource {
  std::uint8_t acknowledgeInterrupt() override {
    ++acknowledged;
    if (line) line->set(false);
    return 0x33;
  }
  InterruptLine* line = nullptr;
  int acknowledged = 0;
};

struct FakeIoApic : EoiListener {
  void endOfInterrupt(std::uint8_t vector) override { vectors.push_back(vector); }
  std::vector<std::uint8_t> vectors;
};

class LocalApicTest : public testing::Test {
 protected:
  LocalApicTest() {
    bus.attach(ioApic);
    bus.setExtIntSource(&pic);
  }
  std::uint32_t reg(std::uint64_t offset) { return static_cast<std::uint32_t>(apic.read(offset, 4)); }
  void setReg(std::uint64_t offset, std::uint32_t value) { apic.write(offset, 4, value); }
  void enable() { setReg(0xf0, 0x1ff); }
  bool send(std::uint8_t vector, bool level = false) {
    return apic.accept({0, false, false, DeliveryMode::fixed, vector, level, true});
  }
  void toX2() { ASSERT_TRUE(apic.writeMsr(0x1b, kBase | kEnable | kX2)); }
  std::uint64_t msr(std::uint32_t number) {
    std::uint64_t value = 0;
    EXPECT_TRUE(apic.readMsr(number, value)) << std::hex << number;
    return value;
  }
  bool readable(std::uint32_t number) {
    std::uint64_t value = 0;
    return apic.readMsr(number, value);
  }

  FakeClock clock;
  ApicBus bus;
  FakeApicCpu cpu, otherCpu;
  FakePic pic;
  FakeIoApic ioApic;
  LocalApic apic{{.id = 5,
                  .bootstrap = false,
                  .physicalAddressBits = 40,
                  .bus = bus,
                  .cpu = cpu,
                  .timers = clock,
                  .timeOfTsc = [](std::uint64_t tsc) { return static_cast<Nanoseconds>(tsc >> 1); }}};
};

TEST_F(LocalApicTest, ResetValues) {
  EXPECT_EQ(msr(0x1b), kBase | kEnable);
  EXPECT_EQ(reg(0x20), 5u << 24);
  EXPECT_EQ(reg(0x30), 0x0105'0014u);
  EXPECT_EQ(reg(0x80), 0u);
  EXPECT_EQ(reg(0xd0), 0u);
  EXPECT_EQ(reg(0xe0), 0xffff'ffffu);
  EXPECT_EQ(reg(0xf0), 0xffu);
  for (unsigned offset = 0x320; offset <= 0x370; offset += 0x10)
    EXPECT_EQ(reg(offset), 0x1'0000u) << std::hex << offset;
  for (unsigned offset = 0x100; offset <= 0x270; offset += 0x10) EXPECT_EQ(reg(offset), 0u) << std::hex << offset;
  EXPECT_EQ(reg(0x380), 0u);
  EXPECT_EQ(reg(0x390), 0u);
  EXPECT_EQ(reg(0x3e0), 0u);
}

TEST_F(LocalApicTest, DeliversHighestFirstAndNests) {
  enable();
  EXPECT_TRUE(send(0x41));
  EXPECT_TRUE(send(0x62));
  EXPECT_EQ(cpu.interrupts, 2);
  EXPECT_EQ(reg(0x230), 1u << 2);
  EXPECT_TRUE(apic.pending());
  EXPECT_EQ(apic.acknowledge(), 0x62);
  EXPECT_EQ(reg(0xa0), 0x60u);
  EXPECT_EQ(reg(0x130), 1u << 2);
  EXPECT_FALSE(apic.pending());
  EXPECT_EQ(apic.acknowledge(), -1);
  send(0x6f);
  EXPECT_FALSE(apic.pending()) << "the same class waits";
  send(0x70);
  EXPECT_EQ(apic.acknowledge(), 0x70);
  int before = cpu.interrupts;
  setReg(0xb0, 0);
  EXPECT_EQ(reg(0xa0), 0x60u);
  EXPECT_EQ(cpu.interrupts, before);
  setReg(0xb0, 0);
  EXPECT_EQ(cpu.interrupts, before + 1) << "EOI asks for the next";
  EXPECT_EQ(apic.acknowledge(), 0x6f);
  apic.endOfInterrupt();
  EXPECT_EQ(apic.acknowledge(), 0x41);
  apic.endOfInterrupt();
  apic.endOfInterrupt();
  EXPECT_EQ(reg(0xa0), 0u);
}

TEST_F(LocalApicTest, SameVectorTwiceIsOneInterruptAndOneMore) {
  enable();
  send(0x41);
  send(0x41);
  EXPECT_EQ(cpu.interrupts, 1);
  EXPECT_EQ(apic.acknowledge(), 0x41);
  send(0x41);
  apic.endOfInterrupt();
  EXPECT_EQ(apic.acknowledge(), 0x41);
  apic.endOfInterrupt();
  EXPECT_FALSE(apic.pending());
}

TEST_F(LocalApicTest, TaskPriorityBlocksItsClassAndBelow) {
  enable();
  setReg(0x80, 0x4f);
  EXPECT_EQ(reg(0xa0), 0x4fu);
  send(0x4f);
  EXPECT_FALSE(apic.pending());
  EXPECT_EQ(apic.taskPriority(), 4);
  int before = cpu.interrupts;
  apic.setTaskPriority(3);
  EXPECT_EQ(reg(0x80), 0x30u);
  EXPECT_EQ(cpu.interrupts, before + 1);
  EXPECT_EQ(apic.acknowledge(), 0x4f);
  EXPECT_EQ(reg(0xa0), 0x40u);
  apic.setTaskPriority(4);
  EXPECT_EQ(reg(0xa0), 0x40u);
  apic.setTaskPriority(9);
  EXPECT_EQ(reg(0xa0), 0x90u);
  EXPECT_EQ(reg(0x90), 0x90u) << "arbitration priority";
}

TEST_F(LocalApicTest, LevelTriggeredVectorsBroadcastTheirEoi) {
  enable();
  send(0x41, true);
  EXPECT_EQ(reg(0x1a0), 2u);
  EXPECT_EQ(apic.acknowledge(), 0x41);
  EXPECT_FALSE(apic.eoiMayBeSkipped());
  apic.endOfInterrupt();
  EXPECT_EQ(ioApic.vectors, std::vector<std::uint8_t>{0x41});
  send(0x41);
  EXPECT_EQ(reg(0x1a0), 0u);
  EXPECT_EQ(apic.acknowledge(), 0x41);
  apic.endOfInterrupt();
  EXPECT_EQ(ioApic.vectors.size(), 1u);
  setReg(0xf0, 0x11ff);  // suppress EOI broadcasts
  send(0x41, true);
  EXPECT_EQ(apic.acknowledge(), 0x41);
  apic.endOfInterrupt();
  EXPECT_EQ(ioApic.vectors.size(), 1u);
}

TEST_F(LocalApicTest, EoiMayBeSkippedWhenNothingWaits) {
  enable();
  EXPECT_FALSE(apic.eoiMayBeSkipped());
  send(0x41);
  send(0x31);
  EXPECT_EQ(apic.acknowledge(), 0x41);
  EXPECT_FALSE(apic.eoiMayBeSkipped()) << "0x31 needs the EOI";
  apic.endOfInterrupt();
  EXPECT_EQ(apic.acknowledge(), 0x31);
  EXPECT_TRUE(apic.eoiMayBeSkipped());
  int before = cpu.interrupts;
  send(0x22);
  EXPECT_EQ(cpu.interrupts, before + 1) << "raised although PPR hides it";
  apic.endOfInterrupt();
  EXPECT_FALSE(apic.eoiMayBeSkipped());
}

TEST_F(LocalApicTest, SoftwareDisabled) {
  enable();
  setReg(0x350, 0x700);
  setReg(0x370, 0x40);
  send(0x50);
  setReg(0xf0, 0xff);
  EXPECT_EQ(reg(0x350), 0x1'0700u);
  EXPECT_EQ(reg(0x370), 0x1'0040u);
  setReg(0x350, 0x700);
  EXPECT_EQ(reg(0x350), 0x1'0700u) << "mask bits cannot be cleared";
  EXPECT_FALSE(send(0x41));
  EXPECT_TRUE(apic.pending()) << "what was accepted stays";
  ApicMessage nmi{5, false, false, DeliveryMode::nmi, 0, false, true};
  EXPECT_TRUE(apic.accept(nmi));
  EXPECT_EQ(cpu.nmis, 1);
}

TEST_F(LocalApicTest, GloballyDisabled) {
  enable();
  send(0x41);
  EXPECT_TRUE(apic.answersAt(kBase + 0xff0));
  EXPECT_FALSE(apic.answersAt(kBase + 0x1000));
  setReg(0x20, 0x0700'0000);
  EXPECT_EQ(reg(0x20), 0x0700'0000u) << "the xAPIC id is writable";
  ASSERT_TRUE(apic.writeMsr(0x1b, kBase));
  EXPECT_FALSE(apic.answersAt(kBase));
  EXPECT_FALSE(apic.pending());
  EXPECT_FALSE(send(0x41));
  bus.lint(0).set(true);
  EXPECT_TRUE(apic.pending()) << "LINT0 is INTR";
  bus.lint(1).set(true);
  EXPECT_EQ(cpu.nmis, 1);
  bus.lint(0).set(false);
  EXPECT_FALSE(apic.pending());
  ASSERT_TRUE(apic.writeMsr(0x1b, kBase | kEnable));
  EXPECT_EQ(reg(0x20), 0x0500'0000u);
  EXPECT_EQ(reg(0xf0), 0xffu);
}

TEST_F(LocalApicTest, BaseMovesAndItsReservedBitsFault) {
  ASSERT_TRUE(apic.writeMsr(0x1b, 0x1000'0000 | kEnable));
  EXPECT_TRUE(apic.answersAt(0x1000'0020));
  EXPECT_FALSE(apic.answersAt(kBase));
  for (std::uint64_t bad :
       {kBase | kEnable | 1, kBase | kEnable | 0x200, kBase | kEnable | std::uint64_t{1} << 40, kBase | kX2}) {
    EXPECT_FALSE(apic.writeMsr(0x1b, bad)) << std::hex << bad;
  }
  EXPECT_EQ(msr(0x1b), 0x1000'0000 | kEnable);
}

TEST_F(LocalApicTest, ModeTransitions) {
  toX2();
  EXPECT_FALSE(apic.answersAt(kBase));
  EXPECT_FALSE(apic.writeMsr(0x1b, kBase | kEnable)) << "x2APIC to xAPIC";
  ASSERT_TRUE(apic.writeMsr(0x1b, kBase));
  EXPECT_FALSE(readable(0x802));
  EXPECT_FALSE(apic.writeMsr(0x1b, kBase | kEnable | kX2)) << "disabled to x2APIC";
  ASSERT_TRUE(apic.writeMsr(0x1b, kBase | kEnable));
  toX2();
}

TEST_F(LocalApicTest, X2ApicIdAndLogicalIdFollowTheInitialId) {
  setReg(0x20, 0x0900'0000);
  toX2();
  EXPECT_EQ(msr(0x802), 5u);
  EXPECT_EQ(msr(0x80d), 1u << 5);
  EXPECT_FALSE(apic.writeMsr(0x802, 1));
  EXPECT_FALSE(apic.writeMsr(0x80d, 1));
  apic.reset();
  EXPECT_EQ(msr(0x1b), kBase | kEnable | kX2) << "INIT keeps the mode";
  EXPECT_EQ(msr(0x80d), 1u << 5);
}

TEST_F(LocalApicTest, X2ApicAccessRules) {
  EXPECT_FALSE(readable(0x802)) << "xAPIC mode";
  EXPECT_FALSE(apic.writeMsr(0x80b, 0));
  toX2();
  for (std::uint32_t n :
       {0x800u, 0x804u, 0x809u, 0x80bu, 0x80cu, 0x80eu, 0x829u, 0x82fu, 0x831u, 0x83fu, 0x840u, 0x8ffu}) {
    EXPECT_FALSE(readable(n)) << std::hex << n;
  }
  for (std::uint32_t n : {0x802u, 0x803u, 0x808u, 0x80au, 0x80du, 0x80fu, 0x810u, 0x827u, 0x828u, 0x830u, 0x832u,
                          0x837u, 0x838u, 0x839u, 0x83eu}) {
    EXPECT_TRUE(readable(n)) << std::hex << n;
  }
  for (std::uint32_t n : {0x802u, 0x803u, 0x80au, 0x80du, 0x80eu, 0x810u, 0x820u, 0x839u, 0x831u, 0x82fu}) {
    EXPECT_FALSE(apic.writeMsr(n, 0)) << std::hex << n;
  }
  const std::pair<std::uint32_t, std::uint64_t> reserved[] = {
      {0x808, 0x100},   {0x80b, 1},       {0x80f, 0x2000},  {0x828, 1},      {0x830, 1 << 13},
      {0x830, 1 << 16}, {0x830, 1 << 20}, {0x832, 1 << 11}, {0x837, 1 << 8}, {0x838, 1ull << 32},
      {0x83e, 4},       {0x83f, 0x100},   {0x835, 1 << 17}};
  for (auto [n, value] : reserved) EXPECT_FALSE(apic.writeMsr(n, value)) << std::hex << n << ' ' << value;
}

TEST_F(LocalApicTest, SelfIpi) {
  toX2();
  ASSERT_TRUE(apic.writeMsr(0x80f, 0x1ff));
  ASSERT_TRUE(apic.writeMsr(0x83f, 0x45));
  EXPECT_EQ(apic.acknowledge(), 0x45);
  ASSERT_TRUE(apic.writeMsr(0x80b, 0));
  ASSERT_TRUE(apic.writeMsr(0x83f, 3));
  ASSERT_TRUE(apic.writeMsr(0x828, 0));
  EXPECT_EQ(msr(0x828), 0x20u);
}

TEST_F(LocalApicTest, ErrorStatusRegister) {
  enable();
  setReg(0x370, 0xee);
  EXPECT_EQ(reg(0x28 << 4), 0u);
  EXPECT_FALSE(send(0x0f));
  EXPECT_EQ(reg(0x280), 0u) << "shown only after a write";
  setReg(0x280, 0);
  EXPECT_EQ(reg(0x280), 0x40u);
  EXPECT_EQ(apic.acknowledge(), 0xee);
  apic.endOfInterrupt();
  setReg(0x300, 0x4'0005);
  reg(0x10);
  setReg(0x290, 0);
  setReg(0x280, 0xffff);
  EXPECT_EQ(reg(0x280), 0xa0u) << "send illegal vector, illegal register";
  setReg(0x280, 0);
  EXPECT_EQ(reg(0x280), 0u);
  setReg(0x370, 5);
  send(1);
  setReg(0x280, 0);
  EXPECT_EQ(reg(0x280), 0x40u) << "an error vector that is illegal itself";
}

TEST_F(LocalApicTest, ReadOnlyRegistersSwallowWritesWithoutAnError) {
  enable();
  for (unsigned offset : {0x30u, 0x90u, 0xa0u, 0xc0u, 0x100u, 0x180u, 0x270u, 0x390u}) setReg(offset, ~0u);
  setReg(0x280, 0);
  EXPECT_EQ(reg(0x280), 0u);
  EXPECT_EQ(reg(0x30), 0x0105'0014u);
}

TEST_F(LocalApicTest, OddAccessSizes) {
  EXPECT_EQ(apic.read(0x23, 1), 5u);
  EXPECT_EQ(apic.read(0x30, 2), 0x14u);
  EXPECT_EQ(apic.read(0x34, 4), 0u);
  EXPECT_EQ(apic.read(0x30, 8), 0x0105'0014u);
  apic.write(0x80, 1, 0x20);
  apic.write(0x84, 4, 0x20);
  EXPECT_EQ(reg(0x80), 0u);
}

TEST_F(LocalApicTest, LvtWritableBits) {
  enable();
  const std::pair<std::uint64_t, std::uint32_t> table[] = {{0x320, 0x7'00ff}, {0x330, 0x1'07ff}, {0x340, 0x1'07ff},
                                                           {0x350, 0x1'a7ff}, {0x360, 0x1'a7ff}, {0x370, 0x1'00ff}};
  for (auto [offset, bits] : table) {
    setReg(offset, ~0u);
    EXPECT_EQ(reg(offset), bits) << std::hex << offset;
  }
  setReg(0xd0, ~0u);
  EXPECT_EQ(reg(0xd0), 0xff00'0000u);
  setReg(0xe0, 0);
  EXPECT_EQ(reg(0xe0), 0x0fff'ffffu);
  setReg(0xf0, ~0u);
  EXPECT_EQ(reg(0xf0), 0x13ffu);
  setReg(0x310, ~0u);
  EXPECT_EQ(reg(0x310), 0xff00'0000u);
}

TEST_F(LocalApicTest, TimerThroughTheLvt) {
  enable();
  setReg(0x3e0, 0xb);
  setReg(0x320, 0x1'00e0);
  setReg(0x380, 1000);
  clock.advance(1000);
  EXPECT_FALSE(apic.pending()) << "masked";
  setReg(0x320, 0xe0);
  setReg(0x380, 1000);
  EXPECT_EQ(reg(0x390), 1000u);
  clock.advance(1000);
  EXPECT_EQ(apic.acknowledge(), 0xe0);
  apic.endOfInterrupt();
  setReg(0x320, 0x4'00e1);
  EXPECT_TRUE(apic.writeMsr(0x6e0, 10'000));
  EXPECT_EQ(msr(0x6e0), 10'000u);
  clock.advance(3000);
  EXPECT_EQ(apic.acknowledge(), 0xe1);
  EXPECT_EQ(msr(0x6e0), 0u);
}

TEST_F(LocalApicTest, LintPins) {
  enable();
  setReg(0x360, 0x400);
  bus.lint(1).set(true);
  bus.lint(1).set(true);
  EXPECT_EQ(cpu.nmis, 1);
  setReg(0x350, 0x51);  // fixed, edge
  bus.lint(0).pulse();
  EXPECT_EQ(apic.acknowledge(), 0x51);
  apic.endOfInterrupt();
  setReg(0x350, 0x8052);  // fixed, level
  bus.lint(0).set(true);
  EXPECT_EQ(reg(0x350), 0xc052u) << "remote IRR";
  EXPECT_EQ(apic.acknowledge(), 0x52);
  apic.endOfInterrupt();
  EXPECT_EQ(apic.acknowledge(), 0x52) << "still high";
  bus.lint(0).set(false);
  apic.endOfInterrupt();
  EXPECT_FALSE(apic.pending());
  EXPECT_EQ(reg(0x350), 0x8052u);
}

TEST_F(LocalApicTest, ExtIntThroughLint0) {
  pic.line = &bus.lint(0);
  enable();
  bus.lint(0).set(true);
  EXPECT_FALSE(apic.pending());
  setReg(0x350, 0x700);
  EXPECT_TRUE(apic.pending()) << "unmasked while the line is high";
  setReg(0x80, 0xff);
  EXPECT_TRUE(apic.pending()) << "priorities do not hold it";
  EXPECT_EQ(apic.acknowledge(), 0x33);
  EXPECT_EQ(pic.acknowledged, 1);
  EXPECT_FALSE(apic.pending());
  EXPECT_EQ(reg(0x110), 0u) << "never in service";
  apic.accept({5, false, false, DeliveryMode::extInt, 0, false, true});
  EXPECT_EQ(apic.acknowledge(), 0x33);
}

TEST_F(LocalApicTest, BootstrapStartsInVirtualWireMode) {
  LocalApic bsp(
      {.id = 0, .bootstrap = true, .bus = bus, .cpu = otherCpu, .timers = clock, .timeOfTsc = [](std::uint64_t) {
         return 0;
       }});
  std::uint64_t base = 0;
  EXPECT_TRUE(bsp.readMsr(0x1b, base));
  EXPECT_EQ(base, kBase | kEnable | kBsp);
  bus.lint(0).set(true);
  EXPECT_TRUE(bsp.pending());
  EXPECT_FALSE(apic.pending());
  bus.lint(1).set(true);
  EXPECT_EQ(otherCpu.nmis, 1);
  EXPECT_EQ(cpu.nmis, 0);
}

TEST_F(LocalApicTest, InitKeepsTheIdAndClearsTheRest) {
  enable();
  setReg(0x20, 0x0300'0000);
  send(0x41);
  setReg(0x320, 0x2'0040);
  setReg(0x380, 100);
  apic.reset();
  EXPECT_EQ(reg(0x20), 0x0300'0000u);
  EXPECT_FALSE(apic.pending());
  EXPECT_EQ(reg(0xf0), 0xffu);
  EXPECT_EQ(reg(0x320), 0x1'0000u);
  EXPECT_EQ(reg(0x380), 0u);
  apic.powerOn();
  EXPECT_EQ(reg(0x20), 0x0500'0000u);
}

TEST_F(LocalApicTest, SaveAndRestore) {
  enable();
  setReg(0xd0, 0x0200'0000);
  setReg(0x80, 0x10);
  setReg(0x320, 0x55);
  setReg(0x3e0, 0xb);
  setReg(0x380, 1000);
  send(0x61, true);
  EXPECT_EQ(apic.acknowledge(), 0x61);
  send(0x71);
  LocalApic::State state = apic.save();
  apic.powerOn();
  apic.restore(state);
  EXPECT_EQ(reg(0xa0), 0x60u);
  EXPECT_EQ(apic.acknowledge(), 0x71);
  apic.endOfInterrupt();
  apic.endOfInterrupt();
  EXPECT_EQ(ioApic.vectors, std::vector<std::uint8_t>{0x61});
  clock.advance(1000);
  EXPECT_EQ(apic.acknowledge(), 0x55);
}

TEST_F(LocalApicTest, ManySendersLoseNothing) {
  enable();
  constexpr int kRounds = 20'000;
  std::atomic<int> acknowledged{0};
  std::atomic<bool> slots[2] = {true, true};
  auto sender = [&](unsigned n) {
    for (int round = 0; round < kRounds; ++round) {
      while (!slots[n].exchange(false)) std::this_thread::yield();
      send(static_cast<std::uint8_t>(0x40 + 0x10 * n));
    }
  };
  std::thread first(sender, 0), second(sender, 1);
  while (acknowledged < 2 * kRounds) {
    int vector = apic.acknowledge();
    if (vector < 0) {
      std::this_thread::yield();
      continue;
    }
    apic.endOfInterrupt();
    ++acknowledged;
    slots[(vector - 0x40) >> 4] = true;
  }
  first.join();
  second.join();
  EXPECT_FALSE(apic.pending());
}

}  // namespace
}  // namespace lodge
