// SPDX-License-Identifier: Apache-2.0
#include "network/guard.h"

#include <algorithm>
#include <array>

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

/// What a receiver may unwrap although nobody here looks inside, and what is for bridges alone (IEEE 802.1Q, 8.6.3).
const char* wrap(std::span<const std::uint8_t> frame, const Packet& p) {
  constexpr std::array<std::uint8_t, 5> kBridges = {0x01, 0x80, 0xc2, 0x00, 0x00};
  constexpr std::array<std::uint8_t, 6> kSnap = {0xaa, 0xaa, 0x03, 0x00, 0x00, 0x00};
  if (std::equal(kBridges.begin(), kBridges.end(), p.destination.begin()) && p.destination[5] < 16)
    return refusal::kBridgeGroup;
  // Receivers take any number of tags off that name no VLAN.
  if (p.etherType == ether::kVlan || p.etherType == ether::kServiceVlan) return refusal::kTag;
  auto payload = frame.subspan(p.network);
  bool snap = p.etherType <= ether::kLongest && payload.size() >= kSnap.size() &&
              std::equal(kSnap.begin(), kSnap.end(), payload.begin());
  return snap ? refusal::kSnap : nullptr;
}

/// What only servers, routers and bridges say.
const char* office(std::span<const std::uint8_t> frame, const Packet& p) {
  if (p.protocol == protocol::kUdp && p.payload != 0) {
    // Not all clients look at the port that an answer comes from.
    if (!p.from.v6 && (p.fromPort == kDhcpServerPort || p.toPort == kDhcpClientPort)) return refusal::kDhcp;
    if (p.from.v6 && (p.fromPort == 547 || p.toPort == 546)) return refusal::kDhcp6;
  }
  if (p.protocol == protocol::kPim) return refusal::kGroupRouter;
  // Linux's bridge takes any piece of IGMP for a message.
  if (!p.firstFragment) return !p.from.v6 && p.protocol == protocol::kIgmp ? refusal::kQuery : nullptr;
  // Else a later piece has what nobody looks at.
  const std::size_t room = p.end - std::min(p.transport, p.end);
  const bool icmp6 = p.from.v6 && p.protocol == protocol::kIcmp6;
  if (room == 0 || (room < 8 && (p.protocol == protocol::kUdp || icmp6))) return refusal::kBrokenIp;
  const std::uint8_t type = frame[p.transport];
  if (icmp6) {
    if (type == 134) return refusal::kRouter;
    if (type >= 151 && type <= 153) return refusal::kGroupRouter;  // RFC 4286
    return type == 137 ? refusal::kRedirect : type == 130 ? refusal::kQuery : nullptr;
  }
  if (!p.from.v6 && p.protocol == protocol::kIcmp && type == 5) return refusal::kRedirect;
  if (p.from.v6 || p.protocol != protocol::kIgmp) return nullptr;
  if (type >= 0x30 && type <= 0x32) return refusal::kGroupRouter;
  return type == 0x11 ? refusal::kQuery : nullptr;
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

bool AddressBook::usedByOther(const IpAddress& address, PortId port) const {
  auto it = claims_.find(address);
  return it != claims_.end() && !it->second.fixed && it->second.port != port && clock_.now() - it->second.seen < kQuiet;
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
  if (isGroup(p.source)) return refusal::kGroupSource;
  if (who.mac && p.source != *who.mac) return refusal::kSourceMac;
  if (const char* why = wrap(frame, p)) return why;
  if (p.etherType == ether::kArp) {
    auto arp = parseArp(frame, p);
    if (!arp) return refusal::kBrokenArp;
    if (who.mac && arp->senderMac != *who.mac) return refusal::kArpMac;
    return own(who, arp->sender, book) ? nullptr : refusal::kArpAddress;
  }
  if (!p.ip) return p.etherType == ether::kIp4 || p.etherType == ether::kIp6 ? refusal::kBrokenIp : nullptr;
  if (const char* why = office(frame, p)) return why;
  if (auto n = parseNeighbour(frame, p)) {
    if (n->type == Neighbour::Type::advertisement && !own(who, n->target, book)) return refusal::kTarget;
    bool macGiven = n->linkLayerAddress != 0 && who.mac;
    if (n->linkLayerOptions > 1 ||
        (macGiven && !std::equal(who.mac->begin(), who.mac->end(), &frame[n->linkLayerAddress])))
      return refusal::kLinkLayer;
  }
  return own(who, p.from, book) ? nullptr : refusal::kSource;
}

}  // namespace lodge::network
