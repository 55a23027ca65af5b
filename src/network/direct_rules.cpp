// SPDX-License-Identifier: Apache-2.0
// The guard of direct ports as nftables has it.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "network/direct_ports.h"
#include "network/guard.h"

namespace lodge::network {

namespace {

constexpr unsigned kFloods = 4000, kFloodBurst = 8000;        // a second, of a port: as at the switch
constexpr unsigned kFloodsOnward = 2000, kOnwardBurst = 500;  // to one other port: less than its queue holds

/// IPv6 addresses are raw bytes everywhere: nft compares a source with a neighbour advertisement's target only so.
constexpr const char *kSource6 = "@nh,64,128", *kTarget = "@th,64,128";  // RFC 8200, 3; RFC 4861, 4.4

std::string hexOf(const std::uint8_t* bytes, std::size_t size) {
  std::string text = "0x";
  for (std::size_t i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

std::string keyOf(const IpAddress& address) {
  return address.v6 ? hexOf(address.bytes.data(), 16) : toText(address);
}

/// Counts the frame and drops it.
std::string refuse(const char* why) {
  auto it = std::find(kDropReasons.begin(), kDropReasons.end(), why);
  return fmt::format("meta mark set {} goto refuse\n", it - kDropReasons.begin() + 1);
}

/// A set that is full ends the rule that adds to it: the drop is another.
constexpr const char* kRefuse =
    "  set drops { type ifname . mark; size 65536; flags dynamic; counter; }\n"
    "  chain refuse {\n    add @drops { iifname . meta mark }\n    drop\n  }\n";

/// The sets of a kind of address. Owners for good: who with what, and what; the same of those who came first.
std::string sets(const char* suffix, const char* key, const char* pair) {
  return fmt::format(
      "  set fixed{0} {{ {2}; }}\n  set taken{0} {{ {1}; }}\n"
      "  set claims{0} {{ {2}; size 65536; flags dynamic,timeout; timeout 10m; }}\n"
      "  set used{0} {{ {1}; size 65536; flags dynamic,timeout; timeout 10m; }}\n",
      suffix, key, pair);
}

/// Gives the verdict on what is its sender's, refuses what is somebody else's, and comes back with what is nobody's.
std::string judge(const char* chain, const char* suffix, const char* field, const char* why, const char* verdict,
                  const std::string& exceptions) {
  return fmt::format(
      "  chain {0} {{\n{3}"
      "    {2} . ether saddr @fixed{1} {5}\n    {2} @taken{1} {4}"
      "    {2} . ether saddr @claims{1} update @claims{1} {{ {2} . ether saddr }} update @used{1} {{ {2} }} {5}\n"
      "    {2} @used{1} {4}  }}\n",
      chain, suffix, field, exceptions, refuse(why), verdict);
}

/// For who has addresses of its own: refuses all others.
std::string judgeGiven(const char* chain, const char* suffix, const char* field, const char* why, const char* verdict,
                       const char* exceptions) {
  return fmt::format("  chain {0} {{\n{3}    {2} . ether saddr @fixed{1} {5}\n    {4}  }}\n", chain, suffix, field,
                     exceptions, refuse(why), verdict);
}

std::string claim(const char* field, const char* suffix) {
  return fmt::format("add @claims{1} {{ {0} . ether saddr }} add @used{1} {{ {0} }}", field, suffix);
}

/// Takes an address that is nobody's, and refuses it if there is no room.
std::string claimTarget(const std::string& cap) {
  constexpr const char* kNew =
      "icmpv6 type nd-neighbor-advert @th,64,128 . ether saddr != @fixed6 @th,64,128 . ether saddr != @claims6";
  return fmt::format("    {} {}{}\n    {} {}", kNew, cap, claim(kTarget, "6"), kNew, refuse(refusal::kTarget));
}

/// Machines behind the switch: it has judged them; what is a direct port's is not theirs.
std::string switched(bool guard) {
  std::string text = "  chain switched {\n    update @behind { ether saddr }\n";
  if (guard) {
    text += "    icmpv6 type nd-neighbor-advert jump target6\n" + claimTarget("");
    text += "    ether type ip jump own4\n    ether type arp jump ownarp\n    ether type ip6 jump own6\n";
    for (auto [match, field, suffix] :
         {std::tuple("ether type ip", "ip saddr", "4"), std::tuple("ether type arp", "arp saddr ip", "4"),
          std::tuple("ether type ip6", kSource6, "6")})
      text += fmt::format("    {} {} accept\n", match, claim(field, suffix));
  }
  return text + "  }\n";
}

std::string chains() {
  const std::string source = refuse(refusal::kSource), arp = refuse(refusal::kArpAddress);
  std::string no4 = "    ip saddr 0.0.0.0 accept\n    ip saddr >= 224.0.0.0 " + source;
  std::string noArp = "    arp saddr ip 0.0.0.0 accept\n    arp saddr ip >= 224.0.0.0 " + arp;
  std::string no6 = "    ip6 saddr :: accept\n    ip6 saddr ff00::/8 " + source;
  // What cannot be parsed has no protocol; what ends before the protocol's header is no first fragment.
  return "  chain whole {\n    meta l4proto 0-255 @th,0,8 0-255 return\n"
         "    ether type ip meta l4proto 0-255 ip frag-off & 0x1fff != 0 return\n"
         "    ether type ip6 meta l4proto 0-255 frag frag-off != 0 return\n    " +
         refuse(refusal::kBrokenIp) + "  }\n" + judge("own4", "4", "ip saddr", refusal::kSource, "accept", no4) +
         judge("ownarp", "4", "arp saddr ip", refusal::kArpAddress, "accept", noArp) +
         judge("own6", "6", kSource6, refusal::kSource, "accept", no6) +
         judge("target6", "6", kTarget, refusal::kTarget, "return", "") +
         judgeGiven("given4", "4", "ip saddr", refusal::kSource, "accept", "    ip saddr 0.0.0.0 accept\n") +
         judgeGiven("givenarp", "4", "arp saddr ip", refusal::kArpAddress, "accept",
                    "    arp saddr ip 0.0.0.0 accept\n") +
         judgeGiven("given6", "6", kSource6, refusal::kSource, "accept", "    ip6 saddr :: accept\n") +
         judgeGiven("giventarget6", "6", kTarget, refusal::kTarget, "return", "");
}

/// What a port may say under its hardware address, and what only servers, routers and bridges say.
std::string identity(const DirectRules& r) {
  std::string mac = toText(r.mac), raw = hexOf(r.mac.data(), 6).substr(2), text;
  auto rule = [&](const std::string& match, const char* why) { text += "    " + match + " " + refuse(why); };
  rule("ether saddr != " + mac, refusal::kSourceMac);
  rule("ether type { 8021q, 8021ad }", refusal::kTag);
  rule("@ll,96,16 <= 1500 @ll,112,48 0xaaaa03000000", refusal::kSnap);
  for (const char* field : {"htype != 1", "ptype != ip", "hlen != 6", "plen != 4"})
    rule(fmt::format("arp {}", field), refusal::kBrokenArp);
  rule("arp saddr ether != " + mac, refusal::kArpMac);
  text += "    ether type ip jump whole\n    ether type ip6 jump whole\n";
  // A first piece without the protocol's header is not seen where padding stands in for it.
  rule("ether type ip6 frag nexthdr { 0, 43, 44, 60 }", refusal::kBrokenIp);
  // What lies behind a header in the first piece alone: for later ones, too, kernels say where that would be.
  const std::string first = "ether type ip ip frag-off & 0x1fff == 0 ";
  rule(first + "udp sport 67", refusal::kDhcp);
  rule(first + "udp dport 68", refusal::kDhcp);
  rule("ether type ip6 udp sport 547", refusal::kDhcp6);
  rule("ether type ip6 udp dport 546", refusal::kDhcp6);
  rule("icmpv6 type nd-router-advert", refusal::kRouter);
  rule("icmpv6 type nd-redirect", refusal::kRedirect);
  rule(first + "icmp type redirect", refusal::kRedirect);
  rule("icmpv6 type mld-listener-query", refusal::kQuery);
  rule("meta l4proto icmpv6 @th,0,8 151-153", refusal::kGroupRouter);
  // A bridge takes any piece of IGMP for a message.
  rule("ether type ip ip protocol igmp ip frag-off & 0x1fff != 0", refusal::kQuery);
  rule("ether type ip ip protocol igmp @th,0,8 0x11", refusal::kQuery);
  rule("ether type ip ip protocol igmp @th,0,8 0x30-0x32", refusal::kGroupRouter);
  rule("ether type ip ip protocol 103", refusal::kGroupRouter);
  rule("ether type ip6 meta l4proto 103", refusal::kGroupRouter);
  // Neighbour discovery has one link-layer option, the sender's, or none (RFC 4861, 4.1, 4.3, 4.4, 4.6.1), and nothing
  // between it and the IP header.
  rule("icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } ip6 nexthdr != icmpv6",
       refusal::kLinkLayer);
  rule("icmpv6 type nd-router-solicit ip6 saddr != :: ip6 length != { 8, 16 }", refusal::kLinkLayer);
  rule("icmpv6 type nd-router-solicit ip6 length 16 @th,64,64 != 0x0101" + raw, refusal::kLinkLayer);
  rule("icmpv6 type nd-neighbor-solicit ip6 saddr != :: ip6 length != { 24, 32 }", refusal::kLinkLayer);
  rule("icmpv6 type nd-neighbor-solicit ip6 saddr != :: ip6 length 32 @th,192,64 != 0x0101" + raw, refusal::kLinkLayer);
  rule("icmpv6 type nd-neighbor-advert ip6 length != { 24, 32 }", refusal::kLinkLayer);
  rule("icmpv6 type nd-neighbor-advert ip6 length 32 @th,192,64 != 0x0201" + raw, refusal::kLinkLayer);
  rule(fmt::format("ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 limit rate over {}/second burst {} packets",
                   kFloods, kFloodBurst),
       refusal::kFlood);
  return text;
}

std::string addresses(const DirectRules& r, unsigned number) {
  auto cap = [&](const char* field, const char* suffix) {
    return fmt::format("add @cap{}_{} {{ {} }} ", suffix, number, field);
  };
  // What it goes on using counts as long as it is its own.
  auto again = [&](const char* match, const char* field, const char* suffix) {
    return fmt::format("    {0} {1} @cap{2}_{3} update @cap{2}_{3} {{ {1} }}\n", match, field, suffix, number);
  };
  auto judged = [&](const char* match, const char* field, const char* suffix, const char* chain, const char* why,
                    const char* verdict = " accept") {
    return again(match, field, suffix) + fmt::format("    {0} jump {1}\n    {0} {2}{3}{4}\n    {0} {5}", match, chain,
                                                     cap(field, suffix), claim(field, suffix), verdict, refuse(why));
  };
  std::string text;
  // fe80::/10 is a card's own choice in any case.
  if (r.only6) text += "    icmpv6 type nd-neighbor-advert @th,64,10 != 0x3fa jump giventarget6\n";
  text += again("icmpv6 type nd-neighbor-advert", kTarget, "6");
  text += "    icmpv6 type nd-neighbor-advert jump target6\n" + claimTarget(cap(kTarget, "6"));
  if (r.only4)
    text += "    ether type ip jump given4\n    ether type arp jump givenarp\n";
  else
    text += judged("ether type ip", "ip saddr", "4", "own4", refusal::kSource) +
            judged("ether type arp", "arp saddr ip", "4", "ownarp", refusal::kArpAddress);
  if (r.only6) text += "    ether type ip6 ip6 saddr != fe80::/10 jump given6\n";
  return text + judged("ether type ip6", kSource6, "6", "own6", refusal::kSource);
}

/// A port claims 64 addresses of a kind: a full set ends the rule, and the frame is dropped.
std::string caps(const std::string& table, unsigned number) {
  std::string text;
  for (auto [suffix, key] : {std::pair("4", "type ipv4_addr"), std::pair("6", "typeof @nh,64,128")})
    text += fmt::format("add set bridge {} cap{}_{} {{ {}; size 64; flags dynamic,timeout; timeout 10m; }}\n", table,
                        suffix, number, key);
  return text;
}

}  // namespace

std::string directTapName(const std::string& network, unsigned number) {
  std::uint32_t h = 2166136261;
  for (char c : network + "/" + std::to_string(::getuid())) h = (h ^ static_cast<std::uint8_t>(c)) * 16777619;
  return fmt::format("lp-{:05x}.{}", h & 0xfffff, number);
}

std::string directTable(const std::string& table, const std::string& uplink, bool guard) {
  std::string text;
  for (const char* family : {"bridge", "netdev"})
    text += fmt::format("add table {0} {1}\ndelete table {0} {1}\n", family, table);
  text += fmt::format("table netdev {} {{\n{}}}\ntable bridge {} {{\n", table, kRefuse, table);
  text += kRefuse;
  text += "  set held { type ifname; }\n  set taps { type ifname; }\n  map ports { type ifname : verdict; }\n";
  text += "  set behind { type ether_addr; size 65536; flags dynamic,timeout; timeout 10m; }\n";
  text += "  set macs { type ether_addr; }\n";
  text += "  set floods { type ifname . ifname; size 65536; flags dynamic,timeout; timeout 1m; }\n";
  text += sets("4", "type ipv4_addr", "type ipv4_addr . ether_addr");
  text += sets("6", "typeof @nh,64,128", "typeof @nh,64,128 . ether saddr");
  text += chains() + switched(guard);
  text += fmt::format(
      "  chain in {{\n    type filter hook prerouting priority -300; policy accept;\n"
      "    iifname @held drop\n    iifname \"{}\" goto switched\n    iifname vmap @ports\n  }}\n"
      "  chain onward {{\n    type filter hook forward priority 0; policy accept;\n    oifname @held drop\n",
      uplink);
  // Frames for everybody, and for nobody who is known. The hook is all bridges': other networks' ports are theirs.
  for (const std::string& to : {"\"" + uplink + "\"", std::string("@taps")})
    text += fmt::format(
        "    iifname @taps oifname {} ether daddr != @behind ether daddr != @macs "
        "update @floods {{ iifname . oifname limit rate over {}/second burst {} packets }} {}",
        to, kFloodsOnward, kOnwardBurst, refuse(refusal::kFlood));
  return text +
         "  }\n  chain out {\n    type filter hook output priority 0; policy accept;\n    oifname @held drop\n  }\n}\n";
}

std::string directOwner(const std::string& table, const char* what, const IpAddress& address, const MacAddress& mac) {
  return fmt::format("{} element bridge {} fixed{} {{ {} . {} }}\n", what, table, address.v6 ? "6" : "4",
                     keyOf(address), toText(mac));
}

std::string directTaken(const std::string& table, const char* what, const IpAddress& address) {
  return fmt::format("{} element bridge {} taken{} {{ {} }}\n", what, table, address.v6 ? "6" : "4", keyOf(address));
}

std::string directClaimRemoval(const std::string& table, const char* suffix, const std::string& key,
                               const std::string& mac) {
  // It may be gone meanwhile, and deleting what is not there would end the whole batch.
  std::string pair = fmt::format("element bridge {} claims{} {{ {} . {} }}\n", table, suffix, key, mac);
  std::string used = fmt::format("element bridge {} used{} {{ {} }}\n", table, suffix, key);
  return "add " + pair + "delete " + pair + "add " + used + "delete " + used;
}

std::string directPortRemoval(const std::string& table, const std::string& tap, unsigned number,
                              const DirectRules& before) {
  std::string text = fmt::format("add chain bridge {} p{}\n", table, number);
  auto gone = [&](const std::string& what) { text += "add " + what + "delete " + what; };
  gone(fmt::format("element bridge {} ports {{ \"{}\" : goto p{} }}\n", table, tap, number));
  for (const char* set : {"held", "taps"}) gone(fmt::format("element bridge {} {} {{ \"{}\" }}\n", table, set, tap));
  gone(fmt::format("element bridge {} macs {{ {} }}\n", table, toText(before.mac)));
  for (std::size_t n = 1; n <= kDropReasons.size(); ++n) {
    for (const char* family : {"bridge", "netdev"})
      gone(fmt::format("element {} {} drops {{ \"{}\" . {} }}\n", family, table, tap, n));
  }
  return text + fmt::format("flush chain bridge {0} p{1}\ndelete chain bridge {0} p{1}\n", table, number) +
         caps(table, number) +
         fmt::format("delete set bridge {0} cap4_{1}\ndelete set bridge {0} cap6_{1}\n", table, number);
}

std::string directIngress(const std::string& table, const std::string& tap, unsigned number) {
  // Some of these groups pass a bridge's rules by, and their senders are learnt all the same.
  return fmt::format(
             "add chain netdev {0} i{1} {{ type filter hook ingress device \"{2}\" priority 0; policy accept; }}\n"
             "flush chain netdev {0} i{1}\n"
             "add rule netdev {0} i{1} ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 ",
             table, number, tap) +
         refuse(refusal::kBridgeGroup);
}

std::string directPortRules(const std::string& table, const std::string& tap, unsigned number,
                            const DirectRules& before, const DirectRules& r) {
  std::string text = fmt::format("add chain bridge {0} p{1}\nflush chain bridge {0} p{1}\n", table, number);
  text += caps(table, number);
  if (before.mac != MacAddress{} && before.mac != r.mac)
    text += fmt::format("delete element bridge {} macs {{ {} }}\n", table, toText(before.mac));
  text += fmt::format("add element bridge {} macs {{ {} }}\n", table, toText(r.mac));
  text += fmt::format("table bridge {} {{\n  chain p{} {{\n", table, number);
  if (r.guard) text += identity(r) + addresses(r, number);
  text += "  }\n}\n";
  text += fmt::format("add element bridge {0} ports {{ \"{1}\" : goto p{2} }}\n", table, tap, number);
  text += fmt::format("add element bridge {0} held {{ \"{1}\" }}\n", table, tap);
  if (!r.held) text += fmt::format("delete element bridge {0} held {{ \"{1}\" }}\n", table, tap);
  return text;
}

}  // namespace lodge::network
