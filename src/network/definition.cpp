// SPDX-License-Identifier: Apache-2.0
#include "network/definition.h"

#include <fmt/format.h>

#include "base/text.h"
#include "net/forward.h"

namespace lodge::network {

namespace {

/// Reads members of an object and remembers the first that is wrong.
class Members {
 public:
  explicit Members(const Json& json) : json_(json) {}

  std::string text(const char* key) {
    const Json* value = find(key);
    if (value && !value->is_string()) return wrong(key, "is no string"), std::string();
    return value ? value->get<std::string>() : std::string();
  }
  bool flag(const char* key, bool otherwise) {
    const Json* value = find(key);
    if (value && !value->is_boolean()) return wrong(key, "is neither true nor false"), otherwise;
    return value ? value->get<bool>() : otherwise;
  }
  std::uint64_t number(const char* key, std::uint64_t otherwise, std::uint64_t max) {
    const Json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_number_unsigned() || value->get<std::uint64_t>() > max)
      return wrong(key, "is out of range"), otherwise;
    return value->get<std::uint64_t>();
  }
  template <class Function>
  void list(const char* key, Function&& function) {
    const Json* value = find(key);
    if (!value) return;
    if (!value->is_array() || value->size() > 4096) return wrong(key, "is no list");
    for (const Json& entry : *value) function(entry);
  }
  template <class T>
  void take(const char* key, Result<T> result, T& out) {
    if (result)
      out = std::move(*result);
    else
      wrong(key, result.error().message());
  }
  void wrong(const std::string& key, const std::string& why) {
    if (!error_) error_ = Error(ErrorKind::corrupt, fmt::format("member {}: {}", inQuotes(key), why));
  }
  const Json* find(const char* key) const {
    auto it = json_.find(key);
    return it == json_.end() || it->is_null() ? nullptr : &*it;
  }
  std::optional<Error> error() { return std::move(error_); }

 private:
  const Json& json_;
  std::optional<Error> error_;
};

std::string textOf(const Json& entry) {
  return entry.is_string() ? entry.get<std::string>() : std::string();
}

void readLists(Members& m, NetworkDefinition& d) {
  m.list("forwards",
         [&](const Json& entry) { m.take("forwards", parseForward(textOf(entry)), d.forwards.emplace_back()); });
  m.list("egress",
         [&](const Json& entry) { m.take("egress", egressRuleFrom(textOf(entry)), d.egress.emplace_back()); });
  m.list("tunnels", [&](const Json& entry) { m.take("tunnels", tunnelFrom(textOf(entry)), d.tunnels.emplace_back()); });
  m.list("upstreamDns", [&](const Json& entry) {
    auto address = ipFrom(textOf(entry));
    if (address)
      d.upstreamDns.push_back(*address);
    else
      m.wrong("upstreamDns", "has an entry that is no address");
  });
  m.list("leases", [&](const Json& entry) {
    if (!entry.is_object()) return m.wrong("leases", "has an entry that is no object");
    Members lease(entry);
    StaticLease out{.machine = lease.text("machine"), .mac = {}, .address = {}};
    std::string mac = lease.text("mac");
    if (!mac.empty()) out.mac = macFrom(mac);
    auto address = ipFrom(lease.text("address"));
    if (!address || (!mac.empty() && !out.mac) || (mac.empty() == out.machine.empty()))
      return m.wrong("leases", "needs an address and either a machine or a mac");
    out.address = *address;
    d.leases.push_back(std::move(out));
  });
}

}  // namespace

std::string tunnelText(const TunnelSettings& t) {
  return fmt::format("{}:{}:{}:{}", t.udp ? "udp" : "tcp", t.listens ? "listen" : "connect",
                     t.address.find(':') == std::string::npos ? t.address : "[" + t.address + "]", t.port);
}

