// SPDX-License-Identifier: Apache-2.0
#include "network/policy_rule.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/text.h"
#include "network/packet.h"

namespace lodge::network {

namespace {

constexpr std::string_view kForm =
    "write 'allow|deny [tcp|udp|icmp] TARGET [port N|N-M]', where TARGET is an address, a block (10.0.0.0/8), a name, "
    "*.NAME or any";

bool isDomain(std::string_view text) {
  if (text.empty() || text.size() > 253 || text.front() == '.' || text.back() == '.') return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

bool parsePorts(std::string_view text, EgressRule& rule) {
  std::size_t dash = text.find('-');
  auto first = parseNumber(text.substr(0, dash), 65535);
  auto last = dash == std::string_view::npos ? first : parseNumber(text.substr(dash + 1), 65535);
  if (!first || !last || *first > *last || *first == 0) return false;
  rule.firstPort = static_cast<std::uint16_t>(*first);
  rule.lastPort = static_cast<std::uint16_t>(*last);
  return true;
}

}  // namespace

bool EgressRule::fits(std::uint8_t protocolNumber, std::uint16_t port) const {
  bool icmp = protocolNumber == protocol::kIcmp || protocolNumber == protocol::kIcmp6;
  if (protocol != 0 && protocol != protocolNumber && !(protocol == protocol::kIcmp && icmp)) return false;
  if (firstPort == 0) return true;
  return (protocolNumber == protocol::kTcp || protocolNumber == protocol::kUdp) && port >= firstPort &&
         port <= lastPort;
}

bool EgressRule::fitsName(std::string_view name) const {
  if (!subdomains) return name == domain;
  return name.size() > domain.size() + 1 && name.ends_with(domain) && name[name.size() - domain.size() - 1] == '.';
}

Result<EgressRule> egressRuleFrom(std::string_view text) {
  auto bad = [&](const std::string& why) {
    return Error(ErrorKind::invalidArgument, "egress rule " + inQuotes(text) + ": " + why).withHint(std::string(kForm));
  };
  std::vector<std::string> words;
  for (std::string_view word : split(text, ' ')) {
    if (!word.empty()) words.emplace_back(word);
  }
  EgressRule rule;
  if (words.empty() || (words[0] != "allow" && words[0] != "deny")) return bad("it begins with neither allow nor deny");
  rule.allow = words[0] == "allow";
  std::size_t at = 1;
  if (at < words.size() && (words[at] == "tcp" || words[at] == "udp" || words[at] == "icmp")) {
    rule.protocol = words[at] == "tcp" ? protocol::kTcp : words[at] == "udp" ? protocol::kUdp : protocol::kIcmp;
    ++at;
  }
  if (at >= words.size()) return bad("there is no target");
  std::string target = words[at++];
  std::transform(target.begin(), target.end(), target.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (target != "any") {
    bool numeric = target.find(':') != std::string::npos || target.find('/') != std::string::npos || ipFrom(target);
    if (numeric) {
      auto block = blockFrom(target);
      if (!block) return bad(block.error().message());
      rule.block = *block;
    } else {
      rule.subdomains = target.starts_with("*.");
      rule.domain = rule.subdomains ? target.substr(2) : target;
      if (!isDomain(rule.domain)) return bad(inQuotes(target) + " is no address, block or domain name");
    }
  }
  if (at < words.size()) {
    if (at + 2 != words.size() || words[at] != "port") return bad("there is more after the target than a port");
    if (!parsePorts(words[at + 1], rule)) return bad(inQuotes(words[at + 1]) + " is no port or range of ports");
    if (rule.protocol == protocol::kIcmp) return bad("ICMP has no ports");
  }
  return rule;
}

std::string ruleText(const EgressRule& rule) {
  std::string text = rule.allow ? "allow" : "deny";
  if (rule.protocol != 0)
    text += rule.protocol == protocol::kTcp ? " tcp" : rule.protocol == protocol::kUdp ? " udp" : " icmp";
  if (rule.block) {
    text += " " + toText(*rule.block);
  } else if (rule.wantsName()) {
    text += std::string(" ") + (rule.subdomains ? "*." : "") + rule.domain;
  } else {
    text += " any";
  }
  if (rule.firstPort != 0) {
    text += fmt::format(" port {}", rule.firstPort);
    if (rule.lastPort != rule.firstPort) text += fmt::format("-{}", rule.lastPort);
  }
  return text;
}

}  // namespace lodge::network
