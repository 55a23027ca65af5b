// SPDX-License-Identifier: Apache-2.0
// What others say to a network's processes over sockets: name servers of the host's to the DNS forwarder, DHCP servers
// to the proxy's client, joining machines and commands to the network's two sockets, the network's process to its
// helper (whose programs are stood for). Needs a network namespace of its own; where there may be none, nothing runs.
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "base/bytes.h"
#include "base/event_loop.h"
#include "network/dhcp_client.h"
#include "network/dns_server.h"
#include "network/frame_builder.h"
#include "network/helper.h"
#include "network/message.h"
#include "network/network.h"
#include "network/server.h"

namespace {

using namespace lodge;
using namespace lodge::network;
using Bytes = std::span<const std::uint8_t>;

/// What `ip` and `nft` print, in turn.
std::vector<std::string> said;
std::size_t saidNext = 0;

struct World {
  std::unique_ptr<EventLoop> loop = std::move(*EventLoop::create());
  UniqueFd upstream;  ///< at 127.0.0.1, port 53
  std::string folder;
  std::unique_ptr<Network> network;
  std::unique_ptr<Server> server;
};
World* world = nullptr;

void pump() {
  for (int n = 0; n < 3; ++n) {
    world->loop->post([] { world->loop->stop(); });
    (void)world->loop->run();
  }
}

void makeNetwork() {
  NetworkDefinition d;
  d.name = "fuzz";
  d.kind = NetworkKind::switched;
  d.keep = true;
  if (!completeDefinition(d, {})) std::abort();
  world->server.reset();
  world->network = std::make_unique<Network>(*world->loop, d);
  world->network->hold();
  if (!world->network->start()) std::abort();
  world->server = std::make_unique<Server>(*world->loop, *world->network, world->folder);
  if (!world->server->start()) std::abort();
}

bool makeWorld() {
  if (::unshare(CLONE_NEWNET) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return false;
  UniqueFd control(::socket(AF_INET, SOCK_DGRAM, 0));
  ifreq up{};
  std::strcpy(up.ifr_name, "lo");
  up.ifr_flags = IFF_UP | IFF_RUNNING;
  if (::ioctl(control.get(), SIOCSIFFLAGS, &up) != 0) return false;
  auto* w = new World;
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(53);
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  w->upstream.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0));
  if (::bind(w->upstream.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a) != 0) return false;
  char folder[] = "/tmp/lodge-fuzz-XXXXXX";
  if (!::mkdtemp(folder)) return false;
  w->folder = folder;
  world = w;
  std::atexit([] {
    world->server.reset();
    std::error_code ignored;
    std::filesystem::remove_all(world->folder, ignored);
  });
  makeNetwork();
  return true;
}

/// The reply is `bytes` behind the question's number and its name, with the flags and counts that are in `bytes`.
void nameServer(Bytes bytes) {
  if (bytes.size() < 9) return;
  unsigned answers = 0;
  DnsServer server(
      *world->loop, "x.internal", [](const std::string&) { return std::vector<IpAddress>(); },
      [](const IpAddress&) { return std::string(); }, {*ipFrom("127.0.0.1")});
  std::vector<std::uint8_t> query = {0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 1, 'b', 0, 0, 1, 0, 1};
  server.ask(query, false, [&](Bytes message) {
    ++answers;
    if (message.size() < 12 || message[0] != 0x12 || message[1] != 0x34) std::abort();
  });
  std::array<std::uint8_t, 600> asked;
  sockaddr_storage from{};
  socklen_t length = sizeof from;
  auto* peer = reinterpret_cast<sockaddr*>(&from);
  if (::recvfrom(world->upstream.get(), asked.data(), asked.size(), 0, peer, &length) < 12) return;
  std::vector<std::uint8_t> reply(asked.begin(), asked.begin() + 2);
  if ((bytes[0] & 1) != 0) {
    reply.push_back(bytes[1] | 0x80);
    reply.insert(reply.end(), bytes.begin() + 2, bytes.begin() + 9);
    reply[4] = 0, reply[5] = 1;
    reply.resize(12);
    reply.insert(reply.end(), query.begin() + 12, query.end());
    reply.insert(reply.end(), bytes.begin() + 9, bytes.end());
  } else {
    reply.insert(reply.end(), bytes.begin() + 1, bytes.end());
  }
  for (int n = 0; n < 2; ++n) (void)::sendto(world->upstream.get(), reply.data(), reply.size(), 0, peer, length);
  pump();
  if (answers > 1) std::abort();
}

