// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "base/bytes.h"
#include "net/backend.h"

namespace lodge {
namespace {

using Frame = std::vector<std::uint8_t>;

constexpr std::uint8_t kGuestMac[] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

void put16(Frame& f, unsigned v) {
  f.push_back(static_cast<std::uint8_t>(v >> 8));
  f.push_back(static_cast<std::uint8_t>(v));
}
void put32(Frame& f, std::uint32_t v) {
  put16(f, v >> 16);
  put16(f, v & 0xffff);
}
std::uint32_t sum(const std::uint8_t* p, std::size_t n, std::uint32_t s = 0) {
  for (std::size_t i = 0; i < n; ++i) s += i % 2 == 0 ? p[i] << 8 : p[i];
  while (s >> 16 != 0) s = (s & 0xffff) + (s >> 16);
  return s;
}

constexpr std::uint32_t kGuestIp = 0x0a00020f, kHostIp = 0x0a000202;

Frame ethernet(unsigned type) {
  Frame f(6, 0xff);
  f.insert(f.end(), kGuestMac, kGuestMac + 6);
  put16(f, type);
  return f;
}
Frame ip(std::uint8_t protocol, std::uint32_t from, std::uint32_t to, const Frame& payload) {
  Frame f = ethernet(0x0800);
  std::size_t start = f.size();
  put16(f, 0x4500);
  put16(f, static_cast<unsigned>(20 + payload.size()));
  put32(f, 0);
  f.push_back(64);
  f.push_back(protocol);
  put16(f, 0);
  put32(f, from);
  put32(f, to);
  std::uint32_t s = ~sum(f.data() + start, 20);
  f[start + 10] = static_cast<std::uint8_t>(s >> 8);
  f[start + 11] = static_cast<std::uint8_t>(s);
  f.insert(f.end(), payload.begin(), payload.end());
  return f;
}
Frame udp(std::uint32_t from, unsigned fromPort, std::uint32_t to, unsigned toPort, const Frame& data) {
  Frame u;
  put16(u, fromPort);
  put16(u, toPort);
  put16(u, static_cast<unsigned>(8 + data.size()));
  put16(u, 0);
  u.insert(u.end(), data.begin(), data.end());
  return ip(17, from, to, u);
}
Frame tcpSyn(unsigned fromPort, unsigned toPort) {
  Frame t;
  put16(t, fromPort);
  put16(t, toPort);
  put32(t, 1000);
  put32(t, 0);
  put16(t, 0x5002);
  put16(t, 8192);
  put32(t, 0);
  Frame pseudo;
  put32(pseudo, kGuestIp);
  put32(pseudo, kHostIp);
  put16(pseudo, 6);
  put16(pseudo, 20);
  std::uint32_t s = ~sum(t.data(), t.size(), sum(pseudo.data(), pseudo.size()));
  t[16] = static_cast<std::uint8_t>(s >> 8);
  t[17] = static_cast<std::uint8_t>(s);
  return ip(6, kGuestIp, kHostIp, t);
}
Frame arpReply() {
  Frame f = ethernet(0x0806);
  put32(f, 0x00010800);
  put32(f, 0x06040002);
  f.insert(f.end(), kGuestMac, kGuestMac + 6);
  put32(f, kGuestIp);
  f.insert(f.end(), 6, 0xff);
  put32(f, kHostIp);
  return f;
}
Frame dhcpDiscover() {
  Frame d(240, 0);
  d[0] = d[1] = 1;
  d[2] = 6;
  std::memcpy(d.data() + 28, kGuestMac, 6);
  const std::uint8_t magic[] = {0x63, 0x82, 0x53, 0x63};
  std::memcpy(d.data() + 236, magic, 4);
  for (std::uint8_t b : {53, 1, 1, 255}) d.push_back(b);
  return udp(0, 68, 0xffffffff, 67, d);
}

struct Host {
  Host(int type) : fd(::socket(AF_INET, type, 0)) {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    if (type == SOCK_STREAM) ::listen(fd, 4);
    socklen_t length = sizeof a;
    ::getsockname(fd, reinterpret_cast<sockaddr*>(&a), &length);
    port = ntohs(a.sin_port);
  }
  ~Host() { ::close(fd); }
  int fd;
  std::uint16_t port = 0;
};

struct UserNetTest : testing::Test {
  void SetUp() override { loop = std::move(*EventLoop::create()); }
  void open(UserNetOptions options = {}) {
    auto made = openUserNet(*loop, options);
    ASSERT_TRUE(made) << made.error().message();
    net = std::move(*made);
    net->setReceiver([this](std::span<const std::uint8_t> f, const FrameOffload&) {
      if (accept(Frame(f.begin(), f.end()))) {
        matched = true;
        loop->stop();
      }
      return true;
    });
  }
  // Runs the loop until `accept` likes a frame, two seconds at most.
  bool until(std::function<bool(const Frame&)> wanted) {
    accept = std::move(wanted);
    auto limit = loop->makeTimer([this] { loop->stop(); });
    limit->arm(loop->clock().now() + 2 * kNanosecondsPerSecond);
    EXPECT_TRUE(loop->run());
    return matched;
  }

  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<NetBackend> net;
  std::function<bool(const Frame&)> accept = [](const Frame&) { return false; };
  bool matched = false;
};

TEST_F(UserNetTest, dhcpOffersTheFirstAddress) {
  open();
  loop->post([&] { net->send(dhcpDiscover(), {}); });
  EXPECT_TRUE(until([](const Frame& f) {
    return f.size() > 62 && f[23] == 17 && loadBe<std::uint16_t>(&f[36]) == 68 &&
           loadBe<std::uint32_t>(&f[58]) == kGuestIp;
  }));
}

TEST_F(UserNetTest, udpReachesTheHostsLoopback) {
  Host server(SOCK_DGRAM);
  open();
  loop->post([&] {
    net->send(arpReply(), {});
    net->send(udp(kGuestIp, 4000, kHostIp, server.port, {'p', 'i', 'n', 'g'}), {});
  });
  ASSERT_TRUE(loop->watch(server.fd, 1 /* EPOLLIN */, [&](std::uint32_t) {
    char buffer[64];
    sockaddr_in from{};
    socklen_t length = sizeof from;
    ssize_t n = ::recvfrom(server.fd, buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &length);
    ASSERT_EQ(std::string(buffer, static_cast<std::size_t>(n)), "ping");
    ASSERT_EQ(::sendto(server.fd, "pong", 4, 0, reinterpret_cast<sockaddr*>(&from), length), 4);
  }));
  EXPECT_TRUE(
      until([](const Frame& f) { return f.size() >= 46 && f[23] == 17 && std::memcmp(&f[42], "pong", 4) == 0; }));
}

TEST_F(UserNetTest, tcpConnectsToTheHost) {
  Host server(SOCK_STREAM);
  open();
  loop->post([&] {
    net->send(arpReply(), {});
    net->send(tcpSyn(4001, server.port), {});
  });
  EXPECT_TRUE(until([](const Frame& f) { return f.size() >= 54 && f[23] == 6 && (f[47] & 0x12) == 0x12; }))
      << "SYN and ACK";
}

TEST_F(UserNetTest, forwardBringsAConnectionIn) {
  std::uint16_t port = Host(SOCK_STREAM).port;
  UserNetOptions options;
  options.forwards.push_back({false, "", port, "", 22});
  open(options);
  int client = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  loop->post([&] {
    net->send(arpReply(), {});
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(port);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::connect(client, reinterpret_cast<sockaddr*>(&a), sizeof a);
  });
  EXPECT_TRUE(until([](const Frame& f) {
    return f.size() >= 54 && f[23] == 6 && loadBe<std::uint16_t>(&f[36]) == 22 && (f[47] & 0x12) == 2;
  }));
  ::close(client);
}

TEST_F(UserNetTest, takenPortIsNamed) {
  Host server(SOCK_STREAM);
  UserNetOptions options;
  options.forwards.push_back({false, "127.0.0.1", server.port, "", 22});
  auto made = openUserNet(*loop, options);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().kind(), ErrorKind::busy);
  EXPECT_EQ(made.error().message(),
            "forward tcp 127.0.0.1:" + std::to_string(server.port) + ": Address already in use");
}

TEST_F(UserNetTest, aRefusingReceiverGetsTheFramesLater) {
  open();
  int refused = 0;
  net->setReceiver([&](std::span<const std::uint8_t>, const FrameOffload&) {
    if (refused++ == 0) {
      loop->post([&] { net->receiverReady(); });
      return false;
    }
    matched = true;
    loop->stop();
    return true;
  });
  loop->post([&] { net->send(dhcpDiscover(), {}); });
  EXPECT_TRUE(until([](const Frame&) { return false; }));
}

}  // namespace
}  // namespace lodge
