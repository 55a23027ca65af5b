// SPDX-License-Identifier: Apache-2.0
// A local APIC whose state an engine has.
#include <gtest/gtest.h>

#include "base/fake_clock.h"
#include "device/apic_bus.h"
#include "device/fakes.h"
#include "device/io_apic.h"
#include "device/local_apic.h"
#include "device/local_apic_index.h"

namespace lodge {
namespace {

struct FakePic : ExtIntSource {
  std::uint8_t acknowledgeInterrupt() override { return 0x33; }
};

struct FakeKeeper : ApicKeeper {
  bool sendMsi(std::uint64_t address, std::uint32_t data) override {
    sent.push_back({address, data});
    return true;
  }
  void setLevelMessages(std::span<const Msi> messages) override { levels.assign(messages.begin(), messages.end()); }
  std::vector<Msi> sent, levels;
};

class LocalApicAwayTest : public testing::Test {
 protected:
  LocalApicAwayTest() {
    bus.setExtIntSource(&pic);
    apic.write(0xf0, 4, 0x1ff);
  }
  std::uint32_t reg(std::uint64_t offset) { return static_cast<std::uint32_t>(apic.read(offset, 4)); }
  bool send(std::uint8_t vector, bool level = false) {
    return bus.deliver({0, false, false, DeliveryMode::fixed, vector, level, true});
  }
  x86::LocalApicRegisters give() {
    x86::LocalApicRegisters registers;
    bus.setKeeper(&keeper, [&] { registers = apic.surrender(); });
    return registers;
  }
  void take(const x86::LocalApicRegisters& registers) {
    bus.setKeeper(nullptr, [&] { apic.adopt(registers); });
  }

