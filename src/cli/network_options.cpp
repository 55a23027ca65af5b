// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"
#include "cli/net_option.h"
#include "cli/network_common.h"

namespace lodge::cli {

namespace {

using network::NetworkDefinition;

Error bad(std::string_view option, const std::string& value, std::string_view form) {
  return Error(ErrorKind::invalidArgument, fmt::format("--{} {}: that makes no sense", option, inQuotes(value)))
      .withHint(fmt::format("write {}", form));
}

/// "on" or "off" into a flag.
Status takeSwitch(const Invocation& invocation, const char* option, bool& out) {
  if (invocation.has(option)) out = invocation.value(option) == "on";
  return {};
}

Status takeLease(const std::string& text, NetworkDefinition& d) {
  std::size_t equals = text.find('=');
  network::StaticLease lease;
  auto address = equals == std::string::npos ? std::nullopt : ipFrom(text.substr(equals + 1));
  std::string who = text.substr(0, equals);
  if (!address || who.empty()) return bad("lease", text, "--lease MACHINE=192.168.50.10 or --lease MAC=ADDRESS");
  lease.mac = macFrom(who);
  if (!lease.mac) lease.machine = who;
  lease.address = *address;
  std::erase_if(d.leases, [&](const auto& l) { return l.machine == lease.machine && l.mac == lease.mac; });
  d.leases.push_back(std::move(lease));
  return {};
}

Status takeLists(const Invocation& invocation, NetworkDefinition& d) {
  if (invocation.has("no-forwards")) d.forwards.clear();
  if (invocation.has("no-egress-rules")) d.egress.clear();
  if (invocation.has("no-leases")) d.leases.clear();
  if (invocation.has("no-tunnels")) d.tunnels.clear();
  for (const std::string& text : invocation.all("tunnel")) {
    auto tunnel = network::tunnelFrom(text);
    if (!tunnel) return std::move(tunnel).error().context("--tunnel");
    d.tunnels.push_back(std::move(*tunnel));
  }
  for (const std::string& text : invocation.all("forward")) {
    auto forward = parseForward(text);
    if (!forward) return std::move(forward).error();
    d.forwards.push_back(std::move(*forward));
  }
  for (const std::string& text : invocation.all("egress")) {
    auto rule = network::egressRuleFrom(text);
    if (!rule) return std::move(rule).error();
    d.egress.push_back(std::move(*rule));
  }
  for (const std::string& text : invocation.all("lease")) {
    if (Status taken = takeLease(text, d); !taken) return taken;
  }
  for (const std::string& text : invocation.all("dns")) {
    auto address = ipFrom(text);
    if (!address) return bad("dns", text, "--dns 192.0.2.53, the address of a name server");
    d.upstreamDns.push_back(*address);
  }
  return {};
}

Status takeCable(const Invocation& invocation, NetworkDefinition& d) {
  if (invocation.has("rate")) {
    std::string text = invocation.value("rate");
    auto rate = text == "none" ? Result<std::uint64_t>(0) : network::rateFrom(text);
    if (!rate) return std::move(rate).error();
    d.cable.rate = *rate;
  }
  if (invocation.has("delay")) {
    auto delay = network::delayFrom(invocation.value("delay"));
    if (!delay) return std::move(delay).error();
    d.cable.delay = *delay;
  }
  if (invocation.has("loss")) {
    auto loss = network::lossFrom(invocation.value("loss"));
    if (!loss) return std::move(loss).error();
    d.cable.lossParts = *loss;
  }
  return {};
}

}  // namespace

ArgumentSpec networkArgument() {
  return {.name = "NETWORK"};
}

std::vector<OptionSpec> networkOptions() {
  return {
      {.name = "subnet", .value = "BLOCK", .help = "Its IPv4 addresses, as 192.168.50.0/24; chosen if not given."},
      {.name = "subnet6", .value = "BLOCK", .help = "Its IPv6 addresses, a /64; chosen if not given."},
      {.name = "ipv6", .value = "on|off", .help = "IPv6; on if not given.", .choices = {"on", "off"}},
      {.name = "dhcp", .value = "on|off", .help = "Addresses by DHCP; on if not given.", .choices = {"on", "off"}},
      {.name = "lease",
       .value = "WHO=ADDRESS",
       .help = "The address that a machine (by its name) or a hardware address always gets. Repeatable.",
       .repeats = true},
      {.name = "forward",
       .value = "FORWARD",
       .help = "Of kinds user and nat: tcp:127.0.0.1:2222:10.0.2.15:22 leads from a port of the host to one of an "
               "address of the network. Repeatable.",
       .repeats = true},
      {.name = "egress",
       .value = "RULE",
       .help = "What machines may reach outside: 'allow|deny [tcp|udp|icmp] TARGET [port N|N-M]', where TARGET is an "
               "address, a block, a domain name, *.NAME or any. The first that fits decides. Repeatable.",
       .repeats = true},
      {.name = "egress-default",
       .value = "allow|deny",
       .help = "What no rule decides; allow if not given.",
       .choices = {"allow", "deny"}},
      {.name = "dns",
       .value = "ADDRESS",
       .help = "A name server to ask for names outside, instead of the host's. Repeatable.",
       .repeats = true},
      {.name = "tunnel",
       .value = "TUNNEL",
       .help =
           "Of a switch: tcp:listen:ADDRESS:PORT at one and tcp:connect:ADDRESS:PORT at the other make two switches "
           "one; "
           "so does udp. Over trusted networks only: nothing is encrypted. One of the two with --dhcp off. Repeatable.",
       .repeats = true},
      {.name = "rate", .value = "RATE", .help = "Of each port, each way: 100M (bits a second); none."},
      {.name = "delay", .value = "TIME", .help = "Of each frame, each way: 20ms."},
      {.name = "loss", .value = "SHARE", .help = "Of frames, each way: 0.5%."},
      {.name = "mtu",
       .value = "BYTES",
       .help = "Longest IP packet; if not given 1500, or what the host's card has that it joins."},
      {.name = "spoof",
       .value = "on|off",
       .help = "Whether machines may send under addresses that are not theirs; off if not given.",
       .choices = {"on", "off"}},
      {.name = "keep",
       .value = "on|off",
       .help = "Whether the network stays up when its last machine has left; off if not given.",
       .choices = {"on", "off"}},
  };
}

Status applyNetworkOptions(const Invocation& invocation, NetworkDefinition& d) {
  for (auto [option, block] : {std::pair("subnet", &d.subnet), std::pair("subnet6", &d.subnet6)}) {
    if (!invocation.has(option)) continue;
    auto value = blockFrom(invocation.value(option));
    if (!value) return std::move(value).error().context(std::string("--") + option);
    *block = *value;
  }
  bool spoof = !d.antiSpoof;
  for (auto [option, flag] : {std::pair("ipv6", &d.ipv6), std::pair("dhcp", &d.dhcp), std::pair("keep", &d.keep),
                              std::pair("spoof", &spoof)}) {
    if (Status taken = takeSwitch(invocation, option, *flag); !taken) return taken;
  }
  d.antiSpoof = !spoof;
  if (invocation.has("egress-default")) d.egressAllowed = invocation.value("egress-default") == "allow";
  if (invocation.has("mtu")) {
    auto mtu = parseNumber(invocation.value("mtu"), 65535);
    if (!mtu) return bad("mtu", invocation.value("mtu"), "a number of bytes from 576 to 65521");
    d.mtu = static_cast<unsigned>(*mtu);
  }
  if (Status taken = takeCable(invocation, d); !taken) return taken;
  return takeLists(invocation, d);
}

}  // namespace lodge::cli
