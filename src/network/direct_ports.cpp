// SPDX-License-Identifier: Apache-2.0
#include "network/direct_ports.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/text.h"
#include "network/helper.h"
#include "network/host_cards.h"

namespace lodge::network {

namespace {

using Json = nlohmann::json;

constexpr unsigned kMostQueues = 8;
constexpr std::size_t kMostGiven = 65536, kMostDropEntries = 800;

std::optional<unsigned> numberIn(const Json& json, const char* key, unsigned most) {
  auto it = json.find(key);
  bool good =
      it != json.end() && it->is_number_unsigned() && it->get<std::uint64_t>() >= 1 && it->get<std::uint64_t>() <= most;
  return good ? std::optional(it->get<unsigned>()) : std::nullopt;
}

bool flagIn(const Json& json, const char* key) {
  auto it = json.find(key);
  return it != json.end() && it->is_boolean() && it->get<bool>();
}

Error bad(const char* what) {
  return Error(ErrorKind::invalidArgument, what);
}

/// A packet socket on the device, which gets nothing until its owner binds it to a protocol.
Result<UniqueFd> packetSocket() {
  UniqueFd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  int on = 1;
  if (!fd || ::setsockopt(fd.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0 ||
      ::setsockopt(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0)
    return Error::fromErrno(errno, "packet socket");
  return fd;
}

/// Whether a device is in this process's network namespace: its name says nothing of another's.
bool isHere(int fd) {
  UniqueFd its(::ioctl(fd, TUNGETDEVNETNS));
  struct stat theirs {
  }, own{};
  return its && ::fstat(its.get(), &theirs) == 0 && ::stat("/proc/self/ns/net", &own) == 0 &&
         theirs.st_dev == own.st_dev && theirs.st_ino == own.st_ino;
}

/// The name of the tap device that a descriptor is a queue of.
std::optional<std::string> tapOf(int fd) {
  ifreq request{};
  if (::ioctl(fd, TUNGETIFF, &request) != 0 || (request.ifr_flags & IFF_TAP) == 0 ||
      (request.ifr_flags & IFF_VNET_HDR) == 0 || !isHere(fd))
    return std::nullopt;
  request.ifr_name[IFNAMSIZ - 1] = '\0';
  return std::string(request.ifr_name);
}

/// The elements of a set, as nft lists them; nothing where it cannot.
Json elementsOf(const char* family, const std::string& table, const std::string& set) {
  auto text = runTool({"nft", "-j", "list", "set", family, table, set});
  Json list = text ? Json::parse(*text, nullptr, false) : Json();
  for (const Json& entry : list.is_object() ? list.value("nftables", Json::array()) : Json::array()) {
    if (entry.is_object() && entry.contains("set")) return entry["set"].value("elem", Json::array());
  }
  return Json::array();
}

/// The parts of a concatenated element, {"elem":{"val":{"concat":[...]},...}} or without the rest.
Json partsOf(const Json& element) {
  const Json* at = &element;
  for (const char* key : {"elem", "val", "concat"}) {
    if (at->is_object() && at->contains(key)) at = &(*at)[key];
  }
  return at->is_array() && at->size() == 2 ? *at : Json::array({"", ""});
}

std::string tapPrefixOf(const std::string& network) {
  std::string name = directTapName(network, 0);
  name.pop_back();
  return name;
}

Status apply(const std::string& text) {
  auto done = runTool({"nft", "-f", "-"}, text);
  return done ? Status() : Status(std::move(done).error());
}

}  // namespace

void stopDirectTaps(const std::string& network) {
  std::string lines, prefix = tapPrefixOf(network);
  if (struct if_nameindex* all = ::if_nameindex()) {
    for (const struct if_nameindex* one = all; one->if_index != 0; ++one) {
      if (std::string_view(one->if_name).starts_with(prefix))
        lines += fmt::format("link set {} down nomaster\n", one->if_name);
    }
    ::if_freenameindex(all);
  }
  if (!lines.empty()) (void)runTool({"ip", "-force", "-batch", "-"}, lines);
}

std::string DirectPorts::table() const {
  return tableNameOf(bridgeNameOf(place_.network));
}

Status DirectPorts::makeTable(bool guard) {
  if (made_) return {};
  std::string text = directTable(table(), place_.uplink, guard);
  for (const auto& [address, mac] : given_)
    text += directOwner(table(), "add", address, mac) + directTaken(table(), "add", address);
  Status done = apply(text);
  made_ = done.ok();
  return done;
}

Result<Message> DirectPorts::plug(const Json& request, UniqueFd existing) {
  auto number = numberIn(request, "number", kMostDirectPorts);
  auto queues = numberIn(request, "queues", kMostQueues);
  if (place_.bridge.empty() || !number || !queues) return bad("no place for a port");
  // One that the network's process gave up waiting for.
  auto lost = std::find_if(ports_.begin(), ports_.end(), [&](const auto& p) { return p.second.number == *number; });
  if (lost != ports_.end()) (void)unplug({{"tap", std::string(lost->first)}});
  // What a machine still has from another process of the network's keeps its name.
  std::string tap;
  for (unsigned n = 1; n <= kMostDirectPorts; ++n) {
    tap = directTapName(place_.network, n);
    if (::if_nametoindex(tap.c_str()) == 0) break;
  }
  std::vector<UniqueFd> fds;
  if (existing) {
    // Only what a helper made before: whoever holds a descriptor of another device may not have it moved.
    auto device = tapOf(existing.get());
    if (!device || !device->starts_with(tapPrefixOf(place_.network))) return bad("no device of a port");
    tap = *device;
  }
  if (ports_.count(tap) != 0) return Error(ErrorKind::busy, "port " + inQuotes(tap) + " is there already");
  if (Status s = makeTable(flagIn(request, "guard")); !s) return std::move(s).error();
  for (unsigned n = 0; !existing && n < *queues; ++n) {
    auto queue = openTapDevice(tap, "/dev/net/tun", *queues > 1, n == 0);
    if (!queue) return std::move(queue).error();
    fds.push_back(std::move(*queue));
  }
  auto packets = packetSocket();
  if (!packets) return std::move(packets).error();
  fds.push_back(std::move(*packets));
  ports_[tap].number = *number;
  if (Status s = connect(tap, *number); !s) {
    (void)unplug({{"tap", tap}});  // nothing half-made stays
    return std::move(s).error();
  }
  Message message{{{"ok", true}, {"tap", tap}, {"index", ::if_nametoindex(tap.c_str())}}, {}};
  message.fds = std::move(fds);
  return message;
}

/// A device into the bridge.
Status DirectPorts::connect(const std::string& tap, unsigned number) {
  // Nothing passes until there are rules for it.
  std::string text;
  for (const char* set : {"held", "taps"})
    text += fmt::format("add element bridge {} {} {{ \"{}\" }}\n", table(), set, tap);
  if (Status s = apply(text + directIngress(table(), tap, number)); !s) return s;
  unsigned mtu = mtuIn(factsOf(place_.uplink));
  // Frames to link-local groups pass by the bridge's rules to the host: it has no addresses there.
  writeSetting("/proc/sys/net/ipv6/conf/" + tap + "/disable_ipv6", "1");
  for (const auto& command :
       {std::vector<std::string>{"ip", "link", "set", tap, "mtu", std::to_string(mtu), "master", place_.bridge},
        {"ip", "link", "set", tap, "up"}}) {
    auto done = runTool(command);
    if (!done) return std::move(done).error();
  }
  return {};
}

Result<Message> DirectPorts::rules(const Json& request) {
  std::string tap = textIn(request, "tap");
  auto it = ports_.find(tap);
  auto mac = macFrom(textIn(request, "mac"));
  if (it == ports_.end() || !mac || isGroup(*mac)) return bad("no rules for a port");
  DirectRules rules{.mac = *mac,
                    .only4 = flagIn(request, "only4"),
                    .only6 = flagIn(request, "only6"),
                    .guard = flagIn(request, "guard"),
                    .held = flagIn(request, "held")};
  Port& port = it->second;
  if (Status s = apply(directPortRules(table(), tap, port.number, port.rules, rules)); !s) return std::move(s).error();
  // The bridge is to look anew for who is where.
  if (port.rules.held != rules.held) (void)runTool({"ip", "link", "set", tap, "type", "bridge_slave", "fdb_flush"});
  port.rules = rules;
  return Message{{{"ok", true}}, {}};
}

Result<Message> DirectPorts::given(const Json& request) {
  std::map<IpAddress, std::optional<MacAddress>> changes;
  for (const Json& entry : request.value("unset", Json::array())) {
    auto address = entry.is_string() ? ipFrom(entry.get<std::string>()) : std::nullopt;
    if (!address) return bad("no addresses that were given");
    changes[*address] = std::nullopt;
  }
  for (const Json& entry : request.value("set", Json::array())) {
    bool pair = entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string();
    auto address = pair ? ipFrom(entry[0].get<std::string>()) : std::nullopt;
    auto mac = pair ? macFrom(entry[1].get<std::string>()) : std::nullopt;
    if (!address || !mac) return bad("no addresses that were given");
    changes[*address] = mac;
  }
  auto now = given_;
  std::string text;
  for (const auto& [address, owner] : changes) {
    auto old = now.find(address);
    if (old != now.end()) text += directOwner(table(), "delete", address, old->second);
    if (old != now.end() && !owner) text += directTaken(table(), "delete", address);
    if (old == now.end() && owner) text += directTaken(table(), "add", address);
    if (owner) text += directOwner(table(), "add", address, *owner);
    if (owner)
      now[address] = *owner;
    else
      now.erase(address);
  }
  if (now.size() > kMostGiven) return bad("too many addresses that were given");
  if (made_) {
    if (Status s = apply(text); !s) return std::move(s).error();
  }
  given_ = std::move(now);
  return Message{{{"ok", true}}, {}};
}

void DirectPorts::release(const MacAddress& mac) const {
  std::string text, whose = toText(mac);
  for (const char* suffix : {"4", "6"}) {
    for (const Json& element : elementsOf("bridge", table(), std::string("claims") + suffix)) {
      Json parts = partsOf(element);
      if (parts[1] == whose && parts[0].is_string())
        text += directClaimRemoval(table(), suffix, parts[0].get<std::string>(), whose);
    }
  }
  if (!text.empty()) (void)apply(text);
}

Result<Message> DirectPorts::forget(const Json& request) {
  auto mac = macFrom(textIn(request, "mac"));
  if (!mac) return bad("no hardware address");
  if (made_) release(*mac);
  return Message{{{"ok", true}}, {}};
}

Result<Message> DirectPorts::drops() const {
  Json all = Json::object();
  std::size_t entries = 0;  // as many as one message holds
  for (const char* family : {"bridge", "netdev"}) {
    for (const Json& element : made_ ? elementsOf(family, table(), "drops") : Json::array()) {
      Json parts = partsOf(element);
      if (!parts[0].is_string() || !parts[1].is_number_unsigned() || !element.is_object()) continue;
      auto reason = parts[1].get<std::size_t>();
      std::string tap = parts[0].get<std::string>();
      if (ports_.count(tap) == 0 || reason < 1 || reason > kDropReasons.size()) continue;
      if (++entries > kMostDropEntries) break;
      Json counter = element.value("elem", Json::object()).value("counter", Json::object());
      Json& entry = all[tap][std::string(kDropReasons[reason - 1])];
      entry =
          (entry.is_number_unsigned() ? entry.get<std::uint64_t>() : 0) + counter.value("packets", std::uint64_t{0});
    }
  }
  return Message{{{"ok", true}, {"drops", std::move(all)}}, {}};
}

Result<Message> DirectPorts::unplug(const Json& request) {
  std::string tap = textIn(request, "tap");
  auto it = ports_.find(tap);
  if (it == ports_.end()) return bad("no such port");
  const Port& port = it->second;
  (void)runTool({"ip", "link", "set", tap, "down", "nomaster"});  // no link between the guest and the host itself
  release(port.rules.mac);
  // Some kernels take the chain away with its device.
  (void)runTool({"nft", "delete", "chain", "netdev", table(), fmt::format("i{}", port.number)});
  (void)apply(directPortRemoval(table(), tap, port.number, port.rules));
  ports_.erase(it);
  return Message{{{"ok", true}}, {}};
}

void DirectPorts::clear() {
  std::string lines;
  for (const auto& [tap, port] : ports_) lines += fmt::format("link set {} down nomaster\n", tap);
  if (!lines.empty()) (void)runTool({"ip", "-force", "-batch", "-"}, lines);
  ports_.clear();
  given_.clear();
  if (!std::exchange(made_, false)) return;
  for (const char* family : {"bridge", "netdev"}) (void)runTool({"nft", "delete", "table", family, table()});
}

}  // namespace lodge::network
