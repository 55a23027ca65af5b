// SPDX-License-Identifier: Apache-2.0
#include "network/packet.h"

#include <algorithm>

#include "base/bytes.h"

namespace lodge::network {

namespace {

using Bytes = std::span<const std::uint8_t>;

std::uint16_t be16(Bytes b, std::size_t at) {
  return loadBe<std::uint16_t>(&b[at]);
}

MacAddress macAt(Bytes b, std::size_t at) {
  MacAddress mac;
  std::copy_n(&b[at], 6, mac.begin());
  return mac;
}

void parseTransport(Bytes frame, Packet& p) {
  if (p.transport == 0 || !p.firstFragment) return;
  std::size_t room = p.end - p.transport;
  if (p.protocol == protocol::kUdp && room >= 8) {
    p.payload = p.transport + 8;
  } else if (p.protocol == protocol::kTcp && room >= 20) {
    std::size_t header = std::size_t{4} * (frame[p.transport + 12] >> 4);
    if (header < 20 || header > room) return;
    p.payload = p.transport + header;
  } else {
    return;
  }
  p.fromPort = be16(frame, p.transport);
  p.toPort = be16(frame, p.transport + 2);
}

void parseIp4(Bytes frame, Packet& p) {
  Bytes ip = frame.subspan(p.network);
  if (ip.size() < 20 || ip[0] >> 4 != 4) return;
  std::size_t header = std::size_t{4} * (ip[0] & 15), total = be16(ip, 2);
  // A segmentation offload of 64 KiB may leave the length zero (Linux's BIG TCP does).
  if (total == 0) total = ip.size();
  if (header < 20 || total < header || total > ip.size()) return;
  p.ip = true;
  p.from = IpAddress::from(ip.subspan(12, 4));
  p.to = IpAddress::from(ip.subspan(16, 4));
  p.protocol = ip[9];
  p.firstFragment = (be16(ip, 6) & 0x1fff) == 0;
  p.transport = p.network + header;
  p.end = p.network + total;
  parseTransport(frame, p);
}

/// Extension headers (RFC 8200, 4); more than a few are nobody's honest packet.
bool skipExtensions(Bytes frame, Packet& p, std::uint8_t next, std::size_t at) {
  constexpr std::uint8_t kHopByHop = 0, kRouting = 43, kFragment = 44, kDestination = 60;
  for (unsigned n = 0; n < 8; ++n) {
    if (next != kHopByHop && next != kRouting && next != kFragment && next != kDestination) {
      p.protocol = next;
      p.transport = at;
      return true;
    }
    if (at + 8 > p.end) return false;
    if (next == kFragment) {
      p.firstFragment = (be16(frame, at + 2) & 0xfff8) == 0;
      if (!p.firstFragment) {
        p.protocol = frame[at];
        p.transport = at + 8;
        return true;
      }
    }
    std::size_t length = next == kFragment ? 8 : 8 + std::size_t{8} * frame[at + 1];
    next = frame[at];
    at += length;
    if (at > p.end) return false;
  }
  return false;
}

void parseIp6(Bytes frame, Packet& p) {
  Bytes ip = frame.subspan(p.network);
  if (ip.size() < 40 || ip[0] >> 4 != 6) return;
  std::size_t length = be16(ip, 4);
  if (length == 0) length = ip.size() - 40;
  if (40 + length > ip.size()) return;
  p.from = IpAddress::from(ip.subspan(8, 16));
  p.to = IpAddress::from(ip.subspan(24, 16));
  p.end = p.network + 40 + length;
  p.ip = skipExtensions(frame, p, ip[6], p.network + 40);
  if (p.ip) parseTransport(frame, p);
}

}  // namespace

std::optional<Packet> parsePacket(Bytes frame) {
  if (frame.size() < ether::kHeader) return std::nullopt;
  Packet p;
  p.destination = macAt(frame, 0);
  p.source = macAt(frame, 6);
  p.etherType = be16(frame, 12);
  p.network = ether::kHeader;
  if (p.etherType == ether::kVlan) {
    if (frame.size() < ether::kHeader + 4) return std::nullopt;
    p.vlan = be16(frame, 14) & 0xfff;
    p.etherType = be16(frame, 16);
    p.network += 4;
  }
  if (p.etherType == ether::kIp4) parseIp4(frame, p);
  if (p.etherType == ether::kIp6) parseIp6(frame, p);
  return p;
}

std::optional<Arp> parseArp(Bytes frame, const Packet& packet) {
  if (packet.etherType != ether::kArp || frame.size() < packet.network + 28) return std::nullopt;
  Bytes a = frame.subspan(packet.network);
  // Ethernet, IPv4, their lengths.
  if (be16(a, 0) != 1 || be16(a, 2) != ether::kIp4 || a[4] != 6 || a[5] != 4) return std::nullopt;
  Arp arp;
  arp.reply = be16(a, 6) == 2;
  arp.senderMac = macAt(a, 8);
  arp.sender = IpAddress::from(a.subspan(14, 4));
  arp.targetMac = macAt(a, 18);
  arp.target = IpAddress::from(a.subspan(24, 4));
  arp.offset = packet.network;
  return arp;
}

std::optional<Neighbour> parseNeighbour(Bytes frame, const Packet& packet) {
  if (!packet.ip || !packet.from.v6 || packet.protocol != protocol::kIcmp6 || !packet.firstFragment) return {};
  Bytes icmp = frame.subspan(packet.transport, packet.end - packet.transport);
  if (icmp.size() < 8 || icmp[0] < 133 || icmp[0] > 136 || icmp[1] != 0) return {};
  Neighbour n;
  n.type = static_cast<Neighbour::Type>(icmp[0]);
  n.icmp = packet.transport;
  std::size_t at = 8;
  if (icmp[0] == 134) at = 16;
  if (icmp[0] >= 135) {
    if (icmp.size() < 24) return {};
    n.target = IpAddress::from(icmp.subspan(8, 16));
    at = 24;
  }
  while (at + 8 <= icmp.size()) {
    std::size_t length = std::size_t{8} * icmp[at + 1];
    if (length == 0 || at + length > icmp.size()) break;
    if (icmp[at] == (icmp[0] == 136 ? 2 : 1)) {
      n.linkLayerAddress = packet.transport + at + 2;
      ++n.linkLayerOptions;
    }
    at += length;
  }
  return n;
}

std::uint32_t checksumAdd(std::uint32_t sum, Bytes bytes) {
  std::uint64_t total = sum;
  std::size_t i = 0;
  for (; i + 1 < bytes.size(); i += 2) total += be16(bytes, i);
  if (i < bytes.size()) total += static_cast<std::uint32_t>(bytes[i]) << 8;
  while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
  return static_cast<std::uint32_t>(total);
}

std::uint16_t checksumFold(std::uint32_t sum) {
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

void fixTransportChecksum(std::span<std::uint8_t> frame, const Packet& p) {
  std::size_t field = p.protocol == protocol::kTcp ? 16 : p.protocol == protocol::kUdp ? 6 : 2;
  std::size_t length = p.end - p.transport;
  bool known = p.protocol == protocol::kTcp || p.protocol == protocol::kUdp || p.protocol == protocol::kIcmp6;
  if (!p.ip || !known || p.transport == 0 || field + 2 > length) return;
  storeBe<std::uint16_t>(&frame[p.transport + field], 0);
  std::uint32_t sum = checksumAdd(0, p.from.span());
  sum = checksumAdd(sum, p.to.span());
  sum += static_cast<std::uint32_t>(length) + p.protocol;
  std::uint16_t value = checksumFold(checksumAdd(sum, frame.subspan(p.transport, length)));
  if (value == 0 && p.protocol == protocol::kUdp) value = 0xffff;
  storeBe(&frame[p.transport + field], value);
}

}  // namespace lodge::network
