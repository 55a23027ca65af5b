// SPDX-License-Identifier: Apache-2.0
#include "network/frame_builder.h"

#include <algorithm>

namespace lodge::network {

namespace {

void append(Frame& f, std::span<const std::uint8_t> bytes) {
  f.insert(f.end(), bytes.begin(), bytes.end());
}

template <class T>
void put(Frame& f, T value) {
  std::size_t at = f.size();
  f.resize(at + sizeof value);
  storeBe(&f[at], value);
}

Frame ethernet(const MacAddress& to, const MacAddress& from, std::uint16_t type) {
  Frame f;
  append(f, to);
  append(f, from);
  put(f, type);
  return f;
}

Frame ipFrame(const Endpoint& from, const Endpoint& to, std::uint8_t protocol, std::uint8_t hops,
              std::span<const std::uint8_t> body) {
  bool v6 = to.address.v6;
  Frame f = ethernet(to.mac, from.mac, v6 ? ether::kIp6 : ether::kIp4);
  if (v6) {
    put<std::uint32_t>(f, 0x60000000);
    put(f, static_cast<std::uint16_t>(body.size()));
    f.push_back(protocol);
    f.push_back(hops);
  } else {
    put<std::uint16_t>(f, 0x4500);
    put(f, static_cast<std::uint16_t>(20 + body.size()));
    put<std::uint32_t>(f, 0x00004000);
    f.push_back(hops);
    f.push_back(protocol);
    put<std::uint16_t>(f, 0);
  }
  append(f, from.address.span());
  append(f, to.address.span());
  if (!v6) storeBe(&f[ether::kHeader + 10], checksumFold(checksumAdd(0, std::span(f).subspan(ether::kHeader))));
  append(f, body);
  if (auto packet = parsePacket(f)) fixTransportChecksum(f, *packet);
  return f;
}

}  // namespace

Frame udpFrame(const Endpoint& from, const Endpoint& to, std::span<const std::uint8_t> data) {
  Frame body;
  put(body, from.port);
  put(body, to.port);
  put(body, static_cast<std::uint16_t>(8 + data.size()));
  put<std::uint16_t>(body, 0);
  append(body, data);
  return ipFrame(from, to, protocol::kUdp, 64, body);
}

Frame tcpFrame(const Endpoint& from, const Endpoint& to, const TcpFields& fields, std::span<const std::uint8_t> data) {
  Frame body;
  put(body, from.port);
  put(body, to.port);
  put(body, fields.sequence);
  put(body, fields.acknowledged);
  body.push_back(fields.mss != 0 ? 0x60 : 0x50);
  body.push_back(fields.flags);
  put(body, fields.window);
  put<std::uint32_t>(body, 0);  // checksum, urgent pointer
  if (fields.mss != 0) {
    body.insert(body.end(), {2, 4});
    put(body, fields.mss);
  }
  append(body, data);
  return ipFrame(from, to, protocol::kTcp, 64, body);
}

Frame icmp6Frame(const Endpoint& from, const Endpoint& to, std::span<const std::uint8_t> message) {
  return ipFrame(from, to, protocol::kIcmp6, 255, message);
}

Frame arpFrame(bool reply, const Endpoint& sender, const Endpoint& target, const MacAddress& to) {
  Frame f = ethernet(to, sender.mac, ether::kArp);
  put<std::uint16_t>(f, 1);
  put(f, ether::kIp4);
  put<std::uint16_t>(f, 0x0604);
  put<std::uint16_t>(f, reply ? 2 : 1);
  append(f, sender.mac);
  append(f, sender.address.span());
  append(f, target.mac);
  append(f, target.address.span());
  return f;
}

Frame echoReply(std::span<const std::uint8_t> frame, const Packet& p) {
  bool request = p.ip && p.transport != 0 && p.firstFragment && p.end - p.transport >= 8 &&
                 ((p.protocol == protocol::kIcmp && frame[p.transport] == 8) ||
                  (p.protocol == protocol::kIcmp6 && frame[p.transport] == 128));
  if (!request) return {};
  Frame body(frame.begin() + static_cast<std::ptrdiff_t>(p.transport),
             frame.begin() + static_cast<std::ptrdiff_t>(p.end));
  Endpoint from{p.destination, p.to, 0}, to{p.source, p.from, 0};
  body[0] = p.from.v6 ? 129 : 0;
  if (p.from.v6) return icmp6Frame(from, to, body);
  storeBe<std::uint16_t>(&body[2], 0);
  storeBe(&body[2], checksumFold(checksumAdd(0, body)));
  Frame whole = ipFrame(from, to, 255, 64, body);  // a protocol whose checksum nobody fills in
  whole[ether::kHeader + 9] = protocol::kIcmp;
  storeBe<std::uint16_t>(&whole[ether::kHeader + 10], 0);
  storeBe(&whole[ether::kHeader + 10], checksumFold(checksumAdd(0, std::span(whole).subspan(ether::kHeader, 20))));
  return whole;
}

Frame neighbourAdvertisement(const Packet& packet, const MacAddress& mac, const IpAddress& target) {
  Frame m = {136, 0, 0, 0};
  bool toAll = packet.from.unspecified();
  put<std::uint32_t>(m, toAll ? 0x20000000 : 0x60000000);  // solicited, override
  append(m, target.span());
  m.push_back(2);
  m.push_back(1);
  append(m, mac);
  Endpoint to = toAll ? allNodes() : Endpoint{packet.source, packet.from, 0};
  return icmp6Frame({mac, target, 0}, to, m);
}

Frame routerAdvertisement(const RouterFacts& facts, const Endpoint& to) {
  constexpr std::uint32_t kForever = 86400;
  Frame m = {134, 0, 0, 0, 64, 0};
  put<std::uint16_t>(m, facts.defaultRoute ? 1800 : 0);
  put<std::uint64_t>(m, 0);  // reachable and retransmission time: unspecified
  m.insert(m.end(), {1, 1});
  append(m, facts.router.mac);
  m.insert(m.end(), {5, 1, 0, 0});
  put<std::uint32_t>(m, facts.mtu);
  m.insert(m.end(), {3, 4, static_cast<std::uint8_t>(facts.prefix.prefix), 0xc0});  // on-link, autonomous
  put(m, kForever);
  put(m, kForever);
  put<std::uint32_t>(m, 0);
  append(m, facts.prefix.base.span());
  if (facts.nameServer) {
    m.insert(m.end(), {25, 3, 0, 0});
    put<std::uint32_t>(m, 1800);
    append(m, facts.nameServer->span());
  }
  return icmp6Frame(facts.router, to, m);
}

Endpoint allNodes() {
  return {{0x33, 0x33, 0, 0, 0, 1}, *ipFrom("ff02::1"), 0};
}

IpAddress linkLocalOf(const MacAddress& mac) {
  IpAddress a{true, {0xfe, 0x80}};
  a.bytes[8] = mac[0] ^ 2;
  a.bytes[9] = mac[1];
  a.bytes[10] = mac[2];
  a.bytes[11] = 0xff;
  a.bytes[12] = 0xfe;
  std::copy_n(&mac[3], 3, &a.bytes[13]);
  return a;
}

}  // namespace lodge::network
