// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "network/packet.h"
#include "network/switch.h"

namespace lodge::network {

/// Whose address is whose. An address belongs to the port that it was given to (leased, reserved, the network's own),
/// or else to the first that used it, until it has been quiet for a while.
class AddressBook {
 public:
  explicit AddressBook(const Clock& clock) : clock_(clock) {}

  /// For good; port 0 is the network itself.
  void assign(const IpAddress& address, PortId port);
  void remove(PortId port);
  /// Whether `port` may use the address; claims it if nobody has.
  bool use(const IpAddress& address, PortId port);
  /// Whether another port uses an address that nobody gave it, and was not quiet for long.
  bool usedByOther(const IpAddress& address, PortId port) const;
  std::optional<PortId> ownerOf(const IpAddress& address) const;
  std::vector<IpAddress> addressesOf(PortId port) const;

 private:
  struct Claim {
    PortId port = 0;
    bool fixed = false;
    Nanoseconds seen = 0;
  };
  const Clock& clock_;
  std::map<IpAddress, Claim> claims_;
  std::map<PortId, std::size_t> counts_;  ///< of claims that are not fixed
};

/// Why a frame is not its sender's, as logs and counters have it.
namespace refusal {
inline constexpr const char *kGroupSource = "group address as source", *kSourceMac = "source MAC",
                            *kTag = "tag behind a tag, or a provider's", *kSnap = "SNAP header",
                            *kBridgeGroup = "group of bridges", *kBrokenArp = "broken ARP",
                            *kArpMac = "sender MAC in ARP", *kArpAddress = "sender address in ARP",
                            *kBrokenIp = "broken IP header", *kDhcp = "DHCP server", *kDhcp6 = "DHCPv6 server",
                            *kRouter = "router advertisement", *kRedirect = "redirect of a router",
                            *kQuery = "query for groups", *kGroupRouter = "router of groups",
                            *kTarget = "target of an advertisement", *kLinkLayer = "link-layer address",
                            *kSource = "source address", *kFlood = "flood";
}  // namespace refusal

/// Keeps a machine from speaking under names that are not its own: hardware and IP addresses (in ARP and neighbour
/// discovery too), and from acting as a DHCP server, a router or a bridge. What it may not send is dropped at its own
/// port.
class Guard {
 public:
  struct Identity {
    PortId port = 0;
    std::optional<MacAddress> mac;     ///< the only source that frames may have
    std::vector<IpAddress> addresses;  ///< the only IPv4 and global IPv6 sources; empty: who comes first
    bool checkAddresses = true;
  };
  /// What is wrong with a frame from that machine; nullptr: nothing.
  static const char* refuse(const Identity& who, std::span<const std::uint8_t> frame, const Packet& packet,
                            AddressBook& book);
};

}  // namespace lodge::network
