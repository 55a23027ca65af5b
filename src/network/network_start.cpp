// SPDX-License-Identifier: Apache-2.0
// How a network comes up: addresses, the way out, services, tunnels.
#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "net/message_net.h"
#include "network/mac_translator.h"
#include "network/network.h"
#include "network/tunnel.h"
#include "network/uplink_filter.h"

namespace lodge::network {

namespace {

/// A hardware address of the network's own, the same at each start.
MacAddress ownMac(const std::string& name, std::uint8_t number) {
  std::uint32_t h = 2166136261;
  for (char c : name) h = (h ^ static_cast<std::uint8_t>(c)) * 16777619;
  return {
      0x52,  0x4c, static_cast<std::uint8_t>(h >> 16), static_cast<std::uint8_t>(h >> 8), static_cast<std::uint8_t>(h),
      number};
}

std::uint32_t firstLease(const NetworkDefinition& d) {
  return d.subnet->prefix <= 26 ? 15 : 4;
}

}  // namespace

/// User networks keep the places that the NAT of a single machine has; others have the gateway first.
void Network::layOut() {
  if (!definition_.subnet) return;
  const IpBlock& block = *definition_.subnet;
  bool user = definition_.userUplink();
  bool router = user || definition_.kind == NetworkKind::nat || definition_.kind == NetworkKind::internal;
  if (router) gateway_ = block.at(user ? 2 : 1);
  serviceAddress_ = block.at(user ? 3 : 2);
  if (definition_.ipv6 && definition_.subnet6) serviceAddress6_ = definition_.subnet6->at(user ? 3 : 2);
  book_.assign(block.base, 0);
  book_.assign(block.last(), 0);
  if (gateway_) book_.assign(*gateway_, 0);
  book_.assign(*serviceAddress_, 0);
  if (serviceAddress6_) {
    book_.assign(*serviceAddress6_, 0);
    book_.assign(definition_.subnet6->at(user ? 2 : 1), 0);
  }
}

Status Network::startUplink() {
  if (definition_.userUplink()) return startUser();
  if (needsPrivilege(definition_.kind) || definition_.uplink.starts_with("tap:")) return startHelped();
  return {};
}

Status Network::startUser() {
  const IpBlock& block = *definition_.subnet;
  UserNetOptions options;
  options.network = toText(block);
  options.host = toText(*gateway_);
  options.firstLease = toText(block.at(firstLease(definition_)));
  // libslirp's own name server is out of the machines' sight.
  options.nameServer = toText(IpAddress::v4From(block.last().v4() - 1));
  if (definition_.subnet6) options.network6 = toText(*definition_.subnet6);
  options.ipv6 = definition_.ipv6;
  options.mtu = definition_.mtu;
  options.forwards = definition_.forwards;
  auto parts = openUserNetParts(loop_, options);
  if (!parts) return std::move(parts).error().context("network " + inQuotes(definition_.name));
  forwards_ = parts->control;
  uplink_ = parts->backend.get();
  auto filter = std::make_unique<UplinkFilter>(std::move(parts->backend), *serviceAddress_, serviceAddress6_);
  addPort({.name = "uplink"}, Port::Role::uplink, std::move(filter)).start();
  return {};
}

/// What needs a privilege: the helper makes it, and what comes back is a descriptor that frames go through.
Status Network::startHelped() {
  auto helper = HelperClient::start(lock_);
  std::string what = fmt::format("network {} of kind {}", inQuotes(definition_.name), toString(definition_.kind));
  if (!helper) return std::move(helper).error().context(what);
  helper_ = std::move(*helper);
  Json request = {{"name", definition_.name}, {"mtu", definition_.mtu}};
  bool segment = definition_.kind == NetworkKind::nat || definition_.kind == NetworkKind::internal;
  if (segment) {
    request["do"] = "segment";
    request["address"] = fmt::format("{}/{}", toText(*gateway_), definition_.subnet->prefix);
    if (definition_.ipv6 && definition_.subnet6)
      request["address6"] = fmt::format("{}/{}", toText(definition_.subnet6->at(1)), definition_.subnet6->prefix);
    request["masquerade"] = definition_.kind == NetworkKind::nat;
    for (const PortForward& f : definition_.forwards) request["forwards"].push_back(forwardText(f));
  } else if (definition_.kind == NetworkKind::bridge) {
    request.update({{"do", "join"}, {"card", definition_.uplink}, {"host", definition_.host}});
  } else if (definition_.kind == NetworkKind::wifi) {
    request.update({{"do", "packet"}, {"card", definition_.uplink}, {"name", definition_.name}});
  } else {
    request.update({{"do", "tap"}, {"tap", definition_.uplink.substr(4)}});
  }
  auto answer = helper_->ask(request);
  if (!answer) return std::move(answer).error().context(what);
  if (answer->fds.empty()) return Error(ErrorKind::internal, what + ": the helper gave no descriptor");
  definition_.mtu = answer->facts.value("mtu", definition_.mtu);
  auto mac = macFrom(answer->facts.value("mac", ""));
  std::unique_ptr<NetBackend> link =
      std::make_unique<MessageNet>(loop_, std::move(answer->fds[0]), MessageNet::Kind::tap);
  if (definition_.kind == NetworkKind::wifi) {
    auto translator = std::make_unique<MacTranslator>(std::move(link), mac.value_or(MacAddress{}));
    translator_ = translator.get();
    link = std::move(translator);
  }
  uplink_ = link.get();
  Port& port = addPort({.name = "uplink"}, Port::Role::uplink, std::move(link));
  if (segment && mac) {
    routerMac_ = mac;
    switch_.pin(port.id(), *mac);
  }
  port.start();
  if (translator_ && mac && answer->fds.size() > 1) startHostLeg(*answer, *mac);
  return {};
}

/// The host's end of a wifi network: the tap device that the helper made beside the card's socket.
void Network::startHostLeg(Message& answer, const MacAddress& cardMac) {
  auto mac = macFrom(answer.facts.value("hostMac", ""));
  std::string tap = answer.facts.value("tap", "");
  if (!mac) return;
  auto route = [this, tap](const IpAddress& machine, const IpAddress& from, bool set) -> Status {
    auto done = helper_->ask(
        {{"do", "route"}, {"tap", tap}, {"address", toText(machine)}, {"from", toText(from)}, {"set", set}});
    return done ? Status() : Status(std::move(done).error());
  };
  auto leg = std::make_unique<HostLeg>(
      loop_, std::make_unique<MessageNet>(loop_, std::move(answer.fds[1]), MessageNet::Kind::tap), *mac, cardMac,
      [card = definition_.uplink] { return placesOf(card); }, std::move(route),
      [this](const Frame& frame) { translator_->sendAsIs(frame); });
  hostLeg_ = leg.get();
  translator_->watch([this](const IpAddress& address, const MacAddress& m) { hostLeg_->machineHas(address, m); },
                     [this](const IpAddress& address) { hostLeg_->claimedElsewhere(address); });
  Port& port = addPort({.name = "host", .mac = mac}, Port::Role::uplink, std::move(leg));
  switch_.pin(port.id(), *mac);
  port.start();
}

void Network::startServices() {
  // A switch without DHCP at the end of a tunnel is a part of the other one, which has the services.
  bool elsewhere = !definition_.tunnels.empty() && !definition_.dhcp && !definition_.userUplink();
  if (!serviceAddress_ || !definition_.subnet || elsewhere) return;
  const IpBlock& block = *definition_.subnet;
  if (definition_.dhcp) {
    DhcpSettings settings{.subnet = block,
                          .server = *serviceAddress_,
                          .router = gateway_,
                          .nameServer = serviceAddress_,
                          .first = block.at(firstLease(definition_)),
                          .last = IpAddress::v4From(block.last().v4() - 2),
                          .domain = definition_.domain(),
                          .mtu = definition_.mtu};
    dhcp_ = std::make_unique<DhcpServer>(std::move(settings), loop_.clock());
    for (const StaticLease& lease : definition_.leases) {
      if (lease.mac) dhcp_->reserve(*lease.mac, lease.address, lease.machine);
    }
  }
  dns_ = std::make_unique<DnsServer>(
      loop_, definition_.domain(), [this](const std::string& name) { return addressesOf(name); },
      [this](const IpAddress& address) { return nameOf(address); }, definition_.upstreamDns);
  Services::Settings settings{.mac = ownMac(definition_.name, 1),
                              .address = *serviceAddress_,
                              .address6 = serviceAddress6_,
                              .router = {},
                              .mtu = definition_.mtu};
  // What routers and name servers have on the link is nobody's else, either.
  if (serviceAddress6_) {
    book_.assign(linkLocalOf(settings.mac), 0);
    if (routerMac_) book_.assign(linkLocalOf(*routerMac_), 0);
    if (auto nat = ipFrom("fe80::2"); nat && definition_.userUplink()) book_.assign(*nat, 0);  // libslirp's
  }
  if (!definition_.userUplink() && serviceAddress6_) {
    bool routed = definition_.kind == NetworkKind::nat && routerMac_;
    Endpoint router = routerMac_ ? Endpoint{*routerMac_, linkLocalOf(*routerMac_), 0}
                                 : Endpoint{settings.mac, linkLocalOf(settings.mac), 0};
    settings.router = RouterFacts{router, *definition_.subnet6, serviceAddress6_, definition_.mtu, routed};
  }
  auto services = std::make_unique<Services>(
      loop_, settings, dhcp_.get(), dns_.get(), [this](const MacAddress& mac) { return clientOf(mac); },
      [this](const Lease& lease) {
        for (const auto& [id, port] : ports_) {
          if (port->settings().mac != lease.mac) continue;
          book_.assign(lease.address, id);
        }
        (void)settleAll();
        if (leased_) leased_();
      });
  PortSettings port{.name = "services", .mac = ownMac(definition_.name, 1)};
  Port& added = addPort(port, Port::Role::services, std::move(services));
  added.apply(port, {}, false);
  added.start();
}

Status Network::startTunnels() {
  for (const TunnelSettings& settings : definition_.tunnels) {
    auto tunnel = std::make_unique<Tunnel>(loop_, settings);
    if (Status started = tunnel->start(); !started)
      return std::move(started).error().context("network " + inQuotes(definition_.name));
    addPort({.name = tunnelText(settings)}, Port::Role::tunnel, std::move(tunnel)).start();
  }
  return {};
}

}  // namespace lodge::network
