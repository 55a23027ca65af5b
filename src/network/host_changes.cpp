// SPDX-License-Identifier: Apache-2.0
// What the helper moves, takes back and lets through on the host.
#include "network/host_changes.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "network/helper.h"

namespace lodge::network {

namespace {

using Json = nlohmann::json;

std::string field(const Json& json, const char* key) {
  auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : std::string();
}

Json listOf(const std::vector<std::string>& command) {
  auto text = runTool(command);
  Json list = text ? Json::parse(*text, nullptr, false) : Json();
  return list.is_array() ? list : Json::array();
}

void planRoutes(AddressMove& move, const Json& routes, bool v6, const std::string& from, const std::string& to) {
  // Routes with a gateway last: they need the others.
  for (bool via : {false, true}) {
    for (const Json& r : routes) {
      if (!r.is_object() || r.contains("gateway") != via || field(r, "protocol") == "kernel") continue;
      std::string route = fmt::format("route replace {}", field(r, "dst"));
      if (via) route += " via " + field(r, "gateway");
      if (r.contains("metric")) route += " metric " + r["metric"].dump();
      move.there += fmt::format("{} dev {}\n", route, to);
      move.back += fmt::format("{} dev {}\n", route, from);
      if (via && !v6) move.gateway = field(r, "gateway");
    }
  }
}

/// The rules, as iptables(8) takes them after -I or -D FORWARD.
std::vector<std::vector<std::string>> forwardRules(const std::string& network, const std::string& bridge) {
  std::vector<std::string> comment = {"-m", "comment", "--comment", "lodge network " + network, "-j", "ACCEPT"};
  std::vector<std::vector<std::string>> rules = {
      {"-i", bridge}, {"-o", bridge, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED,DNAT"}};
  for (auto& rule : rules) rule.insert(rule.end(), comment.begin(), comment.end());
  return rules;
}

Result<std::string> forwardRule(const char* program, const char* how, const std::vector<std::string>& rule) {
  std::vector<std::string> command = {program, "-w", "5", how, "FORWARD"};
  command.insert(command.end(), rule.begin(), rule.end());
  return runTool(command);
}

constexpr const char* kFirewalls[] = {"iptables", "ip6tables"};

}  // namespace

Result<AddressMove> planMove(const std::string& from, const std::string& to) {
  AddressMove move;
  Json cards = listOf({"ip", "-j", "addr", "show", "dev", from});
  if (cards.empty() || !cards[0].is_object() || !cards[0].contains("addr_info"))
    return Error(ErrorKind::io, "the addresses of '" + from + "' cannot be read");
  for (const Json& a : cards[0]["addr_info"]) {
    if (field(a, "scope") == "link" || !a.contains("prefixlen")) continue;
    std::string address = fmt::format("{}/{}", field(a, "local"), a["prefixlen"].dump());
    std::string extra = field(a, "family") == "inet6"   ? " nodad"
                        : field(a, "broadcast").empty() ? ""
                                                        : " brd " + field(a, "broadcast");
    move.there += fmt::format("addr del {} dev {}\naddr add {} dev {}{}\n", address, from, address, to, extra);
    move.back += fmt::format("addr del {} dev {}\naddr add {} dev {}{}\n", address, to, address, from, extra);
  }
  planRoutes(move, listOf({"ip", "-j", "route", "show", "dev", from}), false, from, to);
  Json routes6 = listOf({"ip", "-6", "-j", "route", "show", "dev", from});
  planRoutes(move, routes6, true, from, to);
  for (const Json& r : routes6) {
    std::string prefix = r.is_object() && field(r, "protocol") == "kernel" ? field(r, "dst") : "";
    if (!prefix.empty() && !prefix.starts_with("fe80:")) move.left.push_back(prefix);
  }
  return move;
}

void takeDownBridge(const std::string& bridge) {
  Json facts = listOf({"ip", "-j", "link", "show", "dev", bridge});
  if (facts.empty() || !field(facts[0], "ifalias").starts_with("lodge network ")) return;
  for (const Json& member : listOf({"ip", "-j", "link", "show", "master", bridge})) {
    std::string card = field(member, "ifname");
    if (card.empty() || card.starts_with("lt-") || card.starts_with("lp-"))
      continue;  // ours: they go with their descriptors
    auto move = planMove(bridge, card);
    std::string lines = fmt::format("link set {} nomaster\n{}", card, move ? move->there : "");
    (void)runTool({"ip", "-force", "-batch", "-"}, lines);
  }
  (void)runTool({"ip", "link", "del", bridge});
}

bool openForward(const std::string& network, const std::string& bridge) {
  bool any = false;
  for (const char* program : kFirewalls) {
    auto chain = runTool({program, "-w", "5", "-S", "FORWARD"});
    if (!chain || chain->find("-P FORWARD DROP") == std::string::npos) continue;
    any = true;
    for (const auto& rule : forwardRules(network, bridge)) (void)forwardRule(program, "-I", rule);
  }
  return any;
}

void closeForward(const std::string& network, const std::string& bridge) {
  for (const char* program : kFirewalls) {
    for (const auto& rule : forwardRules(network, bridge)) {
      if (!forwardRule(program, "-D", rule)) break;
    }
  }
}

}  // namespace lodge::network
