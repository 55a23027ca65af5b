// SPDX-License-Identifier: Apache-2.0
// Ports that are in the host's bridge themselves (network/direct_link.h).
#include <algorithm>
#include <set>

#include "base/log.h"
#include "base/text.h"
#include "network/direct_link.h"
#include "network/network.h"

namespace lodge::network {

namespace {

constexpr Nanoseconds kCountAgain = 15 * kNanosecondsPerSecond;

}  // namespace

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
  plug.existing = std::move(existing);
  return DirectLink::make(loop_, *helper_, std::move(plug));
}

/// Whose addresses are whose for good: the network's own, and what machines that are here were given or leased.
std::map<IpAddress, MacAddress> Network::givenAddresses() const {
  std::map<IpAddress, MacAddress> all;
  auto own = [&](const std::optional<IpAddress>& address, const std::optional<MacAddress>& mac) {
    if (address && mac) all[*address] = *mac;
  };
  std::map<MacAddress, IpAddress> leased;
  for (const Lease& lease : dhcp_ ? dhcp_->leases() : std::vector<Lease>()) leased[lease.mac] = lease.address;
  for (const auto& [id, port] : ports_) {
    const PortSettings& settings = port->settings();
    if (port->role() != Port::Role::machine || !settings.mac) continue;
    if (auto lease = leased.find(*settings.mac); lease != leased.end()) all[lease->second] = *settings.mac;
    for (const IpAddress& a : settings.addresses) all[a] = *settings.mac;
  }
  if (definition_.subnet) {
    all[definition_.subnet->base] = {};
    all[definition_.subnet->last()] = {};
  }
  own(gateway_, routerMac_);
  if (definition_.subnet6 && definition_.ipv6) own(definition_.subnet6->at(1), routerMac_);
  if (routerMac_) own(linkLocalOf(*routerMac_), routerMac_);
  for (const auto& [id, port] : ports_) {
    if (port->role() != Port::Role::services) continue;
    own(serviceAddress_, port->settings().mac);
    own(serviceAddress6_, port->settings().mac);
    if (port->settings().mac) own(linkLocalOf(*port->settings().mac), port->settings().mac);
  }
  return all;
}

Status Network::tellGiven() {
  constexpr std::size_t kMostAtOnce = 500;
  auto all = givenAddresses();
  while (all != given_) {
    Json set = Json::array(), unset = Json::array();
    auto next = given_;
    for (const auto& [address, mac] : given_) {
      if (all.count(address) != 0 || unset.size() >= kMostAtOnce) continue;
      unset.push_back(toText(address));
      next.erase(address);
    }
    for (const auto& [address, mac] : all) {
      auto old = given_.find(address);
      if ((old != given_.end() && old->second == mac) || set.size() >= kMostAtOnce) continue;
      set.push_back({toText(address), toText(mac)});
      next[address] = mac;
    }
    auto done = helper_->ask({{"do", "given"}, {"set", set}, {"unset", unset}});
    if (!done) return std::move(done).error();
    given_ = std::move(next);
  }
  return {};
}

/// Brings what the kernel does for a direct port, and whether it is held, in line with what is wanted of it.
Status Network::settle(Port& port) {
  DirectLink* link = port.direct();
  if (!link) return {};
  const PortSettings& settings = port.settings();
  DirectRules rules{
      .mac = settings.mac.value_or(MacAddress{}), .guard = port.guarded(), .held = needsSwitch(settings) != nullptr};
  for (const IpAddress& a : settings.addresses) (a.v6 ? rules.only6 : rules.only4) = true;
  bool was = link->held();
  bridged_.erase(link->mac());
  Status set = link->set(rules);
  if (!link->held()) bridged_[link->mac()] = &port;
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
  bool any = std::any_of(ports_.begin(), ports_.end(), [](const auto& p) { return p.second->direct() != nullptr; });
  if (!any) return {};
  Status all = tellGiven();
  if (!all) log(LogLevel::error, "the addresses of direct ports: {}", all.error().message());
  for (auto& [id, port] : ports_) {
    Status settled = settle(*port);
    if (settled) continue;
    log(LogLevel::error, "port {}: {}", inQuotes(port->settings().name), settled.error().message());
    all = std::move(settled);
  }
  if (!drops_) {
    drops_ = loop_.makeTimer([this] {
      loop_.post([this, alive = alive_] {
        if (*alive) countDrops();
      });
    });
    drops_->arm(loop_.clock().now() + kCountAgain);
  }
  return all;
}

/// A port that goes: nothing is to be known of it any more.
void Network::unsettle(const Port& port) {
  if (port.direct()) bridged_.erase(port.direct()->mac());
  bool others = std::any_of(ports_.begin(), ports_.end(), [](const auto& p) { return p.second->direct() != nullptr; });
  if (!port.direct() && others && port.settings().mac)
    (void)helper_->ask({{"do", "forget"}, {"mac", toText(*port.settings().mac)}});
}

/// Frames from the bridge that direct ports sent. The kernel has judged them by what it knows; who spoke behind the
/// switch alone is known here alone.
bool Network::admitsFromBridge(std::span<const std::uint8_t> frame) {
  if (bridged_.empty()) return true;
  MacAddress source;
  std::copy_n(frame.begin() + 6, source.size(), source.begin());
  auto it = bridged_.find(source);
  return it == bridged_.end() || it->second->guards(frame);
}

void Network::countDrops() {
  bool any = false;
  for (const auto& [id, port] : ports_) any = any || port->direct();
  if (!any || !helper_) return drops_.reset();
  if (drops_) drops_->arm(loop_.clock().now() + kCountAgain);
  auto answer = helper_->ask({{"do", "drops"}});
  if (!answer) return;
  Json all = answer->facts.value("drops", Json::object());
  for (const auto& [id, port] : ports_) {
    if (port->direct() && all.contains(port->direct()->tap())) port->kernelDropped(all[port->direct()->tap()]);
  }
}

}  // namespace lodge::network
