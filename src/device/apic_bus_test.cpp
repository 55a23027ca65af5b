// SPDX-License-Identifier: Apache-2.0
#include "device/apic_bus.h"

#include <gtest/gtest.h>

#include <deque>

#include "base/fake_clock.h"
#include "device/fakes.h"
#include "device/local_apic.h"

namespace lodge {
namespace {

class ApicBusTest : public testing::Test {
 protected:
  ApicBusTest() {
    for (unsigned id = 0; id < 4; ++id) {
      apics.emplace_back(LocalApic::Setup{
          .id = id, .bootstrap = id == 0, .bus = bus, .cpu = cpus[id], .timers = clock, .timeOfTsc = [](std::uint64_t) {
            return Nanoseconds{0};
          }});
      apics[id].write(0xf0, 4, 0x3ff);  // enabled, no focus checking
    }
  }
  void flat() {
    for (unsigned id = 0; id < 4; ++id) apics[id].write(0xd0, 4, 1u << (24 + id));
  }
  void toX2() {
    for (auto& apic : apics) {
      std::uint64_t base = 0;
      apic.readMsr(0x1b, base);
      ASSERT_TRUE(apic.writeMsr(0x1b, base | 0x400));
    }
  }
  /// Takes every interrupt and says who had one: bit n for CPU n.
  unsigned taken(int vector) {
    unsigned who = 0;
    for (unsigned id = 0; id < 4; ++id) {
      int got = apics[id].acknowledge();
      if (got < 0) continue;
      EXPECT_EQ(got, vector);
      apics[id].endOfInterrupt();
      who |= 1u << id;
    }
    return who;
  }
  void ipi(unsigned from, std::uint32_t destination, std::uint32_t command) {
    apics[from].write(0x310, 4, destination << 24);
    apics[from].write(0x300, 4, command);
  }
  void ipiX2(unsigned from, std::uint32_t destination, std::uint32_t command) {
    ASSERT_TRUE(apics[from].writeMsr(0x830, std::uint64_t{destination} << 32 | command));
  }

