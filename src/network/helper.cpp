// SPDX-License-Identifier: Apache-2.0
#include "network/helper.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "net/forward.h"
#include "network/definition.h"
#include "network/host_cards.h"
#include "network/host_changes.h"

namespace lodge::network {

namespace {

bool flagIn(const Json& json, const char* key) {
  auto it = json.find(key);
  return it != json.end() && it->is_boolean() && it->get<bool>();
}
std::string nameOf(const char* prefix, const std::string& network) {
  std::uint32_t h = 2166136261;
  for (char c : network + "/" + std::to_string(::getuid())) h = (h ^ static_cast<std::uint8_t>(c)) * 16777619;
  std::string start = network.substr(0, 5);
  return fmt::format("{}-{}{:05x}", prefix, start, h & 0xfffff);
}

/// A bridge's hardware address (IEEE 802, 8.4: locally administered), the same at each start, so that machines need not
/// ask anew when the network's process was killed. Without one a bridge has the least of its ports' addresses, which
/// changes as they come and go.
MacAddress addressOf(const std::string& bridge) {
  std::uint64_t h = 14695981039346656037u;
  for (char c : bridge) h = (h ^ static_cast<std::uint8_t>(c)) * 1099511628211u;
  MacAddress address{0x02};
  for (std::size_t n = 1; n < address.size(); ++n) address[n] = static_cast<std::uint8_t>(h >> 8 * n);
  return address;
}

/// The rules of a network that goes out through the host, in a table of its own.
std::string rulesOf(const std::string& table, const std::string& bridge, const IpBlock& block,
                    const std::optional<IpBlock>& block6, const std::vector<PortForward>& forwards) {
  std::string dnat;
  for (const PortForward& f : forwards) {
    auto guest = ipFrom(f.guestAddress);
    if (!guest || guest->v6) continue;
    std::string host =
        f.hostAddress.empty() || f.hostAddress == "0.0.0.0" ? "fib daddr type local" : "ip daddr " + f.hostAddress;
    dnat += fmt::format("    {} {} dport {} dnat ip to {}:{}\n", host, f.udp ? "udp" : "tcp", f.hostPort,
                        toText(*guest), f.guestPort);
  }
  // Not what stays in the bridge: with br_netfilter, a frame for everybody there comes by here, too.
  auto leaving = [&](const char* family, const IpBlock& b) {
    return fmt::format("    oifname != \"{0}\" {1} saddr {2} {1} daddr != {2} masquerade\n", bridge, family, toText(b));
  };
  std::string masquerade = leaving("ip", block);
  if (block6) masquerade += leaving("ip6", *block6);
  return fmt::format(
      "table inet {0} {{\n"
      "  chain forward {{\n    type filter hook forward priority 0; policy accept;\n"
      "    oifname \"{1}\" iifname != \"{1}\" ct state established,related accept\n"
      "    oifname \"{1}\" iifname != \"{1}\" ct status dnat accept\n"
      "    oifname \"{1}\" iifname != \"{1}\" drop\n  }}\n"
      "  chain postrouting {{\n    type nat hook postrouting priority 100; policy accept;\n{2}"
      "    oifname \"{1}\" ct status dnat ip saddr 127.0.0.0/8 masquerade\n  }}\n"
      "  chain prerouting {{\n    type nat hook prerouting priority -100; policy accept;\n{3}  }}\n"
      "  chain output {{\n    type nat hook output priority -100; policy accept;\n{3}  }}\n}}\n",
      table, bridge, masquerade, dnat);
}

/// The host and the machines, nobody else.
std::string internalRules(const std::string& table, const std::string& bridge) {
  return fmt::format(
      "table inet {0} {{\n  chain forward {{\n    type filter hook forward priority 0; policy accept;\n"
      "    iifname \"{1}\" oifname != \"{1}\" drop\n    oifname \"{1}\" iifname != \"{1}\" drop\n  }}\n}}\n",
      table, bridge);
}

}  // namespace

void writeSetting(const std::string& path, const char* value) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (fd) [[maybe_unused]]
    ssize_t n = ::write(fd.get(), value, std::strlen(value));
}

std::string bridgeNameOf(const std::string& network) {
  return nameOf("lg", network);
}
std::string tableNameOf(const std::string& bridge) {
  std::string table = "lodge_" + bridge;
  std::replace(table.begin(), table.end(), '-', '_');
  return table;
}
std::string tapNameOf(const std::string& network) {
  return nameOf("lt", network);
}