  FakeClock clock;
  ApicBus bus;
  FakeApicCpu cpu;
  FakePic pic;
  FakeKeeper keeper;
  LocalApic apic{
      {.id = 0, .bootstrap = true, .bus = bus, .cpu = cpu, .timers = clock, .timeOfTsc = [](std::uint64_t tsc) {
         return static_cast<Nanoseconds>(tsc);
       }}};
};

TEST_F(LocalApicAwayTest, StateComesBackAsItWent) {
  apic.write(0x80, 4, 0x25);
  apic.write(0xd0, 4, 0x0200'0000);
  apic.write(0x310, 4, 0x0100'0000);
  apic.write(0x320, 4, 0x2'0044);  // periodic
  apic.write(0x3e0, 4, 3);
  apic.write(0x380, 4, 1000);
  send(0x61);
  EXPECT_EQ(apic.acknowledge(), 0x61);
  send(0x72, true);
  clock.advance(16 * 400);
  auto before = apic.save();
  auto registers = give();
  EXPECT_EQ(registers.words[0x39], 600u);
  EXPECT_EQ(registers.words[0x0a], 0x60u) << "PPR";
  take(registers);
  auto after = apic.save();
  EXPECT_EQ(after.base, before.base);
  EXPECT_EQ(after.icr, before.icr);
  EXPECT_EQ(after.id, before.id);
  EXPECT_EQ(after.logicalDestination, before.logicalDestination);
  EXPECT_EQ(after.taskPriority, before.taskPriority);
  EXPECT_EQ(after.lvt, before.lvt);
  EXPECT_EQ(after.irr, before.irr);
  EXPECT_EQ(after.isr, before.isr);
  EXPECT_EQ(after.tmr, before.tmr);
  EXPECT_EQ(after.timer.initialCount, 1000u);
  EXPECT_EQ(after.timer.remaining, before.timer.remaining);
  EXPECT_EQ(after.timer.divide, 3u);
  EXPECT_EQ(after.timer.mode, LocalApicTimer::Mode::periodic);
  EXPECT_EQ(apic.acknowledge(), 0x72);
}

TEST_F(LocalApicAwayTest, ADeadlineComesBackArmedAndOneThatIsPastExpires) {
  apic.write(0x320, 4, 0x4'0044);
  ASSERT_TRUE(apic.writeMsr(0x6e0, 5000));
  auto registers = give();
  EXPECT_EQ(registers.tscDeadline, 5000u);
  clock.advance(1000);
  take(registers);
  EXPECT_FALSE(apic.pending());
  EXPECT_EQ(apic.timer().nextDeadline(), 5000);
  registers = give();
  clock.advance(10'000);
  EXPECT_FALSE(apic.pending()) << "it is the engine's";
  take(registers);
  EXPECT_EQ(apic.acknowledge(), 0x44);
}

TEST_F(LocalApicAwayTest, X2ApicModeStays) {
  ASSERT_TRUE(apic.writeMsr(0x1b, 0xfee0'0d00));
  ASSERT_TRUE(apic.writeMsr(0x830, 0x1234'5678'000c'40f0));
  auto registers = give();
  EXPECT_EQ(registers.words[2], 0u);
  EXPECT_EQ(registers.words[0xd], 1u);
  EXPECT_EQ(registers.words[0x31], 0x1234'5678u);
  take(registers);
  std::uint64_t value = 0;
  ASSERT_TRUE(apic.readMsr(0x830, value));
  EXPECT_EQ(value, 0x1234'5678'000c'40f0u);
}

TEST_F(LocalApicAwayTest, ACountThatHasRunOutIsGivenAgainOnlyIfItMayBeOwed) {
  apic.write(0x320, 4, 0x44);  // one-shot
  apic.write(0x380, 4, 1000);
  clock.advance(10'000);
  EXPECT_EQ(apic.acknowledge(), 0x44);
  apic.endOfInterrupt();
  auto registers = give();
  EXPECT_EQ(registers.words[0x38], 0u) << "an engine would let it expire again";
  registers.words[0x38] = 1000;  // an engine's that has run out, and that may not have been delivered
  take(registers);
  clock.advance(1);
  EXPECT_EQ(apic.acknowledge(), 0x44);
}

TEST_F(LocalApicAwayTest, OnlyThe8259AIsHeardMeanwhile) {
  auto registers = give();
  EXPECT_TRUE(send(0x61));
  bus.sendMsi(0xfee0'0000, 0x62);
  EXPECT_FALSE(apic.pending());
  ASSERT_EQ(keeper.sent.size(), 2u);
  EXPECT_EQ(keeper.sent[0], (ApicKeeper::Msi{0xfee0'0000, 0x4061}));
  EXPECT_EQ(keeper.sent[1], (ApicKeeper::Msi{0xfee0'0000, 0x62}));
  int before = cpu.interrupts;
  bus.lint(0).set(true);
  EXPECT_EQ(cpu.interrupts, before + 1);
  EXPECT_TRUE(apic.pending());
  EXPECT_EQ(apic.acknowledge(), 0x33);
  bus.lint(0).set(false);
  EXPECT_FALSE(apic.pending());
  take(registers);
  bus.sendMsi(0xfee0'0000, 0x63);
  EXPECT_EQ(apic.acknowledge(), 0x63);
}

TEST_F(LocalApicAwayTest, KeepersKnowTheLevelTriggeredPins) {
  IoApic ioApic(bus, 0);
  bus.attach(ioApic);
  auto program = [&](unsigned pin, std::uint32_t low, std::uint32_t high) {
    ioApic.write(0, 4, 0x11 + 2 * pin);
    ioApic.write(0x10, 4, high);
    ioApic.write(0, 4, 0x10 + 2 * pin);
    ioApic.write(0x10, 4, low);
  };
  program(9, 0x8051, 0);
  program(4, 0x0041, 0);
  auto registers = give();
  ASSERT_EQ(keeper.levels.size(), 1u);
  EXPECT_EQ(keeper.levels[0], (ApicKeeper::Msi{0xfee0'0000, 0xc051}));
  program(10, 0x1'8952, 0x0300'0000);  // masked, logical, lowest priority: masked ones may have an EOI to come
  ASSERT_EQ(keeper.levels.size(), 2u);
  EXPECT_EQ(keeper.levels[1], (ApicKeeper::Msi{0xfee0'3004, 0xc152}));
  ioApic.line(9).set(true);
  ASSERT_EQ(keeper.sent.size(), 1u);
  EXPECT_EQ(keeper.sent[0].data, 0xc051u);
  bus.broadcastEoi(0x51);
  EXPECT_EQ(keeper.sent.size(), 2u) << "the line is high still";
  program(9, 0x51, 0);
  EXPECT_EQ(keeper.levels.size(), 1u);
  take(registers);
}

TEST_F(LocalApicAwayTest, AnEndThatWasNotToldIsFoundWhenTheyComeBack) {
  constexpr unsigned kPin = 5, kVector = 0x45, kWord = local_apic::kIsr + kVector / 32;
  constexpr std::uint32_t kBit = 1u << kVector % 32;
  IoApic ioApic(bus, 0);
  bus.attach(ioApic);
  auto remoteIrr = [&] { return (ioApic.save().entries[kPin] >> 14 & 1) != 0; };
  ioApic.write(0, 4, 0x10 + 2 * kPin);
  ioApic.write(0x10, 4, 0x8000 | kVector);
  ioApic.line(kPin).set(true);
  EXPECT_EQ(apic.acknowledge(), static_cast<int>(kVector));
  x86::LocalApicRegisters registers = give();
  EXPECT_NE(registers.words[kWord] & kBit, 0u);
  take(registers);
  bus.endLostInterrupts();
  EXPECT_TRUE(remoteIrr()) << "its handler runs";
  EXPECT_FALSE(apic.pending());
  // The handler ends it there, and the message is on its way still.
  registers = give();
  registers.words[kWord] &= ~kBit;
  take(registers);
  EXPECT_TRUE(remoteIrr());
  bus.endLostInterrupts();
  EXPECT_EQ(apic.acknowledge(), static_cast<int>(kVector)) << "the line is high: again";
  EXPECT_TRUE(remoteIrr());
  ioApic.line(kPin).set(false);
  registers = give();
  registers.words[kWord] &= ~kBit;
  take(registers);
  bus.endLostInterrupts();
  EXPECT_FALSE(remoteIrr());
  EXPECT_FALSE(apic.pending());
  // A handler that tells the I/O APIC itself may not have done so yet.
  ioApic.line(kPin).set(true);
  EXPECT_EQ(apic.acknowledge(), static_cast<int>(kVector));
  registers = give();
  registers.words[kWord] &= ~kBit;
  registers.words[local_apic::kSpurious] |= 1 << 12;
  take(registers);
  bus.endLostInterrupts();
  EXPECT_TRUE(remoteIrr());
}

}  // namespace
}  // namespace lodge
