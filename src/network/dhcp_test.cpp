// SPDX-License-Identifier: Apache-2.0
#include "network/dhcp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>

#include "base/fake_clock.h"
#include "network/packet.h"

namespace lodge::network {
namespace {

using Bytes = std::vector<std::uint8_t>;

MacAddress mac(unsigned n) {
  return {
      0x02, 0, 0, static_cast<std::uint8_t>(n >> 16), static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)};
}
IpAddress ip(const char* text) {
  return *ipFrom(text);
}

Bytes message(std::uint8_t type, const MacAddress& from, std::optional<IpAddress> wanted = {},
              std::optional<IpAddress> current = {}) {
  Bytes m(240);
  m[0] = m[1] = 1;
  m[2] = 6;
  m[4] = 0x42;
  if (current) std::copy_n(current->bytes.begin(), 4, &m[12]);
  std::copy(from.begin(), from.end(), &m[28]);
  storeBe<std::uint32_t>(&m[236], 0x63825363);
  m.insert(m.end(), {53, 1, type});
  if (wanted) {
    m.insert(m.end(), {50, 4});
    m.insert(m.end(), wanted->bytes.begin(), wanted->bytes.begin() + 4);
  }
  m.push_back(255);
  return m;
}

class DhcpTest : public testing::Test {
 protected:
  static DhcpSettings settings() {
    return {.subnet = *blockFrom("10.1.0.0/24"),
            .server = ip("10.1.0.3"),
            .router = ip("10.1.0.2"),
            .nameServer = ip("10.1.0.3"),
            .first = ip("10.1.0.15"),
            .last = ip("10.1.0.20"),
            .domain = "lab.internal"};
  }
  /// Type and address of the reply; type 0 without one.
  std::pair<int, IpAddress> send(const Bytes& m, const DhcpServer::Client& client = {}) {
    auto reply = server.answer(m, client);
    if (!reply) return {};
    EXPECT_EQ(reply->message[4], 0x42);
    return {reply->message[242], IpAddress::from(std::span(reply->message).subspan(16, 4))};
  }
  IpAddress take(unsigned n, const DhcpServer::Client& client = {}) {
    auto offer = send(message(1, mac(n)), client);
    if (offer.first != 2) return {};
    auto ack = send(message(3, mac(n), offer.second), client);
    EXPECT_EQ(ack.first, 5);
    EXPECT_EQ(ack.second, offer.second);
    return ack.second;
  }