void Helper::undoDownTo(std::size_t count) {
  while (undo_.size() > count) {
    const std::vector<std::string>& step = undo_.back();
    if (step[0] == "write")
      writeSetting(step[1], step[2].c_str());
    else if (step[0] == "close")
      closeForward(step[1], step[2]);
    else if (step[0] == "batch")
      (void)runTool({"ip", "-force", "-batch", "-"}, step[1]);
    else
      (void)runTool(step);
    undo_.pop_back();
  }
}

Helper::~Helper() {
  direct_.clear();
  undoDownTo(0);
}

Result<Message> Helper::answer(const Json& request, std::vector<UniqueFd> fds) {
  std::string what = textIn(request, "do");
  std::size_t before = undo_.size();
  auto result = what == "segment"  ? segment(request)
                : what == "join"   ? join(request)
                : what == "packet" ? packet(request)
                : what == "route"  ? route(request)
                : what == "tap"    ? device(request)
                : what == "plug"   ? direct_.plug(request, fds.empty() ? UniqueFd() : std::move(fds[0]))
                  : what == "rules" ? direct_.rules(request)
                : what == "given"  ? direct_.given(request)
                : what == "forget" ? direct_.forget(request)
                : what == "drops"  ? direct_.drops()
                : what == "unplug" ? direct_.unplug(request)
                : what == "clean"  ? cleaned(request)
                                   : Result<Message>(Error(ErrorKind::invalidArgument, "an unknown request"));
  if (!result) undoDownTo(before);  // nothing half-made stays
  return result;
}

Result<Message> Helper::cleaned(const Json& request) {
  std::string name = textIn(request, "name");
  if (!isNetworkName(name)) return Error(ErrorKind::invalidArgument, "no network's name");
  clean(name);
  return Message{{{"ok", true}}, {}};
}

/// A tap or macvtap device that exists.
Result<Message> Helper::device(const Json& request) {
  std::string card = textIn(request, "tap");
  unsigned index = isCard(card) ? ::if_nametoindex(card.c_str()) : 0;
  if (index == 0) return noCard(card);
  Json facts = factsOf(card);
  auto info = facts.value("linkinfo", Json::object());
  auto mtu = mtuOn(request, card, facts);
  if (!mtu) return std::move(mtu).error();
  Result<UniqueFd> fd = textIn(info, "info_kind") == "macvtap" ? openTapDevice(card, "/dev/tap" + std::to_string(index))
                                                               : openTapDevice(card, "/dev/net/tun");
  if (!fd) return std::move(fd).error();
  Message message{{{"ok", true}, {"mtu", *mtu}}, {}};
  message.fds.push_back(std::move(*fd));
  return message;
}

Result<UniqueFd> Helper::makeTap(const std::string& tap, const std::string& bridge, unsigned mtu) {
  auto fd = openTapDevice(tap, "/dev/net/tun");
  if (!fd) return fd;
  for (const auto& command :
       {std::vector<std::string>{"ip", "link", "set", tap, "mtu", std::to_string(mtu), "master", bridge},
        {"ip", "link", "set", tap, "up"}}) {
    auto done = runTool(command);
    if (!done) return std::move(done).error();
  }
  return fd;
}

/// What a killed helper left has the same names.
void Helper::clean(const std::string& name) {
  std::string bridge = bridgeNameOf(name), table = tableNameOf(bridge);
  stopDirectTaps(name);  // machines have their other ends still
  takeDownBridge(bridge);
  for (const char* family : {"inet", "bridge", "netdev"}) (void)runTool({"nft", "delete", "table", family, table});
  closeForward(name, bridge);
}