void dhcpServer(Bytes bytes) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends) != 0) return;
  UniqueFd mine(ends[0]);
  constexpr MacAddress kMac = {2, 0, 0, 0, 0, 5};
  DhcpClient client(*world->loop, UniqueFd(ends[1]), kMac, "fuzz", [](const DhcpOffer& lease) {
    if (lease.address.v6 || lease.type != 5) std::abort();
  });
  if (!client.start()) std::abort();
  // Messages one after the other, each behind two bytes of length; the number of what the client asked goes in.
  while (bytes.size() > 2) {
    std::array<std::uint8_t, 2000> asked;
    ssize_t n = ::recv(mine.get(), asked.data(), asked.size(), 0);
    std::size_t length = std::min<std::size_t>(bytes[0] << 8 | bytes[1], bytes.size() - 2);
    std::vector<std::uint8_t> message(bytes.begin() + 2, bytes.begin() + 2 + static_cast<std::ptrdiff_t>(length));
    bytes = bytes.subspan(2 + length);
    constexpr std::size_t kAt = 14 + 20 + 8;  // Ethernet, IPv4, UDP
    static std::array<std::uint8_t, 4> number{};
    if (n > static_cast<ssize_t>(kAt + 8)) std::memcpy(number.data(), &asked[kAt + 4], 4);
    if (message.size() >= 34) {
      std::memcpy(&message[4], number.data(), 4);
      std::memcpy(&message[28], kMac.data(), kMac.size());
    }
    Frame frame =
        udpFrame({{2, 0, 0, 0, 0, 1}, *ipFrom("10.0.0.1"), 67}, {kMac, *ipFrom("255.255.255.255"), 68}, message);
    (void)::send(mine.get(), frame.data(), frame.size(), 0);
    pump();
  }
}

void toSocket(const char* name, int type, Bytes bytes, bool withDescriptor) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::string path = world->folder + "/" + name;
  std::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_NONBLOCK, 0));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return makeNetwork();
  nlohmann::json json = nlohmann::json::parse(bytes.begin(), bytes.end(), nullptr, false);
  if (withDescriptor && json.is_object())
    (void)sendMessage(fd.get(), json, {fd.get()});
  else
    (void)::send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
  pump();
  std::vector<char> reply(1 << 16);
  ssize_t n = ::recv(fd.get(), reply.data(), reply.size(), 0);
  // Frames, once it has joined.
  if (n > 0 && reply[0] == '{' && type == SOCK_SEQPACKET) {
    for (std::size_t at = 0; at < bytes.size(); at += 64)
      (void)::send(fd.get(), &bytes[at], std::min<std::size_t>(bytes.size() - at, 200), MSG_NOSIGNAL);
    pump();
  }
  fd.reset();
  pump();
  if (world->network->machines() != 0) std::abort();
}

/// Lines: first what the programs print, each behind "=", then requests.
void helper(std::string_view text) {
  said.clear();
  saidNext = 0;
  Helper helper;
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    if (line.starts_with("=")) {
      said.emplace_back(line.substr(1));
      continue;
    }
    nlohmann::json request = nlohmann::json::parse(line, nullptr, false);
    if (request.is_object()) (void)helper.answer(request);
  }
}

}  // namespace

namespace lodge::network {

/// In place of the programs: nothing is run. What they are given is one line a command.
Result<std::string> runTool(const std::vector<std::string>& command, const std::string&) {
  for (const std::string& word : command) {
    if (word.find('\0') != std::string::npos || word.find('\n') != std::string::npos) std::abort();
  }
  if (said.empty()) return std::string();
  const std::string& text = said[saidNext++ % said.size()];
  if (text == "!") return Error(ErrorKind::io, "as the input wants");
  return text;
}

}  // namespace lodge::network

/// The first byte chooses.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool ready = makeWorld();
  if (!ready || size < 2) return 0;
  Bytes bytes(data + 1, size - 1);
  switch (data[0] % 6) {
    case 0:
      nameServer(bytes);
      break;
    case 1:
      dhcpServer(bytes);
      break;
    case 2:
    case 3:
      toSocket("ports", SOCK_SEQPACKET, bytes, data[0] % 6 == 3);
      break;
    case 4:
      toSocket("control", SOCK_STREAM, bytes, false);
      break;
    default:
      helper(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  return 0;
}
