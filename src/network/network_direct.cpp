// SPDX-License-Identifier: Apache-2.0
// Ports that are in the host's bridge themselves (network/direct_link.h).
#include <algorithm>
#include <set>

#include "base/log.h"
#include "base/text.h"
#include "network/direct_link.h"
#include "network/network.h"

namespace lodge::network {

/// What the host's bridge cannot do for a port: then its frames go through the switch.
const char* Network::needsSwitch(const PortSettings& settings) const {
  const CableSettings& cable = settings.cable ? *settings.cable : definition_.cable;
  if (!policy()->empty()) return "has egress rules";
  if (cable.rate != 0 || cable.delay != 0 || cable.lossParts != 0) return "has a rate, a delay or a loss";
  if (!(settings.vlans == VlanMembership{})) return "is in VLANs";
  if (!settings.mirrorOf.empty()) return "is a mirror";
  bool mirrored = std::any_of(ports_.begin(), ports_.end(), [&](const auto& p) {
    return !settings.name.empty() && p.second->settings().mirrorOf == settings.name;
  });
  if (mirrored) return "is mirrored";
  if (!settings.up) return "is down";
  return tap_ ? "is captured" : nullptr;
}

Result<DirectLink::Made> Network::plug(const PortSettings& settings, unsigned queues, UniqueFd existing) {
  bool bridged = definition_.kind == NetworkKind::nat || definition_.kind == NetworkKind::internal ||
                 definition_.kind == NetworkKind::bridge;
  if (!bridged || !helper_)
    return Error(ErrorKind::unsupported, fmt::format("network {} of kind {} has no bridge of the host's",
                                                     inQuotes(definition_.name), toString(definition_.kind)))
        .withHint("direct=on is for nat, internal and bridge");
  if (!settings.mac) return Error(ErrorKind::invalidArgument, "a port in the host's bridge needs a hardware address");
  DirectLink::Plug plug{.queues = queues, .guard = definition_.antiSpoof};
  std::set<unsigned> numbers;
  for (const auto& [id, port] : ports_) {
    if (port->direct()) numbers.insert(port->direct()->number());
  }
  while (numbers.count(plug.number) != 0) ++plug.number;
  auto own = [&](const std::optional<IpAddress>& address, const std::optional<MacAddress>& mac) {
    if (address && mac) plug.network.push_back({{"address", toText(*address)}, {"mac", toText(*mac)}});
  };
  own(gateway_, routerMac_);
  if (definition_.subnet6 && definition_.ipv6) own(definition_.subnet6->at(1), routerMac_);
  for (const auto& [id, port] : ports_) {
    if (port->role() != Port::Role::services) continue;
    own(serviceAddress_, port->settings().mac);
    own(serviceAddress6_, port->settings().mac);
  }
  plug.existing = std::move(existing);
  return DirectLink::make(loop_, *helper_, std::move(plug));
}

/// Brings what the kernel does for a direct port, and whether it is held, in line with what is wanted of it.
Status Network::settle(Port& port) {
  DirectLink* link = port.direct();
  if (!link) return {};
  const PortSettings& settings = port.settings();
  DirectRules rules{.mac = settings.mac.value_or(MacAddress{}),
                    .own = settings.addresses,
                    .guard = port.guarded(),
                    .held = needsSwitch(settings) != nullptr};
  for (const IpAddress& a : settings.addresses) (a.v6 ? rules.only6 : rules.only4) = true;
  for (const Lease& lease : dhcp_ ? dhcp_->leases() : std::vector<Lease>()) {
    bool listed = std::find(rules.own.begin(), rules.own.end(), lease.address) != rules.own.end();
    if (lease.mac == settings.mac && !listed) rules.own.push_back(lease.address);
  }
  bool was = link->held();
  Status set = link->set(rules);
  // Where the switch has nothing to do with its frames, they come from the bridge as everybody's there do.
  if (link->held())
    switch_.pin(port.id(), rules.mac);
  else
    switch_.unpin(port.id(), rules.mac);
  if (set && was != link->held())
    log(LogLevel::info, "port {} {} the host's bridge", inQuotes(settings.name), was ? "is in" : "leaves");
  return set;
}

Status Network::settleAll() {
  Status all;
  for (auto& [id, port] : ports_) {
    Status settled = settle(*port);
    if (settled) continue;
    log(LogLevel::error, "port {}: {}", inQuotes(port->settings().name), settled.error().message());
    all = std::move(settled);
  }
  return all;
}

}  // namespace lodge::network