Result<Message> Helper::segment(const Json& request) {
  std::string name = textIn(request, "name");
  if (!isNetworkName(name)) return Error(ErrorKind::invalidArgument, "no network's name");
  std::string bridge = bridgeNameOf(name), tap = tapNameOf(name), table = tableNameOf(bridge);
  auto at = [&](const char* key, std::optional<IpAddress>& host) -> std::optional<IpBlock> {
    std::string text = textIn(request, key);
    std::size_t slash = text.find('/');
    host = ipFrom(text.substr(0, slash));
    auto length = slash == std::string::npos ? std::nullopt : parseNumber(text.substr(slash + 1), 128);
    if (!host || !length || *length > (host->v6 ? 128u : 32u)) return std::nullopt;
    IpBlock block{*host, static_cast<unsigned>(*length)};
    IpAddress mask = block.mask();
    for (std::size_t i = 0; i < 16; ++i) block.base.bytes[i] &= mask.bytes[i];
    return block;
  };
  std::optional<IpAddress> host, host6;
  auto block = at("address", host), block6 = at("address6", host6);
  if (!block || block->base.v6) return Error(ErrorKind::invalidArgument, "no IPv4 address for the bridge");
  std::vector<PortForward> forwards;
  if (auto it = request.find("forwards"); it != request.end() && it->is_array()) {
    for (const Json& entry : *it) {
      auto forward = parseForward(entry.is_string() ? entry.get<std::string>() : std::string());
      if (!forward) return std::move(forward).error();
      forwards.push_back(std::move(*forward));
    }
  }
  clean(name);
  unsigned mtu = mtuIn(request);
  bool masquerade = flagIn(request, "masquerade");
  auto step = [&](const std::vector<std::string>& command, const std::string& input = {}) -> Status {
    auto done = runTool(command, input);
    if (!done) return std::move(done).error();
    return {};
  };
  const std::string mac = toText(addressOf(bridge));
  if (Status s = step({"ip", "link", "add", bridge, "address", mac, "type", "bridge", "forward_delay", "0"}); !s)
    return std::move(s).error();
  undoBy({"ip", "link", "del", bridge});
  std::vector<std::vector<std::string>> commands = {
      {"ip", "link", "set", bridge, "alias", "lodge network " + name},
      {"ip", "addr", "add", fmt::format("{}/{}", toText(*host), block->prefix), "brd", "+", "dev", bridge}};
  if (block6 && block6->base.v6)
    commands.push_back(
        {"ip", "addr", "add", fmt::format("{}/{}", toText(*host6), block6->prefix), "dev", bridge, "nodad"});
  commands.push_back({"ip", "link", "set", bridge, "up"});
  for (const auto& command : commands) {
    if (Status s = step(command); !s) return std::move(s).error();
  }
  auto fd = makeTap(tap, bridge, mtu);
  if (!fd) return std::move(fd).error();
  std::string rules = masquerade ? rulesOf(table, bridge, *block, block6, forwards) : internalRules(table, bridge);
  if (Status s = step({"nft", "-f", "-"}, rules); !s) return std::move(s).error();
  undoBy({"nft", "delete", "table", "inet", table});
  if (masquerade) {
    // Left as they were found when the last such network goes, if it was us who changed them.
    for (const char* path : {"/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"}) {
      char old = 0;
      UniqueFd file(::open(path, O_RDONLY | O_CLOEXEC));
      if (file && ::read(file.get(), &old, 1) == 1 && old == '0') {
        writeSetting(path, "1");
        undoBy({"write", path, "0"});
      }
    }
    if (openForward(name, bridge)) undoBy({"close", name, bridge});
    if (!forwards.empty()) writeSetting("/proc/sys/net/ipv4/conf/" + bridge + "/route_localnet", "1");
  }
  direct_.setPlace({name, bridge, tap});
  Message message{{{"ok", true}, {"bridge", bridge}, {"tap", tap}, {"mac", mac}}, {}};
  message.fds.push_back(std::move(*fd));
  return message;
}

/// The card into the bridge, and the host's addresses and routes from the one to the other, in one go of `ip`.
Status Helper::moveCard(const std::string& card, const std::string& bridge, bool host) {
  AddressMove move;
  if (host) {
    auto planned = planMove(card, bridge);
    if (!planned) return std::move(planned).error();
    move = std::move(*planned);
  }
  const std::string& gateway = move.gateway;
  auto batch = [](const std::string& text) { return runTool({"ip", "-force", "-batch", "-"}, text); };
  bool reached = !gateway.empty() && runTool({"ping", "-c", "1", "-W", "1", gateway}).ok();
  auto moved = batch(fmt::format("link set {} master {}\n{}", card, bridge, move.there));
  std::string restore = fmt::format("link set {} nomaster\n{}", card, move.back);
  undo_.push_back({"batch", restore});
  if (!moved) return std::move(moved).error();
  for (const std::string& prefix : move.left) (void)runTool({"ip", "-6", "route", "del", prefix, "dev", card});
  if (!reached) return {};
  for (int n = 0; n < 5; ++n) {
    if (runTool({"ping", "-c", "1", "-W", "1", gateway})) return {};
  }
  return Error(ErrorKind::io,
               fmt::format("with {} in the bridge the gateway {} does not answer any more", inQuotes(card), gateway))
      .withHint("the card has its addresses back; use --kind wifi if the network takes one hardware address only");
}

