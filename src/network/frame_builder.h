// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "network/packet.h"

namespace lodge::network {

using Frame = std::vector<std::uint8_t>;

struct Endpoint {
  MacAddress mac{};
  IpAddress address;
  std::uint16_t port = 0;
};

/// Whole frames with all checksums. Both ends' addresses are of one family.
Frame udpFrame(const Endpoint& from, const Endpoint& to, std::span<const std::uint8_t> data);
/// Of a TCP header (RFC 9293, 3.1); `mss` 0: without the option.
struct TcpFields {
  std::uint32_t sequence = 0, acknowledged = 0;
  std::uint8_t flags = 0;
  std::uint16_t window = 0, mss = 0;
};
Frame tcpFrame(const Endpoint& from, const Endpoint& to, const TcpFields& fields, std::span<const std::uint8_t> data);
/// `message`: ICMPv6 from its type on, its checksum to be filled in; hop limit 255 (RFC 4861).
Frame icmp6Frame(const Endpoint& from, const Endpoint& to, std::span<const std::uint8_t> message);
Frame arpFrame(bool reply, const Endpoint& sender, const Endpoint& target, const MacAddress& to);
/// Echo replies to an ICMP or ICMPv6 echo request, as its receiver sends them. Empty if it is none.
Frame echoReply(std::span<const std::uint8_t> frame, const Packet& packet);
/// An advertisement that answers `packet`'s solicitation for `target`.
Frame neighbourAdvertisement(const Packet& packet, const MacAddress& mac, const IpAddress& target);

struct RouterFacts {
  Endpoint router;  ///< with its link-local address
  IpBlock prefix;
  std::optional<IpAddress> nameServer;
  unsigned mtu = 1500;
  bool defaultRoute = false;
};
/// A router advertisement (RFC 4861, 4.2; RFC 8106) to all nodes, or to one.
Frame routerAdvertisement(const RouterFacts& facts, const Endpoint& to);
/// ff02::1 and its hardware address.
Endpoint allNodes();
/// fe80:: and the EUI-64 of the hardware address.
IpAddress linkLocalOf(const MacAddress& mac);

}  // namespace lodge::network
