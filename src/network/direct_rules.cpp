// SPDX-License-Identifier: Apache-2.0
// The guard of direct ports as nftables has it.
#include <fmt/format.h>

#include "network/direct_ports.h"

namespace lodge::network {

namespace {

/// The sets of a kind of address. Owners for good: who with what, and what; the same of those who came first.
std::string sets(const char* suffix, const char* key, const char* pair) {
  return fmt::format(
      "  set fixed{0} {{ {2}; }}\n  set taken{0} {{ {1}; }}\n"
      "  set claims{0} {{ {2}; size 65536; flags dynamic,timeout; timeout 10m; }}\n"
      "  set used{0} {{ {1}; size 65536; flags dynamic,timeout; timeout 10m; }}\n",
      suffix, key, pair);
}

/// Accepts what is its sender's, drops what is somebody else's, and comes back with what is nobody's.
std::string judge(const char* chain, const char* suffix, const char* field, const char* exceptions) {
  return fmt::format(
      "  chain {0} {{\n{3}"
      "    {2} . ether saddr @fixed{1} accept\n    {2} @taken{1} drop\n"
      "    {2} . ether saddr @claims{1} update @claims{1} {{ {2} . ether saddr }} update @used{1} {{ {2} }} accept\n"
      "    {2} @used{1} drop\n  }}\n",
      chain, suffix, field, exceptions);
}

constexpr const char* kTarget = "@th,64,128";  ///< of a neighbour advertisement (RFC 4861, 4.4)

std::string claim(const char* field, const char* suffix) {
  return fmt::format("add @claims{1} {{ {0} . ether saddr }} add @used{1} {{ {0} }} accept", field, suffix);
}

std::string hexOf(const std::uint8_t* bytes, std::size_t size) {
  std::string text = "0x";
  for (std::size_t i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

}  // namespace

std::string directTapName(const std::string& network, unsigned number) {
  std::uint32_t h = 2166136261;
  for (char c : network) h = (h ^ static_cast<std::uint8_t>(c)) * 16777619;
  return fmt::format("lp-{:05x}.{}", h & 0xfffff, number);
}

std::string directTable(const std::string& table, const std::string& uplink, bool guard) {
  std::string text = fmt::format("add table bridge {0}\ndelete table bridge {0}\ntable bridge {0} {{\n", table);
  text += "  set held { type ifname; }\n  map ports { type ifname : verdict; }\n";
  text += sets("4", "type ipv4_addr", "type ipv4_addr . ether_addr");
  text += sets("6", "type ipv6_addr", "type ipv6_addr . ether_addr");
  text += sets("t", "typeof @th,64,128", "typeof @th,64,128 . ether saddr");
  text += judge("own4", "4", "ip saddr", "    ip saddr 0.0.0.0 accept\n    ip saddr >= 224.0.0.0 drop\n");
  text += judge("ownarp", "4", "arp saddr ip", "    arp saddr ip 0.0.0.0 accept\n    arp saddr ip >= 224.0.0.0 drop\n");
  text += judge("own6", "6", "ip6 saddr", "    ip6 saddr :: accept\n    ip6 saddr ff00::/8 drop\n");
  text += judge("ownt", "t", kTarget, "");
  // Machines behind the switch: it has judged them; what is a direct port's is not theirs.
  text += "  chain switched {\n";
  if (guard) {
    text += fmt::format(
        "    ether type ip jump own4\n    ether type arp jump ownarp\n    ether type ip6 jump own6\n"
        "    ether type ip {}\n    ether type arp {}\n    ether type ip6 {}\n",
        claim("ip saddr", "4"), claim("arp saddr ip", "4"), claim("ip6 saddr", "6"));
  }
  text += "  }\n";
  text += fmt::format(
      "  chain in {{\n    type filter hook prerouting priority -300; policy accept;\n"
      "    iifname @held drop\n    iifname \"{}\" goto switched\n    iifname vmap @ports\n  }}\n"
      "  chain onward {{\n    type filter hook forward priority 0; policy accept;\n    oifname @held drop\n  }}\n"
      "  chain out {{\n    type filter hook output priority 0; policy accept;\n    oifname @held drop\n  }}\n}}\n",
      uplink);
  return text;
}

std::string directOwner(const std::string& table, const char* what, const IpAddress& address, const MacAddress& mac) {
  const char* suffix = address.v6 ? "6" : "4";
  std::string text =
      fmt::format("{0} element bridge {1} fixed{2} {{ {3} . {4} }}\n{0} element bridge {1} taken{2} {{ {3} }}\n", what,
                  table, suffix, toText(address), toText(mac));
  if (address.v6) {
    std::string target = hexOf(address.bytes.data(), 16);
    text += fmt::format("{0} element bridge {1} fixedt {{ {2} . {3} }}\n{0} element bridge {1} takent {{ {2} }}\n",
                        what, table, target, toText(mac));
  }
  return text;
}

std::string directPortRemoval(const std::string& table, const std::string& tap, unsigned number,
                              const DirectRules& before) {
  std::string text = fmt::format(
      "delete element bridge {0} ports {{ \"{1}\" }}\nadd element bridge {0} held {{ \"{1}\" }}\n"
      "delete element bridge {0} held {{ \"{1}\" }}\n",
      table, tap);
  for (const IpAddress& a : before.own) text += directOwner(table, "delete", a, before.mac);
  text += fmt::format("flush chain bridge {0} p{1}\ndelete chain bridge {0} p{1}\n", table, number);
  for (const char* suffix : {"4", "6", "t"})
    text += fmt::format("delete set bridge {0} cap{1}_{2}\n", table, suffix, number);
  return text;
}

std::string directPortRules(const std::string& table, const std::string& tap, unsigned number,
                            const DirectRules& before, const DirectRules& r) {
  std::string text = fmt::format("add chain bridge {0} p{1}\nflush chain bridge {0} p{1}\n", table, number);
  auto cap = [&](const char* suffix, const char* key) {
    // A port claims 64 addresses of a kind: a full set ends the rule, and the frame is dropped.
    text += fmt::format("add set bridge {} cap{}_{} {{ {}; size 64; flags dynamic,timeout; timeout 10m; }}\n", table,
                        suffix, number, key);
  };
  cap("4", "type ipv4_addr");
  cap("6", "type ipv6_addr");
  cap("t", "typeof @th,64,128");
  for (const IpAddress& a : before.own) text += directOwner(table, "delete", a, before.mac);
  for (const IpAddress& a : r.own) text += directOwner(table, "add", a, r.mac);
  std::string mac = hexOf(r.mac.data(), 6);
  text += fmt::format("table bridge {} {{\n  chain p{} {{\n", table, number);
  if (r.guard) {
    text += fmt::format(
        "    ether saddr != {0} drop\n    ether type {{ 8021q, 8021ad }} drop\n    arp saddr ether != {0} drop\n"
        "    ether type ip udp sport 67 drop\n    ether type ip6 udp sport 547 drop\n"
        "    icmpv6 type nd-router-advert drop\n"
        // The sender's hardware address, which neighbours note (RFC 4861, 4.6.1), is the first option or none is there.
        "    icmpv6 type nd-neighbor-solicit ip6 saddr != :: @th,192,16 != 0x0101 drop\n"
        "    icmpv6 type nd-neighbor-solicit @th,192,16 0x0101 @th,208,48 != {1} drop\n"
        "    icmpv6 type nd-router-solicit @th,64,16 0x0101 @th,80,48 != {1} drop\n"
        "    icmpv6 type nd-neighbor-advert @th,192,16 != 0x0201 drop\n"
        "    icmpv6 type nd-neighbor-advert @th,208,48 != {1} drop\n"
        "    icmpv6 type nd-neighbor-advert jump ownt\n",
        toText(r.mac), mac);
    auto rest = [&](const char* match, const char* field, const char* suffix, bool only) {
      if (!only)
        text +=
            fmt::format("    {0} add @cap{1}_{2} {{ {3} }} {4}\n", match, suffix, number, field, claim(field, suffix));
      text += fmt::format("    {} drop\n", match);
    };
    // fe80::/10 is a card's own choice in any case.
    if (r.only6) text += "    icmpv6 type nd-neighbor-advert @th,64,10 != 0x3fa drop\n";
    rest("icmpv6 type nd-neighbor-advert", kTarget, "t", false);
    text += "    ether type ip jump own4\n    ether type arp jump ownarp\n    ether type ip6 jump own6\n";
    rest("ether type ip", "ip saddr", "4", r.only4);
    rest("ether type arp", "arp saddr ip", "4", r.only4);
    rest("ether type ip6 ip6 saddr fe80::/10", "ip6 saddr", "6", false);
    rest("ether type ip6", "ip6 saddr", "6", r.only6);
  }
  text += "  }\n}\n";
  text += fmt::format("add element bridge {0} ports {{ \"{1}\" : goto p{2} }}\n", table, tap, number);
  text += fmt::format("add element bridge {0} held {{ \"{1}\" }}\n", table, tap);
  if (!r.held) text += fmt::format("delete element bridge {0} held {{ \"{1}\" }}\n", table, tap);
  return text;
}

}  // namespace lodge::network