Result<Message> Helper::join(const Json& request) {
  std::string name = textIn(request, "name"), card = textIn(request, "card");
  if (!isNetworkName(name) || !isCard(card))
    return Error(ErrorKind::invalidArgument, "no names of a network and a card");
  if (::if_nametoindex(card.c_str()) == 0) return noCard(card);
  // A helper that was killed may have left the card in its bridge.
  clean(name);
  std::string bridge = card, tap = tapNameOf(name);
  Json facts = factsOf(card);
  auto mtu = mtuOn(request, card, facts);
  if (!mtu) return std::move(mtu).error();
  if (!isBridge(facts)) {
    bridge = bridgeNameOf(name);
    auto mac = macOf(card);
    if (!mac) return std::move(mac).error();
    if (!textIn(facts, "master").empty()) {
      return Error(ErrorKind::busy, "the card " + inQuotes(card) + " is part of another bridge or bond")
          .withHint("name that bridge with --uplink instead");
    }
    auto made = runTool({"ip", "link", "add", bridge, "address", toText(*mac), "type", "bridge", "forward_delay", "0"});
    if (!made) return std::move(made).error();
    undoBy({"ip", "link", "del", bridge});
    (void)runTool({"ip", "link", "set", bridge, "alias", "lodge network " + name});
    auto up = runTool({"ip", "link", "set", bridge, "up"});
    if (!up) return std::move(up).error();
    if (Status moved = moveCard(card, bridge, flagIn(request, "host")); !moved) return std::move(moved).error();
  }
  auto fd = makeTap(tap, bridge, std::max(*mtu, mtuIn(facts)));
  if (!fd) return std::move(fd).error();
  direct_.setPlace({name, bridge, tap});
  Message message{{{"ok", true}, {"bridge", bridge}, {"tap", tap}, {"mtu", *mtu}}, {}};
  message.fds.push_back(std::move(*fd));
  return message;
}

Result<Message> Helper::packet(const Json& request) {
  std::string card = textIn(request, "card");
  unsigned index = isCard(card) ? ::if_nametoindex(card.c_str()) : 0;
  if (index == 0) return noCard(card);
  auto mac = macOf(card);
  if (!mac) return std::move(mac).error();
  auto mtu = mtuOn(request, card, factsOf(card));
  if (!mtu) return std::move(mtu).error();
  UniqueFd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  int on = 1;
  packet_mreq all{};
  all.mr_ifindex = static_cast<int>(index);
  all.mr_type = PACKET_MR_ALLMULTI;
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(index);
  if (!fd || ::setsockopt(fd.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0 ||
      ::setsockopt(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0 ||
      ::setsockopt(fd.get(), SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof all) != 0 ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return Error::fromErrno(errno, "packet socket on " + inQuotes(card));
  Message message{{{"ok", true}, {"mac", toText(*mac)}, {"mtu", *mtu}}, {}};
  message.fds.push_back(std::move(fd));
  std::string name = textIn(request, "name"), tap = tapNameOf(name);
  if (!isNetworkName(name)) return message;
  auto host = openTapDevice(tap, "/dev/net/tun");
  if (!host) return std::move(host).error();
  writeSetting("/proc/sys/net/ipv6/conf/" + tap + "/accept_ra", "0");
  auto up = runTool({"ip", "link", "set", tap, "mtu", std::to_string(*mtu), "up"});
  auto hostMac = macOf(tap);
  if (!up || !hostMac) return up ? std::move(hostMac).error() : std::move(up).error();
  message.facts["tap"] = tap;
  message.facts["hostMac"] = toText(*hostMac);
  message.fds.push_back(std::move(*host));
  hostTaps_.push_back(tap);
  return message;
}

/// Goes with its device. Who the host's own routes go through is no machine.
Result<Message> Helper::route(const Json& request) {
  std::string tap = textIn(request, "tap");
  auto address = ipFrom(textIn(request, "address")), from = ipFrom(textIn(request, "from"));
  bool good = address && from && address->v6 == from->v6 && !address->multicast() && !address->unspecified() &&
              !address->linkLocal() && std::find(hostTaps_.begin(), hostTaps_.end(), tap) != hostTaps_.end();
  if (!good) return Error(ErrorKind::invalidArgument, "no addresses for a route");
  std::string family = address->v6 ? "-6" : "-4", block = toText(*address) + (address->v6 ? "/128" : "/32");
  if (!flagIn(request, "set")) {
    (void)runTool({"ip", family, "route", "del", block, "dev", tap});
    return Message{{{"ok", true}}, {}};
  }
  auto routes = runTool({"ip", family, "-j", "route", "show"});
  Json list = routes ? Json::parse(*routes, nullptr, false) : Json();
  for (const Json& r : list.is_array() ? list : Json::array()) {
    if (r.is_object() && textIn(r, "gateway") == toText(*address))
      return Error(ErrorKind::busy, toText(*address) + " is a gateway of the host's");
  }
  auto done = runTool({"ip", family, "route", "replace", block, "dev", tap, "src", toText(*from)});
  if (!done) return std::move(done).error();
  return Message{{{"ok", true}}, {}};
}

}  // namespace lodge::network