  FakeClock clock;
  DhcpServer server{settings(), clock};
};

TEST_F(DhcpTest, GivesEachAnAddressUntilNoneIsLeft) {
  for (unsigned n = 0; n < 6; ++n) EXPECT_EQ(take(n).v4(), 0x0a01000f + n);
  EXPECT_EQ(send(message(1, mac(9))).first, 0);
  EXPECT_EQ(take(3), ip("10.1.0.18")) << "the same again";
  send(message(7, mac(3), {}, ip("10.1.0.18")));
  EXPECT_EQ(take(9), ip("10.1.0.18"));
}

/// A day of a full network: five who renew in time, and strangers who take the sixth address and go without a word.
TEST_F(DhcpTest, TurnsLeasesForADay) {
  std::array<IpAddress, 5> own;
  for (unsigned n = 0; n < own.size(); ++n) own[n] = take(n);
  unsigned stranger = 100, served = 0, renewed = 0;
  for (Nanoseconds minute = 1; minute <= Nanoseconds{24} * 60; ++minute) {
    clock.advance(60 * kNanosecondsPerSecond);
    for (unsigned n = 0; n < own.size(); ++n) {
      if ((minute + n * 6) % 30 != 0) continue;
      auto ack = send(message(3, mac(n), {}, own[n]));
      ASSERT_EQ(ack.first, 5) << "minute " << minute;
      ASSERT_EQ(ack.second, own[n]);
      ++renewed;
    }
    if (minute % 7 != 0) continue;
    IpAddress got = take(++stranger);
    if (got.unspecified()) continue;
    ASSERT_EQ(std::count(own.begin(), own.end(), got), 0) << "minute " << minute;
    ++served;
  }
  EXPECT_EQ(renewed, 5u * 48);
  EXPECT_GE(served, 20u) << "the sixth address turns about once an hour";
  EXPECT_LE(served, 24u);
  std::set<IpAddress> addresses;
  for (const Lease& lease : server.leases()) EXPECT_TRUE(addresses.insert(lease.address).second);
  EXPECT_LE(addresses.size(), 6u);
}

TEST_F(DhcpTest, RefusesWhatIsNotTheClients) {
  take(1);
  EXPECT_EQ(send(message(3, mac(2), ip("10.1.0.15"))).first, 6);
  EXPECT_EQ(send(message(3, mac(2), ip("192.0.2.1"))).first, 6);
  EXPECT_EQ(send(message(1, mac(5)), {.name = "x", .mac = mac(6)}).first, 0) << "asked for another's hardware address";
}

TEST_F(DhcpTest, ReservedAddressesAndNames) {
  EXPECT_TRUE(server.reserve(mac(7), ip("10.1.0.100"), "seven"));
  EXPECT_FALSE(server.reserve(mac(8), ip("10.1.0.100"), "eight"));
  EXPECT_EQ(take(7, {.name = "seven", .mac = mac(7)}), ip("10.1.0.100"));
  auto leases = server.leases();
  ASSERT_EQ(leases.size(), 1u);
  EXPECT_EQ(leases[0].name, "seven");
  EXPECT_TRUE(leases[0].fixed);
}

TEST_F(DhcpTest, ADeclinedAddressRests) {
  EXPECT_EQ(take(1), ip("10.1.0.15"));
  send(message(4, mac(1), ip("10.1.0.15")));
  EXPECT_EQ(take(1), ip("10.1.0.16"));
  clock.advance(700 * kNanosecondsPerSecond);
  EXPECT_EQ(take(2), ip("10.1.0.15"));
}

TEST_F(DhcpTest, AnAddressOfAMachineThatLeftIsTheLastToBeGiven) {
  for (unsigned n = 0; n < 6; ++n) {
    EXPECT_EQ(take(n).v4(), 0x0a01000f + n);
    clock.advance(kNanosecondsPerSecond);
  }
  server.left(mac(4));
  server.left(mac(2));
  EXPECT_EQ(take(2), ip("10.1.0.17")) << "it came back";
  EXPECT_EQ(take(9), ip("10.1.0.19")) << "of the one who did not";
  EXPECT_EQ(send(message(1, mac(10))).first, 0) << "the others are here";
  EXPECT_EQ(send(message(3, mac(4), {}, ip("10.1.0.19"))).first, 6) << "too late";
  EXPECT_EQ(server.leases().size(), 6u);
}

TEST_F(DhcpTest, LeasesOfAServerBefore) {
  Nanoseconds soon = clock.now() + 100 * kNanosecondsPerSecond;
  EXPECT_TRUE(server.restore({.mac = mac(1), .address = ip("10.1.0.15"), .name = "one", .expires = soon}));
  EXPECT_FALSE(server.restore({.mac = mac(1), .address = ip("10.1.0.16"), .name = {}, .expires = soon}));
  EXPECT_FALSE(server.restore({.mac = mac(2), .address = ip("10.1.0.15"), .name = {}, .expires = soon}));
  EXPECT_FALSE(server.restore({.mac = mac(2), .address = ip("10.1.0.3"), .name = {}, .expires = soon}));
  EXPECT_FALSE(server.restore({.mac = mac(2), .address = ip("10.2.0.16"), .name = {}, .expires = soon}));
  EXPECT_FALSE(server.restore({.mac = mac(2), .address = ip("10.1.0.16"), .name = {}, .expires = clock.now()}));
  EXPECT_EQ(take(7), ip("10.1.0.16")) << "the first is somebody's";
  ASSERT_TRUE(server.here(mac(1)));
  EXPECT_EQ(server.here(mac(1))->name, "one");
  EXPECT_EQ(send(message(3, mac(1), {}, ip("10.1.0.15"))).first, 5) << "renewed";
  EXPECT_FALSE(server.here(mac(2)));
}

TEST_F(DhcpTest, AnAddressThatSomebodyUsesWithoutALeaseIsNotGiven) {
  DhcpServer::Client client;
  client.used = [](const IpAddress& a) { return a == ip("10.1.0.15") || a == ip("10.1.0.17"); };
  EXPECT_EQ(send(message(3, mac(1), ip("10.1.0.17")), client).first, 6) << "asked for";
  EXPECT_EQ(send(message(1, mac(1), ip("10.1.0.17")), client).second, ip("10.1.0.16")) << "another is offered";
  EXPECT_EQ(take(2, client), ip("10.1.0.18"));
  EXPECT_EQ(take(3), ip("10.1.0.15"));
  EXPECT_EQ(take(3, client), ip("10.1.0.15")) << "its lease";
  EXPECT_TRUE(server.reserve(mac(4), ip("10.1.0.17"), "four"));
  EXPECT_EQ(take(4, client), ip("10.1.0.17")) << "reserved for it";
}

TEST_F(DhcpTest, BrokenMessagesAreIgnored) {
  Bytes good = message(1, mac(1), ip("10.1.0.16"));
  for (std::size_t size = 0; size < good.size() - 1; ++size) (void)server.answer(std::span(good).first(size), {});
  good[236] = 0;
  EXPECT_FALSE(server.answer(good, {}));
}

}  // namespace
}  // namespace lodge::network
