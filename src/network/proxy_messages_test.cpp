// SPDX-License-Identifier: Apache-2.0
#include "network/proxy_messages.h"

#include <gtest/gtest.h>

#include "network/dhcp_client.h"
#include "network/resolver.h"

namespace lodge::network {
namespace {

std::vector<std::uint8_t> bytesOf(std::string_view text) {
  return {text.begin(), text.end()};
}

TEST(ProxyMessages, GreetingIsWholeOrNot) {
  std::size_t length = 0;
  SocksGreeting greeting;
  std::vector<std::uint8_t> bytes = {5, 2, 2, 0, 99};
  for (std::size_t n = 0; n < 4; ++n)
    EXPECT_EQ(readSocksGreeting(std::span(bytes).first(n), length, greeting), Reading::incomplete);
  EXPECT_EQ(readSocksGreeting(bytes, length, greeting), Reading::whole);
  EXPECT_EQ(length, 4u);
  EXPECT_TRUE(greeting.anonymous);
  bytes = {5, 1, 2};
  EXPECT_EQ(readSocksGreeting(bytes, length, greeting), Reading::whole);
  EXPECT_FALSE(greeting.anonymous);
  bytes = {4, 1};
  EXPECT_EQ(readSocksGreeting(bytes, length, greeting), Reading::wrong);
}

TEST(ProxyMessages, RequestsNameTheirTarget) {
  std::size_t length = 0;
  SocksRequest request;
  std::vector<std::uint8_t> bytes = {5, 1, 0, 3, 3, 'w', 'e', 'b', 0, 80};
  for (std::size_t n = 0; n < bytes.size(); ++n)
    EXPECT_EQ(readSocksRequest(std::span(bytes).first(n), length, request), Reading::incomplete) << n;
  EXPECT_EQ(readSocksRequest(bytes, length, request), Reading::whole);
  EXPECT_EQ(length, bytes.size());
  EXPECT_EQ(request.target.name, "web");
  EXPECT_EQ(request.target.port, 80);
  bytes[5] = ' ';
  EXPECT_EQ(readSocksRequest(bytes, length, request), Reading::whole);
  EXPECT_FALSE(request.knownAddress);
  bytes = {5, 3, 0, 1, 10, 0, 2, 15, 1, 0};
  EXPECT_EQ(readSocksRequest(bytes, length, request), Reading::whole);
  EXPECT_EQ(request.command, socks::kUdpAssociate);
  EXPECT_EQ(request.target.address, ipFrom("10.0.2.15"));
  EXPECT_EQ(request.target.port, 256);
}

TEST(ProxyMessages, DatagramsGoThereAndBack) {
  auto address = *ipFrom("fd00::7");
  std::vector<std::uint8_t> data = {1, 2, 3};
  auto read = readSocksDatagram(socksDatagram(address, 53, data));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->target.address, address);
  EXPECT_EQ(read->target.port, 53);
  auto fragment = socksDatagram(address, 53, data);
  fragment[2] = 1;
  EXPECT_FALSE(readSocksDatagram(fragment));
}

TEST(ProxyMessages, HttpRequestsLoseWhatIsTheProxys) {
  std::size_t length = 0;
  HttpProxyRequest request;
  auto connect = bytesOf("CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: x\r\n\r\nrest");
  EXPECT_EQ(readHttpProxyRequest(connect, length, request), Reading::whole);
  EXPECT_EQ(length, connect.size() - 4);
  EXPECT_TRUE(request.connect);
  EXPECT_EQ(request.target.address, ipFrom("fd00::1"));
  auto get =
      bytesOf("GET http://web:81?q HTTP/1.1\r\nHost: web:81\r\nProxy-Connection: x\r\nConnection: y\r\nA: b\r\n\r\n");
  EXPECT_EQ(readHttpProxyRequest(get, length, request), Reading::whole);
  EXPECT_EQ(request.target.name, "web");
  EXPECT_EQ(request.target.port, 81);
  EXPECT_EQ(request.forward, "GET /?q HTTP/1.1\r\nHost: web:81\r\nA: b\r\nConnection: close\r\n\r\n");
  for (const char* bad :
       {"GET / HTTP/1.1\r\n\r\n", "CONNECT web HTTP/1.1\r\n\r\n", "x\r\n\r\n", "GET http:// HTTP/1.1\r\n\r\n",
        "CONNECT [::1:5 HTTP/1.1\r\n\r\n", "CONNECT a b:5 HTTP/1.1\r\n\r\n"})
    EXPECT_EQ(readHttpProxyRequest(bytesOf(bad), length, request), Reading::wrong) << bad;
  EXPECT_EQ(readHttpProxyRequest(bytesOf("CONNECT web:1 HT"), length, request), Reading::incomplete);
}

TEST(ProxyMessages, QuestionsAreWhatTheServerReads) {
  auto read = parseDnsQuestion(Resolver::question(7, "Web.lab.internal.", dns::kAaaa));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->name, "web.lab.internal");
  EXPECT_EQ(read->type, dns::kAaaa);
  EXPECT_EQ(read->id, 7);
  EXPECT_TRUE(read->recursionDesired);
  for (const char* bad : {"", ".", "a..b"}) EXPECT_TRUE(Resolver::question(1, bad, dns::kA).empty()) << bad;
  EXPECT_TRUE(Resolver::question(1, std::string(64, 'a'), dns::kA).empty());
}

TEST(ProxyMessages, OffersOfOthersAreNone) {
  std::vector<std::uint8_t> m(240);
  m[0] = 2, m[1] = 1, m[2] = 6;
  MacAddress mac = {2, 0, 0, 0, 0, 1};
  std::copy(mac.begin(), mac.end(), &m[28]);
  for (auto [at, value] : {std::pair(236, 0x63), {237, 0x82}, {238, 0x53}, {239, 0x63}, {16, 10}, {19, 9}})
    m[static_cast<std::size_t>(at)] = static_cast<std::uint8_t>(value);
  EXPECT_FALSE(parseDhcpOffer(m, mac)) << "no type, no mask";
  m.insert(m.end(), {53, 1, 2, 1, 4, 255, 0, 0, 0, 6, 8, 1, 1, 1, 1, 2, 2, 2, 2, 255});
  auto offer = parseDhcpOffer(m, mac);
  ASSERT_TRUE(offer);
  EXPECT_EQ(offer->address, ipFrom("10.0.0.9"));
  EXPECT_EQ(offer->nameServers.size(), 2u);
  EXPECT_FALSE(parseDhcpOffer(m, {2, 0, 0, 0, 0, 2}));
  m[241] = 200;
  EXPECT_FALSE(parseDhcpOffer(m, mac)) << "an option longer than the message";
}

}  // namespace
}  // namespace lodge::network