Result<TunnelSettings> tunnelFrom(const std::string& text) {
  // The form of a forward: protocol, side, address, port.
  auto bad = [&] {
    return Error(ErrorKind::invalidArgument, inQuotes(text) + " is no tunnel")
        .withHint("write tcp:listen:ADDRESS:PORT, or udp:connect:ADDRESS:PORT");
  };
  std::size_t first = text.find(':'), last = text.rfind(':');
  std::size_t second = first == std::string::npos ? first : text.find(':', first + 1);
  if (second == std::string::npos || last <= second) return bad();
  TunnelSettings t;
  std::string protocol = text.substr(0, first), side = text.substr(first + 1, second - first - 1);
  t.udp = protocol == "udp";
  t.listens = side == "listen";
  t.address = text.substr(second + 1, last - second - 1);
  if (t.address.starts_with("[") && t.address.ends_with("]")) t.address = t.address.substr(1, t.address.size() - 2);
  auto port = parseNumber(text.substr(last + 1), 65535);
  if ((!t.udp && protocol != "tcp") || (!t.listens && side != "connect") || !ipFrom(t.address) || !port || *port == 0)
    return bad();
  t.port = static_cast<std::uint16_t>(*port);
  return t;
}

Json toJson(const NetworkDefinition& d) {
  Json json = {{"name", d.name},
               {"kind", toString(d.kind)},
               {"ipv6", d.ipv6},
               {"dhcp", d.dhcp},
               {"mtu", d.mtu},
               {"keep", d.keep},
               {"host", d.host},
               {"antiSpoof", d.antiSpoof},
               {"uplink", d.uplink},
               {"cable", toJson(d.cable)},
               {"egressAllowed", d.egressAllowed},
               {"forwards", Json::array()},
               {"leases", Json::array()},
               {"egress", Json::array()},
               {"tunnels", Json::array()},
               {"upstreamDns", Json::array()}};
  if (d.subnet) json["subnet"] = toText(*d.subnet);
  if (d.subnet6) json["subnet6"] = toText(*d.subnet6);
  for (const PortForward& f : d.forwards) json["forwards"].push_back(forwardText(f));
  for (const StaticLease& l : d.leases) {
    Json lease = {{"address", toText(l.address)}};
    if (l.mac)
      lease["mac"] = toText(*l.mac);
    else
      lease["machine"] = l.machine;
    json["leases"].push_back(std::move(lease));
  }
  for (const EgressRule& rule : d.egress) json["egress"].push_back(ruleText(rule));
  for (const TunnelSettings& t : d.tunnels) json["tunnels"].push_back(tunnelText(t));
  for (const IpAddress& a : d.upstreamDns) json["upstreamDns"].push_back(toText(a));
  return json;
}

Result<NetworkDefinition> definitionFrom(const Json& json) {
  if (!json.is_object()) return Error(ErrorKind::corrupt, "it is no JSON object");
  Members m(json);
  NetworkDefinition d;
  d.name = m.text("name");
  if (!isNetworkName(d.name)) m.wrong("name", "is no network's name");
  auto kind = kindFrom(m.text("kind"));
  if (!kind) m.wrong("kind", "is no kind of network");
  d.kind = kind.value_or(NetworkKind::user);
  for (auto [key, block] : {std::pair("subnet", &d.subnet), std::pair("subnet6", &d.subnet6)}) {
    std::string text = m.text(key);
    if (text.empty()) continue;
    IpBlock value;
    m.take(key, blockFrom(text), value);
    *block = value;
  }
  d.ipv6 = m.flag("ipv6", true);
  d.dhcp = m.flag("dhcp", true);
  d.mtu = static_cast<unsigned>(m.number("mtu", 0, 65535));
  d.keep = m.flag("keep", false);
  d.host = m.flag("host", true);
  d.antiSpoof = m.flag("antiSpoof", true);
  d.egressAllowed = m.flag("egressAllowed", true);
  d.uplink = m.text("uplink");
  if (const Json* cable = m.find("cable")) {
    auto value = cableFrom(*cable);
    if (!value) m.wrong("cable", "has values out of range");
    d.cable = value.value_or(CableSettings{});
  }
  readLists(m, d);
  if (auto error = m.error()) return std::move(*error);
  return d;
}

}  // namespace lodge::network
