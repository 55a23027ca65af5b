// SPDX-License-Identifier: Apache-2.0
#include "network/dns_by_tcp.h"

#include <gtest/gtest.h>

#include <deque>

#include "base/bytes.h"
#include "base/fake_clock.h"

namespace lodge::network {
namespace {

constexpr std::uint8_t kFin = 1, kSyn = 2, kRst = 4, kAck = 16;
constexpr Nanoseconds kSecond = kNanosecondsPerSecond;

struct Received {
  std::uint32_t sequence = 0, acknowledged = 0;
  std::uint8_t flags = 0;
  std::uint16_t window = 0;
  Frame data;
};

class DnsByTcpTest : public testing::Test {
 protected:
  void send(std::uint32_t sequence, std::uint8_t flags, std::uint32_t acknowledged, const Frame& data = {}) {
    TcpFields fields{.sequence = sequence, .acknowledged = acknowledged, .flags = flags, .window = window};
    if ((flags & kSyn) != 0) fields.mss = mss;
    Frame frame = tcpFrame(guest, names, fields, data);
    auto packet = parsePacket(frame);
    ASSERT_TRUE(packet && packet->payload != 0);
    server.segment(frame, *packet);
  }
  Received next() {
    EXPECT_FALSE(out.empty());
    if (out.empty()) return {};
    Frame frame = std::move(out.front());
    out.pop_front();
    auto p = parsePacket(frame);
    Frame again = frame;
    fixTransportChecksum(again, *p);
    EXPECT_EQ(again, frame) << "the checksum";
    EXPECT_EQ(p->from, names.address);
    EXPECT_EQ(p->toPort, guest.port);
    const std::uint8_t* h = &frame[p->transport];
    return {loadBe<std::uint32_t>(h + 4), loadBe<std::uint32_t>(h + 8), h[13], loadBe<std::uint16_t>(h + 14),
            Frame(frame.begin() + static_cast<std::ptrdiff_t>(p->payload),
                  frame.begin() + static_cast<std::ptrdiff_t>(p->end))};
  }
  /// Opens the connection: 100 is the client's first sequence number, the server's is returned.
  std::uint32_t open() {
    send(100, kSyn, 0);
    Received r = next();
    EXPECT_EQ(r.flags, kSyn | kAck);
    EXPECT_EQ(r.acknowledged, 101u);
    send(101, kAck, r.sequence + 1);
    return r.sequence + 1;
  }
  static Frame question(std::size_t length = 20) {
    Frame q(2 + length, 7);
    storeBe(q.data(), static_cast<std::uint16_t>(length));
    return q;
  }
  /// All data up to `end`, each byte once; acknowledges as it goes if told to.
  Frame collect(std::uint32_t from, bool acknowledge, std::uint32_t mine) {
    Frame all;
    while (!out.empty()) {
      Received r = next();
      if (r.data.empty()) continue;
      EXPECT_LE(r.data.size(), mss);
      EXPECT_EQ(r.sequence, from + all.size());
      all.insert(all.end(), r.data.begin(), r.data.end());
      if (acknowledge) send(mine, kAck, from + static_cast<std::uint32_t>(all.size()));
    }
    return all;
  }

