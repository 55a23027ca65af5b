// SPDX-License-Identifier: Apache-2.0
// How a port's cable is plugged in: a socket, a tap device from elsewhere, a tap device in the host's bridge.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "base/text.h"
#include "network/server.h"

namespace lodge::network {

/// A machine may have several cards in one network: the second's port is NAME.2.
void Server::nameAnew(PortSettings& settings) const {
  auto taken = [&](const std::string& name) {
    for (const auto& [id, port] : network_.ports()) {
      if (port->settings().name == name) return true;
    }
    return false;
  };
  std::string name = settings.name;
  for (unsigned n = 2; taken(settings.name); ++n) settings.name = fmt::format("{}.{}", name, n);
}

/// A tap device that a program made in a namespace of its own.
Result<std::unique_ptr<MessageNet>> Server::cableOf(UniqueFd tap) {
  int size = kVirtioHeaderSize;
  ifreq flags{};
  if (::ioctl(tap.get(), TUNGETIFF, &flags) != 0 || (flags.ifr_flags & IFF_TAP) == 0 ||
      (flags.ifr_flags & IFF_VNET_HDR) == 0 || ::ioctl(tap.get(), TUNSETVNETHDRSZ, &size) != 0)
    return Error(ErrorKind::invalidArgument, "the descriptor is no tap device with offload headers");
  ::fcntl(tap.get(), F_SETFL, ::fcntl(tap.get(), F_GETFL) | O_NONBLOCK);
  return std::make_unique<MessageNet>(loop_, std::move(tap), MessageNet::Kind::tap);
}

/// {"direct":{"queues":N,"must":true}}: where it is not to be had and need not be, nothing.
Result<DirectLink::Made> Server::plugDirect(const Json& wanted, const PortSettings& settings, UniqueFd existing) {
  auto queues = wanted.find("queues");
  bool good = queues != wanted.end() && queues->is_number_unsigned() && queues->get<std::uint64_t>() <= 8;
  bool must = wanted.value("must", Json()) == Json(true) || existing;
  const char* needs = network_.needsSwitch(settings);
  if (!must && needs) return Error(ErrorKind::unsupported, fmt::format("the port {}", needs));
  return network_.plug(settings, good ? queues->get<unsigned>() : 1, std::move(existing));
}

/// What a member whose frames go elsewhere has to say: {"vhost":true}, or that it is gone.
void Server::hear(std::uint64_t number) {
  auto it = members_.find(number);
  if (it == members_.end()) return;
  auto message = receiveMessage(it->second->fd.get());
  if (!message) return memberGone(number);
  auto port = network_.ports().find(it->second->port);
  if (port == network_.ports().end() || !port->second->direct()) return;
  port->second->direct()->setByVhost(message->facts.value("vhost", Json()) == Json(true));
}

Status Server::joinMember(std::uint64_t number, Member& member, const Json& request, UniqueFd tap,
                          std::vector<UniqueFd>& queues) {
  PortSettings settings;
  if (Status read = updatePort(request, settings); !read) return read;
  if (settings.name.empty()) settings.name = fmt::format("port{}", number);
  nameAnew(settings);
  std::unique_ptr<NetBackend> link;
  const bool brought = bool(tap);
  auto direct = request.find("direct");
  if (direct != request.end() && direct->is_object()) {
    bool must = direct->value("must", Json()) == Json(true) || brought;
    UniqueFd existing(brought ? ::fcntl(tap.get(), F_DUPFD_CLOEXEC, 0) : -1);
    auto made = plugDirect(*direct, settings, std::move(existing));
    if (!made && must) return std::move(made).error();
    if (made) {
      link = std::move(made->link);
      queues = std::move(made->queues);
      member.direct = true;
    } else {
      log(LogLevel::info, "{} is not in the host's bridge: {}", inQuotes(settings.name), made.error().message());
    }
  }
  const bool apart = brought || link;  // the socket says only when the port goes
  if (!link) {
    auto cable = brought ? cableOf(std::move(tap))
                         : Result<std::unique_ptr<MessageNet>>(
                               std::make_unique<MessageNet>(loop_, std::move(member.fd), MessageNet::Kind::socket));
    if (!cable) return std::move(cable).error();
    (*cable)->onGone([this, number] { loop_.post([this, number] { memberGone(number); }); });
    link = std::move(*cable);
  }
  if (apart) {
    Status watched = loop_.watch(member.fd.get(), EPOLLIN | EPOLLHUP, [this, number](std::uint32_t) { hear(number); });
    if (!watched) return watched;
  }
  auto port = network_.join(std::move(settings), std::move(link));
  if (!port) return std::move(port).error();
  member.port = *port;
  return {};
}

}  // namespace lodge::network
