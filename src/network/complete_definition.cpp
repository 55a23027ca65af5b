// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "base/text.h"
#include "network/definition.h"

namespace lodge::network {

namespace {

using Taken = std::vector<std::pair<std::string, IpBlock>>;

Error invalid(const NetworkDefinition& d, const std::string& why) {
  return Error(ErrorKind::invalidArgument, fmt::format("network {}: {}", inQuotes(d.name), why));
}

std::uint32_t hash(std::string_view text) {
  std::uint32_t h = 2166136261;
  for (char c : text) h = (h ^ static_cast<std::uint8_t>(c)) * 16777619;
  return h;
}

const std::string* overlapping(const IpBlock& block, const Taken& taken) {
  for (const auto& [who, other] : taken) {
    if (other.prefix != 0 && block.overlaps(other)) return &who;
  }
  return nullptr;
}

/// The kinds whose machines Lodge itself gives addresses to.
bool hasSubnet(const NetworkDefinition& d) {
  if (d.kind == NetworkKind::bridge || d.kind == NetworkKind::wifi) return false;
  return d.kind != NetworkKind::switched || d.uplink.empty() || d.uplink == "user";
}

Status chooseSubnet(NetworkDefinition& d, const Taken& taken) {
  if (d.userUplink()) {
    d.subnet = *blockFrom("10.0.2.0/24");
    return {};
  }
  for (std::uint32_t n = 0; n < 150; ++n) {
    IpBlock block{IpAddress::v4From(0xc0a80000 | (100 + (hash(d.name) + n) % 150) << 8), 24};
    if (overlapping(block, taken)) continue;
    d.subnet = block;
    return {};
  }
  return Error(ErrorKind::busy, "network " + inQuotes(d.name) + ": no block of 192.168.0.0/16 is free")
      .withHint("choose one with --subnet");
}

Status checkSubnet(const NetworkDefinition& d, const Taken& taken) {
  if (d.subnet->base.v6) return invalid(d, "--subnet takes IPv4 addresses; IPv6 ones go to --subnet6");
  if (d.subnet->prefix < 8 || d.subnet->prefix > 28)
    return invalid(d, fmt::format("{} is no block of /8 to /28", toText(*d.subnet)));
  if (d.subnet->base.multicast() || d.subnet->base.bytes[0] == 127 || d.subnet->base.bytes[0] == 0)
    return invalid(d, toText(*d.subnet) + " has no addresses for machines");
  if (d.subnet6 && (!d.subnet6->base.v6 || d.subnet6->prefix != 64 || d.subnet6->base.multicast()))
    return invalid(d, "--subnet6 takes a /64 of IPv6");
  // User networks are seen by nobody but their own machines: each may have the same addresses.
  if (d.userUplink()) return {};
  if (const std::string* who = overlapping(*d.subnet, taken)) {
    return Error(ErrorKind::busy,
                 fmt::format("network {}: {} overlaps with {}", inQuotes(d.name), toText(*d.subnet), *who))
        .withHint("choose another block with --subnet, or leave it out");
  }
  return {};
}

Status checkLeases(const NetworkDefinition& d) {
  for (std::size_t i = 0; i < d.leases.size(); ++i) {
    const StaticLease& lease = d.leases[i];
    if (lease.address.v6 || !d.subnet->contains(lease.address))
      return invalid(d, fmt::format("the address {} is not in {}", toText(lease.address), toText(*d.subnet)));
    std::uint32_t number = lease.address.v4() - d.subnet->base.v4();
    if (number <= 3 || lease.address == d.subnet->last())
      return invalid(d, toText(lease.address) + " is one of the network's own addresses");
    for (std::size_t k = 0; k < i; ++k) {
      if (d.leases[k].address == lease.address) return invalid(d, toText(lease.address) + " is given twice");
    }
  }
  return {};
}

}  // namespace

Status completeDefinition(NetworkDefinition& d, const Taken& taken) {
  bool card = d.kind == NetworkKind::bridge || d.kind == NetworkKind::wifi;
  if (card && d.uplink.empty())
    return std::move(invalid(d, fmt::format("a network of kind {} needs the host's card", toString(d.kind))))
        .withHint("write --uplink eth0; 'ip -br link' lists the cards");
  if (!card && d.kind != NetworkKind::switched && !d.uplink.empty())
    return invalid(d, fmt::format("a network of kind {} has no --uplink", toString(d.kind)));
  if (d.kind == NetworkKind::switched && !d.uplink.empty() && d.uplink != "user" && !d.uplink.starts_with("tap:"))
    return std::move(invalid(d, "a switch has no uplink " + inQuotes(d.uplink)))
        .withHint("there are user and tap:NAME");
  if (d.mtu == 0 && !card && !d.uplink.starts_with("tap:")) d.mtu = 1500;
  if (d.mtu != 0 && (d.mtu < 576 || d.mtu > 65521)) return invalid(d, "the MTU must be 576 to 65521");
  if (!d.forwards.empty() && !d.userUplink() && d.kind != NetworkKind::nat)
    return invalid(d, fmt::format("a network of kind {} has no forwards", toString(d.kind)));
  for (const PortForward& f : d.forwards) {
    if (d.kind == NetworkKind::nat && f.guestAddress.empty())
      return std::move(invalid(d, "forward " + forwardText(f) + " names no machine's address"))
          .withHint("write tcp::8080:192.168.50.10:80; --lease gives a machine an address that stays");
  }
  if (!d.tunnels.empty() && d.kind != NetworkKind::switched) return invalid(d, "only a switch has tunnels");
  if (!hasSubnet(d)) {
    if (d.subnet || d.subnet6 || !d.leases.empty())
      return std::move(invalid(d, "its addresses come from the network that it joins"))
          .withHint("leave --subnet and --lease out");
    return {};
  }
  if (!d.subnet) {
    if (Status chosen = chooseSubnet(d, taken); !chosen) return chosen;
  }
  if (d.ipv6 && !d.subnet6) {
    std::uint32_t h = hash(d.name), g = hash(d.name + "6");
    d.subnet6 = IpBlock{IpAddress{true,
                                  {0xfd, static_cast<std::uint8_t>(h >> 24), static_cast<std::uint8_t>(h >> 16),
                                   static_cast<std::uint8_t>(h >> 8), static_cast<std::uint8_t>(h),
                                   static_cast<std::uint8_t>(g >> 8), static_cast<std::uint8_t>(g)}},
                        64};
  }
  if (Status checked = checkSubnet(d, taken); !checked) return checked;
  return checkLeases(d);
}

}  // namespace lodge::network
