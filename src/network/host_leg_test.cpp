// SPDX-License-Identifier: Apache-2.0
#include "network/host_leg.h"

#include <gtest/gtest.h>

#include "base/fake_clock.h"

namespace lodge::network {
namespace {

constexpr Nanoseconds kSecond = kNanosecondsPerSecond;

/// The host's end, as its kernel sees it.
class Tap : public NetBackend {
 public:
  void setReceiver(Receiver receiver) override { fromHost = std::move(receiver); }
  void receiverReady() override {}
  void send(std::span<const std::uint8_t> frame, const FrameOffload&) override {
    toHost.emplace_back(frame.begin(), frame.end());
  }
  bool supportsOffload() const override { return true; }
  Receiver fromHost;
  std::vector<Frame> toHost;
};

IpAddress ip(const char* text) {
  return *ipFrom(text);
}

class HostLegTest : public testing::Test {
 protected:
  void SetUp() override {
    leg.setReceiver([this](std::span<const std::uint8_t> frame, const FrameOffload&) {
      toMachines.emplace_back(frame.begin(), frame.end());
      return true;
    });
  }
  void appears() {
    leg.machineHas(machine.address, machine.mac);
    clock.advance(2 * kSecond);
  }
  void fromHost(const Frame& frame) { tap->fromHost(frame, {}); }
  void fromMachine(const Frame& frame) { leg.send(frame, {}); }

  FakeClock clock;
  MacAddress tapMac{2, 0, 0, 0, 0, 1}, cardMac{2, 0, 0, 0, 0, 2};
  Endpoint machine{{2, 0, 0, 0, 0, 9}, ip("203.0.113.60"), 1000}, host{tapMac, ip("203.0.113.2"), 2000};
  std::vector<HostLeg::Place> places{{ip("203.0.113.2"), *blockFrom("203.0.113.0/24")},
                                     {ip("2001:db8::2"), *blockFrom("2001:db8::/64")}};
  std::vector<std::string> routes;
  std::vector<Frame> probes, toMachines;
  Tap* tap = new Tap;
  HostLeg leg{clock,
              std::unique_ptr<NetBackend>(tap),
              tapMac,
              cardMac,
              [this] { return places; },
              [this](const IpAddress& a, const IpAddress& from, bool set) -> Status {
                routes.push_back((set ? "+" : "-") + toText(a) + " from " + toText(from));
                return {};
              },
              [this](const Frame& f) { probes.push_back(f); }};
};

TEST_F(HostLegTest, AMachineGetsItsRouteAndLosesIt) {
  leg.machineHas(machine.address, machine.mac);
  ASSERT_EQ(probes.size(), 1u);
  auto packet = parsePacket(probes[0]);
  auto arp = parseArp(probes[0], *packet);
  ASSERT_TRUE(arp && !arp->reply);
  EXPECT_EQ(arp->target, machine.address);
  EXPECT_TRUE(arp->sender.unspecified());
  EXPECT_EQ(packet->source, cardMac);
  EXPECT_TRUE(routes.empty()) << "before anybody could have answered";
  clock.advance(2 * kSecond);
  leg.machineHas(ip("2001:db8::60"), machine.mac);
  auto six = parsePacket(probes[1]);
  EXPECT_EQ(six->destination, (MacAddress{0x33, 0x33, 0xff, 0, 0, 0x60}));
  EXPECT_EQ(toText(six->to), "ff02::1:ff00:60");
  EXPECT_EQ(parseNeighbour(probes[1], *six)->target, ip("2001:db8::60"));
  clock.advance(2 * kSecond);
  EXPECT_EQ(routes, (std::vector<std::string>{"+203.0.113.60 from 203.0.113.2", "+2001:db8::60 from 2001:db8::2"}));
  routes.clear();
  leg.forget({2, 0, 0, 0, 0, 8});
  EXPECT_TRUE(routes.empty());
  leg.forget(machine.mac);
  EXPECT_EQ(routes.size(), 2u);
}

TEST_F(HostLegTest, OthersAddressesAndFarOnesGetNone) {
  leg.machineHas(machine.address, machine.mac);
  clock.advance(kSecond / 2);
  leg.claimedElsewhere(machine.address);
  clock.advance(5 * kSecond);
  EXPECT_TRUE(routes.empty());
  leg.machineHas(ip("198.51.100.7"), machine.mac);
  leg.machineHas(ip("203.0.113.2"), machine.mac);
  clock.advance(5 * kSecond);
  EXPECT_TRUE(routes.empty());
  // A minute later it may be free.
  clock.advance(70 * kSecond);
  EXPECT_EQ(routes, std::vector<std::string>{"+203.0.113.60 from 203.0.113.2"});
  leg.claimedElsewhere(machine.address);
  EXPECT_EQ(routes.back(), "-203.0.113.60 from 203.0.113.2");
}

TEST_F(HostLegTest, TheHostsNewAddressTakesItsPlace) {
  appears();
  places = {{ip("203.0.113.3"), *blockFrom("203.0.113.0/24")}};
  clock.advance(10 * kSecond);
  EXPECT_EQ(routes, (std::vector<std::string>{"+203.0.113.60 from 203.0.113.2", "-203.0.113.60 from 203.0.113.2",
                                              "+203.0.113.60 from 203.0.113.3"}));
}

TEST_F(HostLegTest, OnlyWhatIsBetweenTheTwoPasses) {
  appears();
  // Who asks for the host's address gets this leg's; the card's network is not answered here.
  fromMachine(arpFrame(false, machine, {{}, host.address, 0}, kBroadcast));
  ASSERT_EQ(toMachines.size(), 1u);
  auto packet = parsePacket(toMachines[0]);
  EXPECT_EQ(parseArp(toMachines[0], *packet)->senderMac, tapMac);
  EXPECT_EQ(packet->destination, machine.mac);
  fromMachine(arpFrame(false, {{2, 0, 0, 0, 0, 7}, ip("203.0.113.1"), 0}, {{}, host.address, 0}, kBroadcast));
  fromMachine(arpFrame(false, machine, {{}, ip("203.0.113.9"), 0}, kBroadcast));
  EXPECT_EQ(toMachines.size(), 1u);
  EXPECT_TRUE(tap->toHost.empty());
  Frame data(10);
  fromMachine(udpFrame(machine, host, data));
  EXPECT_EQ(tap->toHost.size(), 1u);
  fromMachine(udpFrame(machine, {tapMac, ip("198.51.100.1"), 5}, data));  // not a router
  fromMachine(udpFrame(machine, {kBroadcast, ip("255.255.255.255"), 67}, data));
  EXPECT_EQ(tap->toHost.size(), 1u);
  fromHost(udpFrame(host, machine, data));
  fromHost(arpFrame(false, host, {{}, machine.address, 0}, kBroadcast));
  EXPECT_EQ(toMachines.size(), 3u);
  fromHost(udpFrame({tapMac, ip("198.51.100.1"), 5}, machine, data));  // what the host forwards
  fromHost(udpFrame({tapMac, IpAddress{}, 68}, {kBroadcast, ip("255.255.255.255"), 67}, data));
  EXPECT_EQ(toMachines.size(), 3u);
}

}  // namespace
}  // namespace lodge::network
