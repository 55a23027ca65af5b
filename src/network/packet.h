// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "net/address.h"

namespace lodge::network {

namespace ether {
inline constexpr std::uint16_t kIp4 = 0x0800, kArp = 0x0806, kVlan = 0x8100, kIp6 = 0x86dd, kServiceVlan = 0x88a8;
inline constexpr std::uint16_t kLongest = 1500;  ///< up to here it is no type, but the length (IEEE 802.3, 3.2.6)
inline constexpr std::size_t kHeader = 14;
}  // namespace ether

namespace protocol {
inline constexpr std::uint8_t kIcmp = 1, kIgmp = 2, kTcp = 6, kUdp = 17, kIcmp6 = 58, kPim = 103;
}  // namespace protocol

inline constexpr MacAddress kBroadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/// What an Ethernet frame's headers say. All offsets are inside the frame they were parsed from.
struct Packet {
  MacAddress destination{}, source{};
  std::optional<std::uint16_t> vlan;  ///< of an 802.1Q tag
  std::uint16_t etherType = 0;        ///< after the tag
  std::size_t network = 0;            ///< offset of what follows the Ethernet header
  bool ip = false;                    ///< the rest is valid: an IPv4 or IPv6 header was whole
  IpAddress from, to;
  std::uint8_t protocol = 0;  ///< after IPv6's extension headers
  bool firstFragment = true;
  std::size_t transport = 0;               ///< offset of the transport header, 0 if it is not there (a later fragment)
  std::size_t end = 0;                     ///< where the IP packet ends
  std::uint16_t fromPort = 0, toPort = 0;  ///< of TCP and UDP whose ports are there
  std::size_t payload = 0;                 ///< offset of TCP's or UDP's data; 0: none known
};

/// Nothing if the Ethernet header is not whole. Headers that break their own rules leave `ip` false.
std::optional<Packet> parsePacket(std::span<const std::uint8_t> frame);

/// ARP over Ethernet and IPv4 (RFC 826).
struct Arp {
  bool reply = false;
  MacAddress senderMac{}, targetMac{};
  IpAddress sender, target;
  std::size_t offset = 0;  ///< of the ARP packet in the frame
};
std::optional<Arp> parseArp(std::span<const std::uint8_t> frame, const Packet& packet);

/// Neighbour discovery and router messages (RFC 4861).
struct Neighbour {
  enum class Type : std::uint8_t { routerSolicitation = 133, routerAdvertisement, solicitation, advertisement };
  Type type{};
  IpAddress target;      ///< of solicitation and advertisement
  std::size_t icmp = 0;  ///< offset of the ICMPv6 header
  std::size_t linkLayerAddress =
      0;  ///< offset of the 6 bytes in the source or target link-layer option, the last; 0: none
  unsigned linkLayerOptions = 0;
};
std::optional<Neighbour> parseNeighbour(std::span<const std::uint8_t> frame, const Packet& packet);

/// The Internet checksum's running sum over `bytes` (RFC 1071).
std::uint32_t checksumAdd(std::uint32_t sum, std::span<const std::uint8_t> bytes);
/// Its final form.
std::uint16_t checksumFold(std::uint32_t sum);
/// Writes the transport checksum of an ICMPv6, UDP or TCP packet anew.
void fixTransportChecksum(std::span<std::uint8_t> frame, const Packet& packet);

template <class T>
inline void storeBe(std::uint8_t* p, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) p[i] = static_cast<std::uint8_t>(value >> (8 * (sizeof(T) - 1 - i)));
}

}  // namespace lodge::network