  FakeClock clock;
  Endpoint guest{{2, 0, 0, 0, 0, 1}, *ipFrom("10.0.2.15"), 4000};
  Endpoint names{{2, 0, 0, 0, 0, 2}, *ipFrom("10.0.2.3"), 53};
  std::uint16_t window = 65535, mss = 1460;
  std::deque<Frame> out;
  std::vector<Frame> asked;
  Frame reply = Frame(30, 9);
  bool later = false;
  std::vector<DnsByTcp::Answer> answers;
  DnsByTcp server{clock, 1500, [this](const Frame& f) { out.push_back(f); },
                  [this](std::span<const std::uint8_t> query, DnsByTcp::Answer answer) {
                    asked.emplace_back(query.begin(), query.end());
                    if (later)
                      answers.push_back(std::move(answer));
                    else
                      answer(reply);
                  }};
};

TEST_F(DnsByTcpTest, AQuestionInPiecesAndAnEnd) {
  std::uint32_t theirs = open();
  Frame q = question();
  send(101, kAck, theirs, Frame(q.begin(), q.begin() + 1));
  EXPECT_EQ(next().acknowledged, 102u);
  // What comes too early is not taken, and what comes again is taken once.
  send(110, kAck, theirs, Frame(q.begin() + 9, q.end()));
  EXPECT_EQ(next().acknowledged, 102u);
  EXPECT_TRUE(asked.empty());
  send(101, kAck, theirs, q);
  EXPECT_EQ(next().acknowledged, 123u);
  ASSERT_EQ(asked.size(), 1u);
  EXPECT_EQ(asked[0], Frame(20, 7));
  Received r = next();
  EXPECT_EQ(r.sequence, theirs);
  EXPECT_EQ(loadBe<std::uint16_t>(r.data.data()), 30);
  EXPECT_EQ(Frame(r.data.begin() + 2, r.data.end()), reply);
  send(123, kAck | kFin, theirs + 32);
  EXPECT_EQ(next().acknowledged, 124u);
  EXPECT_EQ(next().flags, kFin | kAck);
  EXPECT_EQ(server.connections(), 1u);
  send(124, kAck, theirs + 33);
  EXPECT_EQ(server.connections(), 0u);
  EXPECT_TRUE(out.empty());
}

TEST_F(DnsByTcpTest, LargeAnswersFitTheWindowAndThePieces) {
  for (bool v6 : {false, true}) {
    if (v6) guest.address = *ipFrom("fd00::15"), names.address = *ipFrom("fd00::3");
    reply = Frame(20000);
    for (std::size_t i = 0; i < reply.size(); ++i) reply[i] = static_cast<std::uint8_t>(i % 251);
    window = 3000;
    mss = 600;
    std::uint32_t theirs = open();
    send(101, kAck, theirs, question());
    Frame got = collect(theirs, true, 123);
    ASSERT_EQ(got.size(), 20002u);
    EXPECT_TRUE(std::equal(reply.begin(), reply.end(), got.begin() + 2));
    send(123, kAck | kRst, 0);
    EXPECT_EQ(server.connections(), 0u);
  }
}

TEST_F(DnsByTcpTest, WhatIsLostComesAgainUntilItIsGivenUp) {
  std::uint32_t theirs = open();
  send(101, kAck, theirs, question());
  (void)next();
  EXPECT_EQ(next().data.size(), 32u);
  clock.advance(kSecond * 6 / 10);
  EXPECT_EQ(next().data.size(), 32u);
  EXPECT_TRUE(out.empty());
  clock.advance(kSecond);
  EXPECT_EQ(next().data.size(), 32u) << "and later each time";
  clock.advance(60 * kSecond);
  EXPECT_EQ(server.connections(), 0u);
  EXPECT_NE(out.back()[14 + 20 + 13] & kRst, 0);
}

TEST_F(DnsByTcpTest, SilenceEndsConnections) {
  (void)open();
  clock.advance(14 * kSecond);
  EXPECT_EQ(server.connections(), 1u);
  clock.advance(2 * kSecond);
  EXPECT_EQ(server.connections(), 0u);
}

TEST_F(DnsByTcpTest, AnAnswerMayComeLaterOrTooLate) {
  later = true;
  std::uint32_t theirs = open();
  Frame two = question();
  two.insert(two.end(), two.begin(), two.end());
  send(101, kAck | kFin, theirs, two);
  EXPECT_EQ(next().acknowledged, 146u);
  ASSERT_EQ(answers.size(), 1u) << "one at a time";
  answers[0](reply);
  EXPECT_EQ(next().data.size(), 32u);
  EXPECT_TRUE(out.empty()) << "no end before the second answer";
  send(146, kAck, theirs + 32);
  ASSERT_EQ(answers.size(), 2u);
  answers[0](reply);  // twice is once too often
  answers[1](reply);
  (void)next();
  send(146, kRst, 0);
  EXPECT_EQ(server.connections(), 0u);
  answers[1](reply);
  EXPECT_EQ(server.connections(), 0u);
}

TEST_F(DnsByTcpTest, NonsenseIsRefused) {
  send(5, kAck, 77);
  Received r = next();
  EXPECT_EQ(r.flags, kRst);
  EXPECT_EQ(r.sequence, 77u);
  send(5, kRst, 0);
  EXPECT_TRUE(out.empty());
  std::uint32_t theirs = open();
  send(101, kAck, theirs + 9);  // what was never sent
  EXPECT_EQ(next().flags, kAck);
  send(101, kAck, theirs, {0xff, 0xff, 0});
  (void)next();
  EXPECT_NE(next().flags & kRst, 0) << "no question is that long";
  EXPECT_EQ(server.connections(), 0u);
}

TEST_F(DnsByTcpTest, NobodyTakesAllConnections) {
  for (unsigned n = 0; n < 20; ++n) {
    ++guest.port;
    send(100, kSyn, 0);
  }
  EXPECT_EQ(server.connections(), 8u);
  for (unsigned n = 0; n < 200; ++n) {
    clock.advance(kSecond / 1000);
    guest.mac[4] = static_cast<std::uint8_t>(n);
    ++guest.port;
    send(100, kSyn, 0);
  }
  EXPECT_EQ(server.connections(), 128u);
  out.clear();
  ++guest.port;
  guest.mac[3] = 1;
  std::uint32_t theirs = open();
  send(101, kAck, theirs, question());
  EXPECT_EQ(asked.size(), 1u);
}

}  // namespace
}  // namespace lodge::network
