// SPDX-License-Identifier: Apache-2.0
#include "network/guard.h"

#include <algorithm>

#include "network/dhcp.h"

namespace lodge::network {

namespace {

constexpr Nanoseconds kQuiet = 600 * kNanosecondsPerSecond;
constexpr std::size_t kMostClaims = 64;  // of a port, that nobody gave it

bool own(const Guard::Identity& who, const IpAddress& address, AddressBook& book) {
  if (!who.checkAddresses || address.unspecified()) return true;
  if (address.multicast()) return false;
  if (!who.addresses.empty() && !(address.v6 && address.linkLocal())) {
    bool family =
        std::any_of(who.addresses.begin(), who.addresses.end(), [&](const IpAddress& a) { return a.v6 == address.v6; });
    if (family) return std::find(who.addresses.begin(), who.addresses.end(), address) != who.addresses.end();
  }
  return book.use(address, who.port);
}

}  // namespace

void AddressBook::assign(const IpAddress& address, PortId port) {
  auto it = claims_.find(address);
  if (it != claims_.end() && !it->second.fixed && counts_[it->second.port] > 0) --counts_[it->second.port];
  claims_[address] = {port, true, clock_.now()};
}

void AddressBook::remove(PortId port) {
  std::erase_if(claims_, [&](const auto& c) { return c.second.port == port; });
  counts_.erase(port);
}

bool AddressBook::use(const IpAddress& address, PortId port) {
  Nanoseconds now = clock_.now();
  auto it = claims_.find(address);
  if (it != claims_.end()) {
    Claim& claim = it->second;
    if (claim.port == port) {
      claim.seen = now;
      return true;
    }
    if (claim.fixed || now - claim.seen < kQuiet) return false;
    if (counts_[claim.port] > 0) --counts_[claim.port];
    claims_.erase(it);
  }
  std::size_t& count = counts_[port];
  if (count >= kMostClaims) {
    // The oldest of its own goes.
    auto oldest = claims_.end();
    for (auto c = claims_.begin(); c != claims_.end(); ++c) {
      if (c->second.port == port && !c->second.fixed &&
          (oldest == claims_.end() || c->second.seen < oldest->second.seen))
        oldest = c;
    }
    if (oldest == claims_.end() || now - oldest->second.seen < 10 * kNanosecondsPerSecond) return false;
    claims_.erase(oldest);
    --count;
  }
  ++count;
  claims_[address] = {port, false, now};
  return true;
}

std::optional<PortId> AddressBook::ownerOf(const IpAddress& address) const {
  auto it = claims_.find(address);
  if (it == claims_.end()) return std::nullopt;
  return it->second.port;
}

std::vector<IpAddress> AddressBook::addressesOf(PortId port) const {
  std::vector<IpAddress> all;
  for (const auto& [address, claim] : claims_) {
    if (claim.port == port) all.push_back(address);
  }
  return all;
}

const char* Guard::refuse(const Identity& who, std::span<const std::uint8_t> frame, const Packet& p,
                          AddressBook& book) {
  if (isGroup(p.source)) return "group address as source";
  if (who.mac && p.source != *who.mac) return "source MAC";
  if (p.etherType == ether::kArp) {
    auto arp = parseArp(frame, p);
    if (!arp) return "broken ARP";
    if (who.mac && arp->senderMac != *who.mac) return "sender MAC in ARP";
    return own(who, arp->sender, book) ? nullptr : "sender address in ARP";
  }
  if (!p.ip) return p.etherType == ether::kIp4 || p.etherType == ether::kIp6 ? "broken IP header" : nullptr;
  if (p.protocol == protocol::kUdp && p.payload != 0) {
    if (!p.from.v6 && p.fromPort == kDhcpServerPort) return "DHCP server";
    if (p.from.v6 && p.fromPort == 547) return "DHCPv6 server";
  }
  if (auto n = parseNeighbour(frame, p)) {
    if (n->type == Neighbour::Type::routerAdvertisement) return "router advertisement";
    if (n->type == Neighbour::Type::advertisement && !own(who, n->target, book)) return "target of an advertisement";
    bool macGiven = n->linkLayerAddress != 0 && who.mac;
    if (macGiven && !std::equal(who.mac->begin(), who.mac->end(), &frame[n->linkLayerAddress]))
      return "link-layer address";
  }
  return own(who, p.from, book) ? nullptr : "source address";
}

}  // namespace lodge::network
