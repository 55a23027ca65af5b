// SPDX-License-Identifier: Apache-2.0
// Messages of an MSI-X table that an engine sends by events.
#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <map>

#include "base/fake_clock.h"
#include "device/apic_bus.h"
#include "device/fakes.h"
#include "device/local_apic.h"
#include "device/msix.h"

namespace lodge {
namespace {

struct Keeper : ApicKeeper {
  bool sendMsi(std::uint64_t address, std::uint32_t data) override {
    sent.emplace_back(Msi{address, data});
    return true;
  }
  void setLevelMessages(std::span<const Msi>) override {}
  bool setMsiEvent(int event, const Msi* message) override {
    if (!can) return false;
    ++changes;
    if (message)
      byEvent[event] = *message;
    else
      byEvent.erase(event);
    return message != nullptr;
  }
  /// The messages whose events came since the last call.
  std::vector<Msi> events() {
    std::vector<Msi> all;
    for (const auto& [event, message] : byEvent) {
      eventfd_t count = 0;
      if (::eventfd_read(event, &count) == 0) all.insert(all.end(), count, message);
    }
    return all;
  }
  bool can = true;
  unsigned changes = 0;
  std::map<int, Msi> byEvent;
  std::vector<Msi> sent;
};

class MsiRouteTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kAddress = 0xfee0'0000;
  static constexpr std::uint32_t kMasked = 1;
  static ApicKeeper::Msi message(std::uint32_t data) { return {kAddress, data}; }

  void SetUp() override {
    table.setSink(&bus);
    table.setControl(true, false, true);
  }
  void setEntry(unsigned vector, std::uint32_t data, std::uint32_t control) {
    table.write(16 * vector, 8, kAddress);
    table.write(16 * vector + 8, 4, data);
    table.write(16 * vector + 12, 4, control);
  }
  void setMask(unsigned vector, std::uint32_t control) { table.write(16 * vector + 12, 4, control); }
  void keep(ApicKeeper* by) {
    bus.setKeeper(by, [] {});
  }

  FakeClock clock;
  FakeApicCpu cpu;
  ApicBus bus;
  LocalApic apic{{.id = 0, .bootstrap = true, .bus = bus, .cpu = cpu, .timers = clock, .timeOfTsc = [](std::uint64_t) {
                    return Nanoseconds{0};
                  }}};
  Keeper keeper;
  MsixTable table{3};
};

TEST_F(MsiRouteTest, OpenVectorsAreSentByTheirEvents) {
  keep(&keeper);
  setEntry(0, 0x41, 0);
  setEntry(2, 0x43, 0);
  ASSERT_EQ(keeper.byEvent.size(), 2u);
  table.signal(2);
  table.signal(1);  // masked
  EXPECT_EQ(keeper.events(), std::vector{message(0x43)});
  EXPECT_TRUE(keeper.sent.empty());
}

TEST_F(MsiRouteTest, AMaskedVectorIsNotSentAndThenIsOnce) {
  keep(&keeper);
  setEntry(0, 0x41, 0);
  setMask(0, kMasked);
  EXPECT_TRUE(keeper.byEvent.empty());
  table.signal(0);
  table.signal(0);
  EXPECT_TRUE(keeper.sent.empty());
  EXPECT_EQ(table.read(table.pbaOffset(), 8), 1u);
  setMask(0, 0);
  EXPECT_EQ(keeper.events(), std::vector{message(0x41)});
  table.setControl(true, true, true);
  EXPECT_TRUE(keeper.byEvent.empty());
  table.signal(0);
  table.setControl(true, false, true);
  EXPECT_EQ(keeper.events(), std::vector{message(0x41)});
}

TEST_F(MsiRouteTest, AChangedMessageIsFollowed) {
  keep(&keeper);
  setEntry(0, 0x41, 0);
  table.write(8, 4, 0x51);
  table.signal(0);
  EXPECT_EQ(keeper.events(), std::vector{message(0x51)});
  unsigned before = keeper.changes;
  table.write(8, 4, 0x51);
  setMask(0, 0);
  EXPECT_EQ(keeper.changes, before) << "nothing changed";
}

TEST_F(MsiRouteTest, TheBoardHasThemBetweenTwoKeepers) {
  apic.write(0xf0, 4, 0x1ff);
  setEntry(0, 0x41, 0);
  table.signal(0);
  EXPECT_EQ(apic.acknowledge(), 0x41);
  apic.endOfInterrupt();
  keep(&keeper);
  table.signal(0);
  EXPECT_EQ(keeper.events(), std::vector{message(0x41)});
  EXPECT_EQ(apic.acknowledge(), -1);
  keep(nullptr);
  EXPECT_TRUE(keeper.byEvent.empty());
  table.signal(0);
  EXPECT_EQ(apic.acknowledge(), 0x41);
  Keeper other;
  other.can = false;
  keep(&other);
  table.signal(0);
  EXPECT_EQ(other.sent, std::vector{message(0x41)});
  keep(nullptr);
}

TEST_F(MsiRouteTest, ATableThatGoesTakesItsRoutesAlong) {
  keep(&keeper);
  {
    MsixTable second{1};
    second.setSink(&bus);
    second.setControl(true, false, true);
    second.write(12, 4, 0);
    EXPECT_TRUE(keeper.byEvent.empty()) << "address 0 is no message's";
    second.write(0, 4, kAddress);
    EXPECT_EQ(keeper.byEvent.size(), 1u);
    second.write(4, 4, 1);
    EXPECT_TRUE(keeper.byEvent.empty()) << "nor is one above 4 GiB";
    second.write(4, 4, 0);
    EXPECT_EQ(keeper.byEvent.size(), 1u);
  }
  EXPECT_TRUE(keeper.byEvent.empty());
  keep(nullptr);
}

}  // namespace
}  // namespace lodge
