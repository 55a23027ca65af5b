// SPDX-License-Identifier: Apache-2.0
#include "network/network.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/log.h"
#include "base/text.h"

namespace lodge::network {

namespace {

constexpr std::size_t kMostPorts = 1024;

std::string portName(const PortSettings& settings) {
  return settings.name.empty() ? "a port" : inQuotes(settings.name);
}

}  // namespace

Network::Network(EventLoop& loop, NetworkDefinition definition)
    : loop_(loop),
      definition_(std::move(definition)),
      switch_(loop.clock()),
      book_(loop.clock()),
      fromBridge_([this](std::span<const std::uint8_t> frame) { return admitsFromBridge(frame); }) {}

Network::~Network() {
  *alive_ = false;
  bridged_.clear();
  ports_.clear();
  if (!helper_ || helper_->alive()) return;
  // A helper that was killed left what it made: another one takes it down.
  helper_.reset();
  auto other = HelperClient::start(lock_);
  if (other) [[maybe_unused]]
    auto cleaned = (*other)->ask({{"do", "clean"}, {"name", definition_.name}});
}

Status Network::start() {
  layOut();
  if (Status up = startUplink(); !up) return up;
  startServices();
  return startTunnels();
}

DhcpServer::Client Network::clientOf(const MacAddress& source) const {
  DhcpServer::Client client;
  PortId own = 0;
  for (const auto& [id, port] : ports_) {
    if (port->settings().mac != source) continue;
    client.name = port->settings().name;
    client.mac = source;
    own = id;
    break;
  }
  client.used = [this, own](const IpAddress& address) { return book_.usedByOther(address, own); };
  return client;
}

/// Who a name of the network belongs to: a machine's port, or a lease of somebody without one.
std::vector<IpAddress> Network::addressesOf(const std::string& name) const {
  std::vector<IpAddress> all;
  auto add = [&](const IpAddress& a) {
    if (std::find(all.begin(), all.end(), a) == all.end()) all.push_back(a);
  };
  auto lower = [](std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    return text;
  };
  std::string wanted = lower(name);
  if (wanted == "gateway" && gateway_) add(*gateway_);
  if (dhcp_) {
    for (const Lease& lease : dhcp_->leases()) {
      if (lower(lease.name) == wanted) add(lease.address);
    }
  }
  for (const auto& [id, port] : ports_) {
    if (port->role() != Port::Role::machine || lower(port->settings().name) != wanted) continue;
    for (const IpAddress& a : port->settings().addresses) add(a);
    for (const IpAddress& a : book_.addressesOf(id)) {
      bool ours = (definition_.subnet && definition_.subnet->contains(a)) ||
                  (definition_.subnet6 && definition_.subnet6->contains(a));
      if (ours) add(a);
    }
  }
  return all;
}

std::string Network::nameOf(const IpAddress& address) const {
  if (dhcp_) {
    for (const Lease& lease : dhcp_->leases()) {
      if (lease.address == address) return lease.name;
    }
  }
  auto owner = book_.ownerOf(address);
  auto port = owner ? ports_.find(*owner) : ports_.end();
  return port == ports_.end() ? std::string() : port->second->settings().name;
}

Port* Network::named(const std::string& name) {
  for (auto& [id, port] : ports_) {
    if (port->settings().name == name) return port.get();
  }
  return nullptr;
}

Port& Network::addPort(PortSettings settings, Port::Role role, std::unique_ptr<NetBackend> link) {
  auto port = std::make_unique<Port>(context(), settings, role, std::move(link));
  Port& added = *port;
  ports_[added.id()] = std::move(port);
  return added;
}

/// Whether what a port asks for is to be had; fills in the address that the network's file has for the machine.
Status Network::admit(PortSettings& settings, PortId self) {
  for (const StaticLease& lease : definition_.leases) {
    bool meant = lease.mac ? lease.mac == settings.mac : lease.machine == settings.name;
    if (meant && settings.addresses.empty()) settings.addresses.push_back(lease.address);
  }
  for (const auto& [id, port] : ports_) {
    if (id == self) continue;
    if (settings.mac && port->settings().mac == settings.mac) {
      return Error(ErrorKind::busy, fmt::format("network {}: the address {} belongs to {}", inQuotes(definition_.name),
                                                toText(*settings.mac), portName(port->settings())))
          .withHint("choose another with mac=");
    }
    for (const IpAddress& a : settings.addresses) {
      const auto& theirs = port->settings().addresses;
      if (std::find(theirs.begin(), theirs.end(), a) == theirs.end()) continue;
      return Error(ErrorKind::busy, fmt::format("network {}: the address {} belongs to {}", inQuotes(definition_.name),
                                                toText(a), portName(port->settings())))
          .withHint("choose another with ip=");
    }
  }
  for (const IpAddress& a : settings.addresses) {
    const auto& block = a.v6 ? definition_.subnet6 : definition_.subnet;
    if (block && !block->contains(a))
      return Error(ErrorKind::invalidArgument,
                   fmt::format("network {}: {} is not in {}", inQuotes(definition_.name), toText(a), toText(*block)));
    auto owner = book_.ownerOf(a);
    if (owner == PortId{0} || a == gateway_ || a == serviceAddress_ || a == serviceAddress6_)
      return Error(ErrorKind::busy,
                   fmt::format("network {}: {} is the network's own", inQuotes(definition_.name), toText(a)));
    if (!a.v6 && dhcp_ && settings.mac && !dhcp_->reserve(*settings.mac, a, settings.name)) {
      return Error(ErrorKind::busy,
                   fmt::format("network {}: {} is leased to somebody else", inQuotes(definition_.name), toText(a)))
          .withHint("'lodge network leases' lists who has what");
    }
  }
  return {};
}

void Network::setTap(Port::Tap tap) {
  bool turned = bool(tap) != bool(tap_);
  tap_ = std::move(tap);
  if (turned) (void)settleAll();
}

Status Network::applyTo(Port& port, const PortSettings& settings) {
  port.apply(settings, settings.cable.value_or(definition_.cable), settings.antiSpoof.value_or(definition_.antiSpoof));
  setFilter(port);
  applyMirrors();
  return settleAll();
}

void Network::applyMirrors() {
  std::map<std::string, PortId> mirrors;  // by the name of whom they show
  for (const auto& [id, port] : ports_) {
    if (!port->settings().mirrorOf.empty()) mirrors[port->settings().mirrorOf] = id;
  }
  for (const auto& [id, port] : ports_) {
    auto mirror = mirrors.find(port->settings().name);
    switch_.mirror(id, mirror == mirrors.end() ? std::nullopt : std::optional<PortId>(mirror->second));
  }
}

Result<PortId> Network::join(PortSettings settings, std::unique_ptr<NetBackend> link) {
  if (ports_.size() >= kMostPorts)
    return Error(ErrorKind::busy,
                 fmt::format("network {} has {} ports, the most there can be", inQuotes(definition_.name), kMostPorts));
  if (Status admitted = admit(settings, 0); !admitted) return std::move(admitted).error();
  Port& port = addPort(settings, Port::Role::machine, std::move(link));
  if (Status applied = applyTo(port, settings); !applied && port.direct()) {
    unsettle(port);
    ports_.erase(port.id());
    return std::move(applied).error();
  }
  if (dhcp_ && settings.mac) {
    dhcp_->rename(*settings.mac, settings.name);
    if (auto lease = dhcp_->here(*settings.mac)) {
      book_.assign(lease->address, port.id());
      (void)settleAll();
    }
  }
  log(LogLevel::info, "{} joined as port {}", portName(settings), port.id());
  return port.id();
}

void Network::leave(PortId id) {
  auto it = ports_.find(id);
  if (it == ports_.end()) return;
  const PortSettings& settings = it->second->settings();
  log(LogLevel::info, "{} left", portName(settings));
  if (dhcp_ && settings.mac) dhcp_->left(*settings.mac);
  if (settings.mac && hostLeg_) hostLeg_->forget(*settings.mac);
  if (settings.mac && translator_) translator_->forget(*settings.mac);
  unsettle(*it->second);
  ports_.erase(it);
  (void)settleAll();
}

Status Network::changePort(const std::string& name, const Json& json) {
  Port* port = named(name);
  if (!port || port->role() != Port::Role::machine)
    return Error(ErrorKind::notFound,
                 fmt::format("network {} has no port {}", inQuotes(definition_.name), inQuotes(name)))
        .withHint("'lodge network show' lists the ports");
  PortSettings settings = port->settings();
  if (Status updated = updatePort(json, settings); !updated) return updated;
  if (Status admitted = admit(settings, port->id()); !admitted) return admitted;
  return applyTo(*port, settings);
}

std::shared_ptr<const EgressPolicy> Network::policy() const {
  auto policy = std::make_shared<EgressPolicy>();
  policy->rules = definition_.egress;
  policy->allowed = definition_.egressAllowed;
  if (definition_.subnet) policy->inside.push_back(*definition_.subnet);
  if (definition_.subnet6) policy->inside.push_back(*definition_.subnet6);
  return policy;
}

void Network::setFilter(Port& port) {
  if (port.role() != Port::Role::machine) return;
  auto rules = policy();
  if (rules->empty()) return port.setFilter(nullptr);
  if (port.filter()) return port.filter()->setPolicy(rules);
  port.setFilter(std::make_unique<EgressFilter>(
      rules, loop_.clock(), [name = port.settings().name](const std::string& what, const std::string& rule) {
        log(LogLevel::warning, "egress of {} to {} refused by rule {}", inQuotes(name), what, inQuotes(rule));
      }));
}

Status Network::changeDefinition(const NetworkDefinition& definition) {
  if (forwards_) {
    auto has = [](const auto& list, const PortForward& f) {
      return std::any_of(list.begin(), list.end(), [&](const auto& o) { return forwardText(o) == forwardText(f); });
    };
    for (const PortForward& f : definition_.forwards) {
      if (!has(definition.forwards, f)) forwards_->removeForward(f);
    }
    for (const PortForward& f : definition.forwards) {
      if (has(definition_.forwards, f)) continue;
      if (Status added = forwards_->addForward(f); !added) return added;
    }
    definition_.forwards = definition.forwards;
  }
  definition_.egress = definition.egress;
  definition_.egressAllowed = definition.egressAllowed;
  definition_.cable = definition.cable;
  definition_.antiSpoof = definition.antiSpoof;
  definition_.keep = definition.keep;
  definition_.leases = definition.leases;
  Status all;
  for (auto& [id, port] : ports_) {
    if (port->role() != Port::Role::machine) continue;
    if (Status applied = applyTo(*port, PortSettings(port->settings())); !applied) all = std::move(applied);
  }
  return all;
}

std::size_t Network::machines() const {
  return static_cast<std::size_t>(std::count_if(ports_.begin(), ports_.end(),
                                                [](const auto& p) { return p.second->role() == Port::Role::machine; }));
}

Json Network::leases() const {
  Json all = Json::array();
  if (!dhcp_) return all;
  for (const Lease& lease : dhcp_->leases()) {
    Json entry = {
        {"address", toText(lease.address)}, {"mac", toText(lease.mac)}, {"name", lease.name}, {"fixed", lease.fixed}};
    if (!lease.fixed) entry["secondsLeft"] = (lease.expires - loop_.clock().now()) / kNanosecondsPerSecond;
    all.push_back(std::move(entry));
  }
  return all;
}

void Network::restoreLeases(const Json& leases) {
  if (!dhcp_ || !leases.is_array()) return;
  for (const Json& entry : leases) {
    if (!entry.is_object()) continue;
    auto text = [&](const char* key) {
      auto it = entry.find(key);
      return it != entry.end() && it->is_string() ? it->get<std::string>() : std::string();
    };
    auto address = ipFrom(text("address"));
    auto mac = macFrom(text("mac"));
    auto left = entry.find("secondsLeft");
    if (!address || !mac || left == entry.end() || !left->is_number_integer()) continue;
    auto most = static_cast<std::int64_t>(dhcp_->settings().leaseTime / kNanosecondsPerSecond);
    std::int64_t seconds = std::clamp<std::int64_t>(left->get<std::int64_t>(), 0, most);
    (void)dhcp_->restore({.mac = *mac,
                          .address = *address,
                          .name = text("name"),
                          .expires = loop_.clock().now() + static_cast<Nanoseconds>(seconds) * kNanosecondsPerSecond});
  }
}

Json Network::describe() const {
  Json json = {
      {"definition", toJson(definition_)}, {"mtu", definition_.mtu}, {"ports", Json::array()}, {"leases", leases()}};
  if (gateway_) json["gateway"] = toText(*gateway_);
  if (serviceAddress_) json["nameServer"] = toText(*serviceAddress_);
  if (serviceAddress6_) json["nameServer6"] = toText(*serviceAddress6_);
  if (helper_) json["helper"] = {{"pid", helper_->pid()}, {"alive", helper_->alive()}};
  for (const auto& [id, port] : ports_) json["ports"].push_back(port->describe());
  json["floodsDropped"] = switch_.floodsDropped();
  json["addressesRefused"] = switch_.addressesRefused();
  json["addressTable"] = Json::array();
  for (const Switch::Learnt& l : switch_.table()) {
    if (json["addressTable"].size() >= 4096) break;
    Json entry = {{"mac", toText(l.mac)}, {"port", l.port}, {"fixed", l.fixed}};
    if (!l.fixed) entry["vlan"] = l.vlan;
    json["addressTable"].push_back(std::move(entry));
  }
  return json;
}

}  // namespace lodge::network