  FakeClock clock;
  ApicBus bus;
  FakeApicCpu cpus[4];
  std::deque<LocalApic> apics;
};

TEST_F(ApicBusTest, PhysicalDestinationAndBroadcast) {
  ipi(0, 2, 0x41);
  EXPECT_EQ(taken(0x41), 1u << 2);
  ipi(1, 0xff, 0x41);
  EXPECT_EQ(taken(0x41), 15u);
  ipi(1, 9, 0x41);
  EXPECT_EQ(taken(0x41), 0u);
}

TEST_F(ApicBusTest, Shorthands) {
  ipi(1, 0, 0x4'0041);
  EXPECT_EQ(taken(0x41), 1u << 1);
  ipi(1, 0, 0x8'0041);
  EXPECT_EQ(taken(0x41), 15u);
  ipi(1, 0, 0xc'0041);
  EXPECT_EQ(taken(0x41), 13u);
}

TEST_F(ApicBusTest, LogicalFlatAndCluster) {
  flat();
  ipi(0, 0xa, 0x841);
  EXPECT_EQ(taken(0x41), 10u);
  ipi(0, 0xff, 0x841);
  EXPECT_EQ(taken(0x41), 15u);
  for (unsigned id = 0; id < 4; ++id) {
    apics[id].write(0xe0, 4, 0x0fff'ffff);
    apics[id].write(0xd0, 4, (id / 2) << 28 | 1u << (24 + id % 2));
  }
  ipi(0, 0x12, 0x841);
  EXPECT_EQ(taken(0x41), 1u << 3);
  ipi(0, 0x03, 0x841);
  EXPECT_EQ(taken(0x41), 3u);
  ipi(0, 0xf1, 0x841);
  EXPECT_EQ(taken(0x41), 5u) << "all clusters";
}

TEST_F(ApicBusTest, X2ApicDestinations) {
  toX2();
  ipiX2(0, 3, 0x41);
  EXPECT_EQ(taken(0x41), 8u);
  ipiX2(0, 0xffff'ffff, 0x41);
  EXPECT_EQ(taken(0x41), 15u);
  ipiX2(0, 0xff, 0x41);
  EXPECT_EQ(taken(0x41), 0u) << "id 255, not everyone";
  ipiX2(0, 0x0000'0006, 0x841);
  EXPECT_EQ(taken(0x41), 6u);
  ipiX2(0, 0x0001'0006, 0x841);
  EXPECT_EQ(taken(0x41), 0u) << "another cluster";
  ipiX2(0, 0xffff'ffff, 0x841);
  EXPECT_EQ(taken(0x41), 15u);
}

TEST_F(ApicBusTest, LowestPriority) {
  flat();
  apics[0].setTaskPriority(5);
  apics[1].setTaskPriority(2);
  apics[2].setTaskPriority(3);
  apics[3].setTaskPriority(4);
  ipi(0, 0xf, 0x961);
  EXPECT_EQ(taken(0x61), 2u);
  ipi(0, 0xd, 0x961);
  EXPECT_EQ(taken(0x61), 4u);
  for (auto& apic : apics) apic.setTaskPriority(0);
  unsigned all = 0;
  for (int n = 0; n < 8; ++n) {
    ipi(0, 0xf, 0x961);
    unsigned one = taken(0x61);
    EXPECT_EQ(one & (one - 1), 0u);
    all |= one;
  }
  EXPECT_EQ(all, 15u) << "equals take turns";
}

TEST_F(ApicBusTest, LowestPriorityPrefersTheFocusProcessor) {
  flat();
  apics[2].write(0xf0, 4, 0x1ff);
  apics[2].setTaskPriority(6);
  ipi(0, 4, 0x841);  // pending at CPU 2, held by its TPR
  for (int n = 0; n < 4; ++n) ipi(0, 0xf, 0x941);
  EXPECT_EQ(taken(0x41), 0u);
  apics[2].setTaskPriority(0);
  EXPECT_EQ(taken(0x41), 4u);
}

TEST_F(ApicBusTest, InitStartUpNmiSmi) {
  ipi(0, 1, 0xc500);  // INIT, level, assert
  ipi(0, 1, 0x8500);  // INIT, level, de-assert
  EXPECT_EQ(cpus[1].inits, 1);
  ipi(0, 1, 0x069f);
  EXPECT_EQ(cpus[1].startUps, std::vector<std::uint8_t>{0x9f});
  ipi(0, 0, 0xc'0400);
  EXPECT_EQ(cpus[0].nmis + cpus[1].nmis + cpus[2].nmis + cpus[3].nmis, 3);
  EXPECT_EQ(cpus[0].nmis, 0);
  ipi(0, 2, 0x200);
  EXPECT_EQ(cpus[2].smis, 1);
  ipi(0, 2, 0x300);
  ipi(0, 2, 0x700);
  EXPECT_EQ(taken(0), 0u) << "reserved modes";
}

TEST_F(ApicBusTest, CommandRegisterReadsBackIdle) {
  ipi(0, 3, 0x5041);
  EXPECT_EQ(apics[0].read(0x300, 4), 0x4041u);
  EXPECT_EQ(apics[0].read(0x310, 4), 0x0300'0000u);
}

TEST_F(ApicBusTest, MessageSignalledInterrupts) {
  flat();
  bus.sendMsi(0xfee0'2000, 0x4041);
  EXPECT_EQ(taken(0x41), 4u);
  bus.sendMsi(0xfeef'f000, 0x4041);
  EXPECT_EQ(taken(0x41), 15u);
  bus.sendMsi(0xfee0'3004, 0x4041);
  EXPECT_EQ(taken(0x41), 3u) << "logical mode without redirection";
  bus.sendMsi(0xfee0'f00c, 0x4041);
  unsigned one = taken(0x41);
  EXPECT_TRUE(one != 0 && (one & (one - 1)) == 0) << "redirection hint: one of them";
  bus.sendMsi(0xfee0'1000, 0x4400);
  EXPECT_EQ(cpus[1].nmis, 1);
  bus.sendMsi(0xfee0'1000, 0xc042);
  EXPECT_EQ(apics[1].read(0x1a0, 4), 4u) << "level-triggered";
  EXPECT_EQ(taken(0x42), 2u);
  bus.sendMsi(0xfed0'1000, 0x4041);
  bus.sendMsi(0x1'fee0'1000, 0x4041);
  EXPECT_EQ(taken(0x41), 0u);
}

TEST_F(ApicBusTest, MessagesToX2ApicCpus) {
  toX2();
  bus.sendMsi(0xfee0'2000, 0x41);
  EXPECT_EQ(taken(0x41), 4u);
  bus.sendMsi(0xfeef'f000, 0x41);
  EXPECT_EQ(taken(0x41), 15u);
  bus.sendMsi(0xfee0'5004, 0x41);
  EXPECT_EQ(taken(0x41), 5u);
}

TEST_F(ApicBusTest, DeliverSaysWhetherAnybodyTookIt) {
  ApicMessage message{2, false, false, DeliveryMode::fixed, 0x41, false, true};
  EXPECT_TRUE(bus.deliver(message));
  apics[2].write(0xf0, 4, 0xff);
  EXPECT_FALSE(bus.deliver(message));
  message.destination = 77;
  EXPECT_FALSE(bus.deliver(message));
  message.mode = DeliveryMode::lowestPriority;
  EXPECT_FALSE(bus.deliver(message));
}

TEST_F(ApicBusTest, ParavirtualIpi) {
  EXPECT_EQ(bus.sendParavirtIpi(0xa, 0, 0, 0x41, 64), 2);
  EXPECT_EQ(taken(0x41), 10u);
  EXPECT_EQ(bus.sendParavirtIpi(3, 0, 2, 0x41, 64), 2);
  EXPECT_EQ(taken(0x41), 12u);
  EXPECT_EQ(bus.sendParavirtIpi(0, ~0ull, 0, 0x41, 64), 0);
  EXPECT_EQ(bus.sendParavirtIpi(1, 0, 0, 0x400, 64), 1);
  EXPECT_EQ(cpus[0].nmis, 1);
  EXPECT_EQ(bus.sendParavirtIpi(1, 0, 0, 0x500, 64), -22);
}

}  // namespace
}  // namespace lodge
