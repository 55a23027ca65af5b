// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/network_common.h"
#include "network/client.h"
#include "network/store.h"

namespace lodge::cli {

namespace {

using network::Json;
using network::NetworkDefinition;

int printJson(const Json& json) {
  return print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n") ? exit_status::kSuccess
                                                                                : exit_status::kLodgeError;
}

std::string subnetOf(const NetworkDefinition& d) {
  return d.subnet ? toText(*d.subnet) : d.uplink.empty() ? "-" : d.uplink;
}

int list(const Invocation& invocation, const Program&) {
  auto store = network::Store::open();
  if (!store) return fail(store.error());
  std::vector<Error> broken;
  Json json = Json::array();
  std::vector<std::vector<std::string>> rows = {{"NAME", "KIND", "STATE", "SUBNET", "PORTS"}};
  for (const NetworkDefinition& d : store->all(&broken)) {
    auto reply = network::ask(d.name, {{"do", "describe"}});
    std::size_t machines = 0;
    if (reply) {
      for (const Json& port : (*reply)["network"]["ports"]) machines += port.value("role", "") == "machine" ? 1 : 0;
    }
    rows.push_back(
        {d.name, std::string(toString(d.kind)), reply ? "up" : "down", subnetOf(d), std::to_string(machines)});
    Json entry = toJson(d);
    entry["up"] = reply.ok();
    entry["machines"] = machines;
    json.push_back(std::move(entry));
  }
  for (const Error& error : broken) fail(error);
  if (invocation.has("json")) return printJson(json);
  return print(columns(rows, {4})) ? exit_status::kSuccess : exit_status::kLodgeError;
}

/// How a machine's frames go: through the network's switch, or by a device of its own in the host's bridge.
std::string wayOf(const Json& port) {
  if (port.value("role", "") != "machine") return "-";
  Json direct = port.value("direct", Json());
  if (!direct.is_object()) return "switch";
  if (direct.value("held", false)) return "switch, held";
  return direct.value("vhost", false) ? "bridge, vhost" : "bridge";
}

std::string portRows(const Json& ports) {
  std::vector<std::vector<std::string>> rows = {
      {"PORT", "ROLE", "LINK", "BY", "MAC", "ADDRESSES", "VLAN", "IN", "OUT", "DROPPED"}};
  for (const Json& p : ports) {
    std::vector<std::string> addresses;
    for (const char* key : {"addresses", "seen"}) {
      if (!p.contains(key)) continue;
      for (const Json& a : p[key]) {
        std::string text = a.get<std::string>();
        bool local = text.starts_with("fe80:");
        if (!local && std::find(addresses.begin(), addresses.end(), text) == addresses.end()) addresses.push_back(text);
      }
    }
    const Json& c = p["counters"];
    auto number = [&](const char* key) { return c.value(key, std::uint64_t{0}); };
    std::string vlan = std::to_string(p.value("vlan", 1));
    if (p.contains("trunk")) vlan += "+tagged";
    rows.push_back(
        {p.value("name", ""), p.value("role", ""), p.value("up", true) ? "up" : "down", wayOf(p), p.value("mac", "-"),
         addresses.empty() ? "-" : join(addresses, " "), vlan, std::to_string(number("framesIn")),
         std::to_string(number("framesOut")),
         std::to_string(number("spoofed") + number("refused") + number("shapedAway") + number("whileDown"))});
  }
  return columns(rows, {7, 8, 9});
}

std::string policyText(const NetworkDefinition& d) {
  if (d.egress.empty() && d.egressAllowed) return "";
  std::string text = "egress:\n";
  for (const auto& rule : d.egress) text += "  " + ruleText(rule) + "\n";
  return text + "  " + (d.egressAllowed ? "allow" : "deny") + " everything else\n";
}

/// The refusals that the network's process wrote to its log, the last ones.
std::string refusals(const std::string& name) {
  auto folder = network::runtimeFolderOf(name);
  auto content = folder ? readFile(*folder + "/log", 8 << 20) : Result<std::vector<std::byte>>(folder.error());
  if (!content) return "";
  std::vector<std::string> found;
  for (std::string_view line : split({reinterpret_cast<const char*>(content->data()), content->size()}, '\n')) {
    bool refusal = line.find(" refused by rule ") != std::string_view::npos ||
                   line.find(" not its own: ") != std::string_view::npos;
    if (refusal) found.emplace_back(line);
  }
  std::string text;
  for (std::size_t i = found.size() > 10 ? found.size() - 10 : 0; i < found.size(); ++i) text += "  " + found[i] + "\n";
  return text.empty() ? text : "refused lately:\n" + text;
}

int show(const Invocation& invocation, const Program&) {
  const std::string& name = invocation.arguments()[0];
  auto store = network::Store::open();
  if (!store) return fail(store.error());
  auto d = store->load(name);
  if (!d) return fail(d.error());
  auto reply = network::ask(name, {{"do", "describe"}});
  if (invocation.has("json")) {
    Json json = {{"definition", toJson(*d)}, {"up", reply.ok()}};
    if (reply) json.update((*reply)["network"]);
    return printJson(json);
  }
  std::string text = fmt::format("name: {}\nkind: {}\nstate: {}\nsubnet: {}\n", d->name, toString(d->kind),
                                 reply ? "up" : "down", subnetOf(*d));
  if (d->subnet6 && d->ipv6) text += "subnet6: " + toText(*d->subnet6) + "\n";
  if (!d->uplink.empty()) text += "uplink: " + d->uplink + "\n";
  unsigned mtu = reply ? (*reply)["network"].value("mtu", d->mtu) : d->mtu;
  if (mtu != 1500 && mtu != 0) text += fmt::format("mtu: {}\n", mtu);
  if (d->cable.rate != 0) text += "rate: " + network::rateText(d->cable.rate) + "\n";
  for (const PortForward& f : d->forwards) text += "forward: " + network::forwardText(f) + "\n";
  for (const auto& l : d->leases)
    text += fmt::format("lease: {}={}\n", l.mac ? toText(*l.mac) : l.machine, toText(l.address));
  for (const auto& t : d->tunnels) text += "tunnel: " + network::tunnelText(t) + "\n";
  text += policyText(*d);
  if (reply) {
    const Json& n = (*reply)["network"];
    if (n.contains("gateway")) text += "gateway: " + n["gateway"].get<std::string>() + "\n";
    if (n.contains("nameServer")) text += "name server: " + n["nameServer"].get<std::string>() + "\n";
    text += refusals(name) + "\n" + portRows(n["ports"]);
  }
  return print(text) ? exit_status::kSuccess : exit_status::kLodgeError;
}

int leases(const Invocation& invocation, const Program&) {
  auto reply = network::ask(invocation.arguments()[0], {{"do", "leases"}});
  if (!reply) return fail(reply.error());
  if (invocation.has("json")) return printJson((*reply)["leases"]);
  std::vector<std::vector<std::string>> rows = {{"ADDRESS", "MAC", "NAME", "ENDS"}};
  for (const Json& l : (*reply)["leases"]) {
    rows.push_back(
        {l.value("address", ""), l.value("mac", ""), l.value("name", ""),
         l.value("fixed", false) ? "never" : "in " + formatDuration(l.value("secondsLeft", std::uint64_t{0}))});
  }
  return print(columns(rows)) ? exit_status::kSuccess : exit_status::kLodgeError;
}

const OptionSpec kJson = {.name = "json", .help = "All that is known, as JSON."};

}  // namespace

VerbSpec networkList() {
  return {.name = "network list",
          .summary = "list networks",
          .description = "Lists the user's networks, up or not.",
          .options = {kJson},
          .run = list};
}

VerbSpec networkShow() {
  return {
      .name = "network show",
      .summary = "show a network",
      .description =
          "Shows a network's description and, if it is up, its ports with their addresses and counters "
          "(frames in: from the machine), how their frames go (by the network's switch, or by a device in the host's "
          "bridge, which the host's kernel may serve: vhost), and what its egress rules and its guard refused lately.",
      .arguments = {networkArgument()},
      .options = {kJson},
      .run = show};
}

VerbSpec networkLeases() {
  return {.name = "network leases",
          .summary = "list a network's addresses by DHCP",
          .description = "Lists what the network's DHCP server has given out or reserved.",
          .arguments = {networkArgument()},
          .options = {kJson},
          .run = leases};
}

}  // namespace lodge::cli
