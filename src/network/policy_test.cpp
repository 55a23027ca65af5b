// SPDX-License-Identifier: Apache-2.0
#include "network/policy.h"

#include <gtest/gtest.h>

#include "base/fake_clock.h"
#include "network/dns.h"
#include "network/frame_builder.h"
#include "network/sni.h"

namespace lodge::network {
namespace {

IpAddress ip(const char* text) {
  return *ipFrom(text);
}
const Endpoint kGuest{{2, 0, 0, 0, 0, 1}, *ipFrom("10.0.2.15"), 4000};
const Endpoint kNames{{2, 0, 0, 0, 0, 2}, *ipFrom("10.0.2.3"), 53};

Frame dnsQuery(const std::string& name, std::uint16_t type = dns::kA) {
  Frame q = {0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  std::size_t from = 0;
  while (from < name.size()) {
    std::size_t dot = std::min(name.find('.', from), name.size());
    q.push_back(static_cast<std::uint8_t>(dot - from));
    q.insert(q.end(), name.begin() + static_cast<std::ptrdiff_t>(from),
             name.begin() + static_cast<std::ptrdiff_t>(dot));
    from = dot + 1;
  }
  q.insert(q.end(), {0, static_cast<std::uint8_t>(type >> 8), static_cast<std::uint8_t>(type), 0, 1});
  return q;
}

Frame hello(const std::string& name) {
  Frame extension = {0, 0};
  auto put16 = [](Frame& f, std::size_t v) {
    f.insert(f.end(), {static_cast<std::uint8_t>(v >> 8), static_cast<std::uint8_t>(v)});
  };
  put16(extension, name.size() + 5);
  put16(extension, name.size() + 3);
  extension.push_back(0);
  put16(extension, name.size());
  extension.insert(extension.end(), name.begin(), name.end());
  Frame body(2 + 32, 3);
  body.insert(body.end(), {0, 0, 2, 0x13, 1, 1, 0});
  put16(body, extension.size());
  body.insert(body.end(), extension.begin(), extension.end());
  Frame out = {22, 3, 1};
  put16(out, body.size() + 4);
  out.insert(out.end(), {1, 0});
  put16(out, body.size());
  out.insert(out.end(), body.begin(), body.end());
  return out;
}

class PolicyTest : public testing::Test {
 protected:
  void rules(std::vector<std::string> texts, bool allowed) {
    auto policy = std::make_shared<EgressPolicy>();
    for (const auto& text : texts) policy->rules.push_back(*egressRuleFrom(text));
    policy->allowed = allowed;
    policy->inside = {*blockFrom("10.0.2.0/24")};
    filter = std::make_unique<EgressFilter>(policy, clock, [this](const std::string& what, const std::string& rule) {
      log.push_back(what + " by " + rule);
    });
  }
  bool allows(const Frame& frame) { return filter->allows(frame, *parsePacket(frame)); }
  bool udp(const char* to, std::uint16_t port) {
    return allows(udpFrame(kGuest, {kNames.mac, ip(to), port}, Frame(8)));
  }
  /// One TCP segment; sequence numbers count from 1000.
  Frame tcp(const char* to, std::uint32_t sequence, bool syn, const Frame& data = {}, std::uint16_t port = 443) {
    Frame body(20);
    storeBe<std::uint16_t>(&body[0], 5000);
    storeBe(&body[2], port);
    storeBe(&body[4], sequence);
    body[12] = 0x50;
    body[13] = syn ? 2 : 0x10;
    body.insert(body.end(), data.begin(), data.end());
    Frame f = udpFrame(kGuest, {kNames.mac, ip(to), port}, Frame(body.size() - 8));
    f[23] = protocol::kTcp;
    std::copy(body.begin(), body.end(), f.begin() + 34);
    return f;
  }
  void lookUp(const std::string& name, std::vector<DnsRecord> records) {
    Frame query = dnsQuery(name);
    allows(udpFrame(kGuest, kNames, query));
    Frame answer = udpFrame(kNames, kGuest, makeDnsAnswer(query, *parseDnsQuestion(query), 0, records));
    filter->observe(answer, *parsePacket(answer));
  }
  DnsRecord a(const char* address, std::uint32_t ttl = 60) { return {"", dns::kA, ttl, ip(address), {}}; }

  FakeClock clock;
  std::unique_ptr<EgressFilter> filter;
  std::vector<std::string> log;
};

TEST_F(PolicyTest, BlocksAndPorts) {
  rules({"deny udp 192.0.2.0/24 port 53", "allow 192.0.2.0/24", "allow any port 80-90"}, false);
  EXPECT_FALSE(udp("192.0.2.9", 53));
  EXPECT_TRUE(udp("192.0.2.9", 54));
  EXPECT_TRUE(udp("198.51.100.1", 85));
  EXPECT_FALSE(udp("198.51.100.1", 91));
  EXPECT_TRUE(udp("10.0.2.77", 91)) << "that is no egress";
  ASSERT_EQ(log.size(), 2u);
  EXPECT_EQ(log[0], "udp 192.0.2.9 port 53 by deny udp 192.0.2.0/24 port 53");
  EXPECT_EQ(log[1], "udp 198.51.100.1 port 91 by default");
}

TEST_F(PolicyTest, NamesFromLookUps) {
  rules({"allow *.example.org"}, false);
  EXPECT_FALSE(udp("192.0.2.1", 9));
  lookUp("www.example.org", {a("192.0.2.1")});
  clock.advance(kNanosecondsPerSecond);
  EXPECT_TRUE(udp("192.0.2.1", 9));
  lookUp("example.org", {a("192.0.2.2")});
  EXPECT_FALSE(udp("192.0.2.2", 9)) << "*. is what is under the name";
  lookUp("wwwexample.org", {a("192.0.2.3")});
  EXPECT_FALSE(udp("192.0.2.3", 9));
  // The answer changes: what the old one opened ends with its time.
  lookUp("www.example.org", {a("192.0.2.4")});
  EXPECT_TRUE(udp("192.0.2.4", 10));
  clock.advance(100 * kNanosecondsPerSecond);
  EXPECT_FALSE(udp("192.0.2.1", 11));
}

TEST_F(PolicyTest, UnaskedAnswersOpenNothing) {
  rules({"allow www.example.org"}, false);
  Frame query = dnsQuery("www.example.org");
  Frame answer =
      udpFrame(kNames, kGuest, makeDnsAnswer(query, *parseDnsQuestion(query), 0, std::vector{a("192.0.2.1")}));
  filter->observe(answer, *parsePacket(answer));
  EXPECT_FALSE(udp("192.0.2.1", 9));
}

TEST_F(PolicyTest, ServerNamesInTls) {
  rules({"allow good.test"}, false);
  lookUp("good.test", {a("192.0.2.1")});
  EXPECT_TRUE(allows(tcp("192.0.2.1", 1000, true)));
  Frame evil = hello("evil.test");
  // In two pieces: the name is not known before the second.
  EXPECT_TRUE(allows(tcp("192.0.2.1", 1001, false, Frame(evil.begin(), evil.begin() + 30))));
  EXPECT_FALSE(allows(tcp("192.0.2.1", 1031, false, Frame(evil.begin() + 30, evil.end()))));
  EXPECT_FALSE(allows(tcp("192.0.2.1", 1031, false, Frame(evil.begin() + 30, evil.end()))));
  EXPECT_TRUE(allows(tcp("192.0.2.1", 5000, true)));
  EXPECT_TRUE(allows(tcp("192.0.2.1", 5001, false, hello("GOOD.test"))));
  EXPECT_TRUE(allows(tcp("192.0.2.1", 6000, false, Frame(100, 1))));
  ASSERT_EQ(log.size(), 1u);
  EXPECT_EQ(log[0], "tcp 192.0.2.1 port 443 ('evil.test' by TLS) by default");
}

TEST(TlsHelloTest, EveryPrefixIsSafe) {
  Frame whole = hello("www.example.org");
  for (std::size_t n = 0; n <= whole.size(); ++n) {
    auto parsed = parseTlsHello(std::span(whole).first(n));
    if (n == whole.size()) EXPECT_EQ(parsed->name, "www.example.org");
  }
}

TEST(DnsTest, CompressionLoopsEnd) {
  Frame m = dnsQuery("a.b");
  m[7] = 1;
  m[2] = 0x80;
  auto question = parseDnsQuestion(m);
  ASSERT_TRUE(question);
  auto at = static_cast<std::uint8_t>(m.size());
  m.insert(m.end(), {0xc0, at, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4});
  EXPECT_TRUE(parseDnsAnswers(m, *question).empty());
}

TEST(RuleTest, TextAndBack) {
  for (const char* text :
       {"allow any", "deny tcp *.example.org port 80-90", "allow udp 10.0.0.0/8", "deny icmp fd00::/8"})
    EXPECT_EQ(ruleText(*egressRuleFrom(text)), text);
  for (const char* text : {"", "allow", "permit any", "allow any port 0", "allow any port 9-8", "allow 10.0.0.1/8",
                           "allow -x y", "deny icmp any port 5"})
    EXPECT_FALSE(egressRuleFrom(text)) << text;
}

}  // namespace
}  // namespace lodge::network
