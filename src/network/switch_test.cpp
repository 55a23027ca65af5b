// SPDX-License-Identifier: Apache-2.0
#include "network/switch.h"

#include <gtest/gtest.h>

#include <map>

#include "base/fake_clock.h"
#include "network/packet.h"

namespace lodge::network {
namespace {

using Bytes = std::vector<std::uint8_t>;

MacAddress mac(std::uint16_t n) {
  return {0x02, 0, 0, 0, static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)};
}

Bytes frame(const MacAddress& to, const MacAddress& from, std::optional<std::uint16_t> vlan = {}) {
  Bytes f(to.begin(), to.end());
  f.insert(f.end(), from.begin(), from.end());
  if (vlan) f.insert(f.end(), {0x81, 0, static_cast<std::uint8_t>(*vlan >> 8), static_cast<std::uint8_t>(*vlan)});
  f.insert(f.end(), {0x08, 0x00});
  f.resize(f.size() + 46, 0x55);
  return f;
}

class SwitchTest : public testing::Test {
 protected:
  PortId add(VlanMembership vlans = {}) {
    auto id = std::make_shared<PortId>();
    *id = wires.add(std::move(vlans), [this, id](auto f, const FrameOffload& o) {
      got[*id].emplace_back(f.begin(), f.end());
      offloads[*id] = o;
    });
    return *id;
  }
  std::size_t count(PortId id) { return std::exchange(got[id], {}).size(); }

  FakeClock clock;
  Switch wires{clock,
               {.addressesPerPort = 4, .age = 10 * kNanosecondsPerSecond, .floodsPerSecond = 100, .floodBurst = 50}};
  std::map<PortId, std::vector<Bytes>> got;
  std::map<PortId, FrameOffload> offloads;
};

TEST_F(SwitchTest, LearnsAndForgets) {
  PortId a = add(), b = add(), c = add();
  wires.input(a, frame(mac(2), mac(1)), {});
  EXPECT_EQ(count(b), 1u);
  EXPECT_EQ(count(c), 1u);
  wires.input(b, frame(mac(1), mac(2)), {});
  EXPECT_EQ(count(a), 1u);
  EXPECT_EQ(count(c), 0u);
  clock.advance(20 * kNanosecondsPerSecond);
  wires.input(b, frame(mac(1), mac(2)), {});
  EXPECT_EQ(count(c), 1u) << "what is old is flooded again";
  count(a);
  wires.remove(a);
  wires.input(b, frame(mac(1), mac(2)), {});
  EXPECT_EQ(count(a), 0u);
}

TEST_F(SwitchTest, APortFillsOnlyItsOwnShare) {
  PortId a = add(), b = add(), c = add();
  wires.input(b, frame(mac(1000), mac(2)), {});
  for (std::uint16_t n = 100; n < 140; ++n) wires.input(a, frame(mac(2), mac(n)), {});
  EXPECT_EQ(wires.addressesRefused(), 36u);
  EXPECT_EQ(wires.table().size(), 5u);
  count(a), count(b), count(c);
  wires.input(c, frame(mac(2), mac(3)), {});
  EXPECT_EQ(count(b), 1u);
  EXPECT_EQ(count(a), 0u);
}

TEST_F(SwitchTest, FloodsAreLimitedEachPort) {
  PortId a = add(), b = add(), c = add();
  for (int n = 0; n < 500; ++n) wires.input(a, frame(kBroadcast, mac(1)), {});
  EXPECT_EQ(count(b), 50u);
  EXPECT_EQ(wires.floodsDropped(), 450u);
  count(c);
  wires.input(c, frame(kBroadcast, mac(3)), {});
  EXPECT_EQ(count(b), 1u) << "others are not held back";
  clock.advance(kNanosecondsPerSecond / 10);
  wires.input(a, frame(kBroadcast, mac(1)), {});
  EXPECT_EQ(count(b), 1u);
}

TEST_F(SwitchTest, PinnedAddressesCannotBeTaken) {
  PortId a = add(), b = add(), c = add();
  wires.pin(a, mac(1));
  wires.input(b, frame(mac(9), mac(1)), {});
  count(a), count(c);
  wires.input(c, frame(mac(1), mac(3)), {});
  EXPECT_EQ(count(a), 1u);
  EXPECT_EQ(count(b), 0u);
}

TEST_F(SwitchTest, VlansAreApartAndTagged) {
  PortId a = add({.access = 10, .trunk = {}}), b = add({.access = 20, .trunk = {}});
  PortId t = add({.access = 1, .trunk = {10, 20}});
  FrameOffload offload{.needsChecksum = true, .checksumStart = 34, .checksumOffset = 16};
  wires.input(a, frame(kBroadcast, mac(1)), offload);
  EXPECT_EQ(count(b), 0u);
  ASSERT_EQ(got[t].size(), 1u);
  EXPECT_EQ(got[t][0], frame(kBroadcast, mac(1), 10));
  EXPECT_EQ(offloads[t].checksumStart, 38);
  wires.input(t, frame(mac(1), mac(3), 10), {.needsChecksum = true, .checksumStart = 38, .checksumOffset = 16});
  ASSERT_EQ(got[a].size(), 1u);
  EXPECT_EQ(got[a][0], frame(mac(1), mac(3)));
  EXPECT_EQ(offloads[a].checksumStart, 34);
  wires.input(t, frame(kBroadcast, mac(3), 30), {});
  EXPECT_EQ(count(b), 0u);
  wires.input(a, frame(kBroadcast, mac(1), 20), {});
  EXPECT_EQ(count(b), 0u) << "an access port cannot hop by a tag";
}

TEST_F(SwitchTest, MirrorsBothWaysAndNothingElse) {
  PortId a = add(), b = add(), m = add();
  wires.mirror(a, m);
  wires.input(a, frame(kBroadcast, mac(1)), {});
  wires.input(b, frame(mac(1), mac(2)), {});
  wires.input(m, frame(kBroadcast, mac(3)), {});
  EXPECT_EQ(count(m), 2u);
  EXPECT_EQ(count(a), 1u) << "a mirror does not speak";
  wires.mirror(a, std::nullopt);
  wires.input(b, frame(mac(1), mac(2)), {});
  EXPECT_EQ(count(m), 0u);
}

}  // namespace
}  // namespace lodge::network
