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
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "network/helper.h"
#include "network/host_cards.h"

namespace lodge::network {

namespace {

using Json = nlohmann::json;

constexpr unsigned kMostQueues = 8;
constexpr std::size_t kMostOwn = 128;

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

/// The name of the tap device that a descriptor is a queue of, with whether it may have several.
std::optional<std::pair<std::string, bool>> tapOf(int fd) {
  ifreq request{};
  if (::ioctl(fd, TUNGETIFF, &request) != 0 || (request.ifr_flags & IFF_TAP) == 0 ||
      (request.ifr_flags & IFF_VNET_HDR) == 0)
    return std::nullopt;
  request.ifr_name[IFNAMSIZ - 1] = '\0';
  return std::pair(std::string(request.ifr_name), (request.ifr_flags & IFF_MULTI_QUEUE) != 0);
}

}  // namespace

std::string DirectPorts::table() const {
  return tableNameOf(bridgeNameOf(place_.network));
}

Status DirectPorts::makeTable(const Json& request) {
  if (made_) return {};
  std::string text = directTable(table(), place_.uplink, flagIn(request, "guard"));
  auto own = request.find("network");
  for (const Json& entry : own != request.end() && own->is_array() ? *own : Json::array()) {
    auto address = ipFrom(textIn(entry, "address"));
    auto mac = macFrom(textIn(entry, "mac"));
    if (!address || !mac) return bad("no addresses of the network's own");
    text += directOwner(table(), "add", *address, *mac);
  }
  auto done = runTool({"nft", "-f", "-"}, text);
  if (!done) return std::move(done).error();
  made_ = true;
  return {};
}

Result<Message> DirectPorts::plug(const Json& request, UniqueFd existing) {
  auto number = numberIn(request, "number", kMostDirectPorts);
  auto queues = numberIn(request, "queues", kMostQueues);
  if (place_.bridge.empty() || !number || !queues) return bad("no place for a port");
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
    if (!device || !device->first.starts_with("lp-")) return bad("no device of a port");
    tap = device->first;
  }
  if (ports_.count(tap) != 0) return Error(ErrorKind::busy, "port " + inQuotes(tap) + " is there already");
  if (Status s = makeTable(request); !s) return std::move(s).error();
  for (unsigned n = 0; !existing && n < *queues; ++n) {
    auto queue = openTapDevice(tap, "/dev/net/tun", *queues > 1);
    if (!queue) return std::move(queue).error();
    fds.push_back(std::move(*queue));
  }
  auto packets = packetSocket();
  if (!packets) return std::move(packets).error();
  fds.push_back(std::move(*packets));
  // Nothing passes until there are rules for it.
  auto held = runTool({"nft", "-f", "-"}, fmt::format("add element bridge {} held {{ \"{}\" }}\n", table(), tap));
  if (!held) return std::move(held).error();
  unsigned mtu = mtuIn(factsOf(place_.uplink));
  // Frames to link-local groups pass by the bridge's rules to the host: it has no addresses there.
  writeSetting("/proc/sys/net/ipv6/conf/" + tap + "/disable_ipv6", "1");
  for (const auto& command :
       {std::vector<std::string>{"ip", "link", "set", tap, "mtu", std::to_string(mtu), "master", place_.bridge},
        {"ip", "link", "set", tap, "up"}}) {
    auto done = runTool(command);
    if (!done) return std::move(done).error();
  }
  ports_[tap].number = *number;
  Message message{{{"ok", true}, {"tap", tap}, {"index", ::if_nametoindex(tap.c_str())}}, {}};
  message.fds = std::move(fds);
  return message;
}

Result<Message> DirectPorts::rules(const Json& request) {
  std::string tap = textIn(request, "tap");
  auto it = ports_.find(tap);
  auto mac = macFrom(textIn(request, "mac"));
  if (it == ports_.end() || !mac || isGroup(*mac)) return bad("no rules for a port");
  DirectRules rules{.mac = *mac,
                    .own = {},
                    .only4 = flagIn(request, "only4"),
                    .only6 = flagIn(request, "only6"),
                    .guard = flagIn(request, "guard"),
                    .held = flagIn(request, "held")};
  auto own = request.find("own");
  for (const Json& entry : own != request.end() && own->is_array() ? *own : Json::array()) {
    auto address = entry.is_string() ? ipFrom(entry.get<std::string>()) : std::nullopt;
    if (!address || rules.own.size() >= kMostOwn) return bad("no addresses of a port");
    rules.own.push_back(*address);
  }
  Port& port = it->second;
  auto done = runTool({"nft", "-f", "-"}, directPortRules(table(), tap, port.number, port.rules, rules));
  if (!done) return std::move(done).error();
  // The bridge is to look anew for who is where.
  if (port.rules.held != rules.held) (void)runTool({"ip", "link", "set", tap, "type", "bridge_slave", "fdb_flush"});
  port.rules = std::move(rules);
  return Message{{{"ok", true}}, {}};
}

Result<Message> DirectPorts::unplug(const Json& request) {
  std::string tap = textIn(request, "tap");
  auto it = ports_.find(tap);
  if (it == ports_.end()) return bad("no such port");
  (void)runTool({"ip", "link", "set", tap, "down", "nomaster"});  // no link between the guest and the host itself
  (void)runTool({"nft", "-f", "-"}, directPortRemoval(table(), tap, it->second.number, it->second.rules));
  ports_.erase(it);
  return Message{{{"ok", true}}, {}};
}

void DirectPorts::clear() {
  for (const auto& [tap, port] : ports_) (void)runTool({"ip", "link", "set", tap, "down", "nomaster"});
  ports_.clear();
  if (std::exchange(made_, false)) (void)runTool({"nft", "delete", "table", "bridge", table()});
}

}  // namespace lodge::network
