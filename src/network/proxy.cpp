// SPDX-License-Identifier: Apache-2.0
#include "network/proxy.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <array>
#include <cerrno>

#include "base/log.h"
#include "base/text.h"
#include "network/proxy_connection.h"
#include "network/socket_address.h"

namespace lodge::network {

namespace {

constexpr std::size_t kMostConnections = 2048, kMostLookUps = 64;

}  // namespace

Proxy::Proxy(Context context) : context_(context) {}

Proxy::~Proxy() {
  for (UniqueFd& fd : listeners_) context_.loop.unwatch(fd.get());
}

Result<std::uint16_t> Proxy::listen(Kind kind, const IpAddress& address, std::uint16_t port) {
  SocketAddress where(address, port);
  UniqueFd fd(::socket(address.v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  int on = 1;
  if (fd) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (!fd || ::bind(fd.get(), where.get(), where.length) != 0 || ::listen(fd.get(), 128) != 0) {
    return Error::fromErrno(errno, fmt::format("listen at {} port {}", toText(address), port))
        .withHint("choose another port; those under 1024 need a privilege");
  }
  SocketAddress own;
  ::getsockname(fd.get(), own.get(), &own.length);
  int raw = fd.get();
  listeners_.push_back(std::move(fd));
  if (Status s = context_.loop.watch(raw, EPOLLIN, [this, raw, kind](std::uint32_t) { accept(raw, kind); }); !s)
    return std::move(s).error();
  return own.port();
}

void Proxy::accept(int listener, Kind kind) {
  UniqueFd client(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!client || connections_.size() >= kMostConnections) return;
  std::uint64_t number = next_++;
  connections_[number] = std::make_unique<Connection>(context_, kind, std::move(client), [this, number] {
    context_.loop.post([this, number] { connections_.erase(number); });
  });
}

Result<std::unique_ptr<Proxy::Datagrams>> Proxy::Datagrams::open(Context context, int client) {
  SocketAddress own, peer;
  if (::getsockname(client, own.get(), &own.length) != 0 || ::getpeername(client, peer.get(), &peer.length) != 0)
    return Error::fromErrno(errno, "the client's address");
  SocketAddress here(own.address(), 0);
  UniqueFd fd(::socket(own.storage.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd || ::bind(fd.get(), here.get(), here.length) != 0) return Error::fromErrno(errno, "a socket for datagrams");
  SocketAddress bound;
  ::getsockname(fd.get(), bound.get(), &bound.length);
  int raw = fd.get();
  std::unique_ptr<Datagrams> all(new Datagrams(context, std::move(fd), own.address(), bound.port(), peer.address()));
  Status watched = context.loop.watch(raw, EPOLLIN, [d = all.get()](std::uint32_t) { d->fromClient(); });
  if (!watched) return std::move(watched).error();
  return all;
}

Proxy::Datagrams::~Datagrams() {
  *alive_ = false;
  for (UniqueFd* fd : {&outside_, &inside_[0], &inside_[1]}) {
    if (*fd) context_.loop.unwatch(fd->get());
  }
}

void Proxy::Datagrams::fromClient() {
  static std::array<std::uint8_t, 65536> buffer;
  for (unsigned n = 0; n < 64; ++n) {
    SocketAddress from;
    ssize_t length = ::recvfrom(outside_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT, from.get(), &from.length);
    if (length < 0) return;
    if (from.address() != client_ || (clientPort_ != 0 && from.port() != clientPort_)) continue;
    auto datagram = readSocksDatagram(std::span(buffer).first(static_cast<std::size_t>(length)));
    if (!datagram) continue;
    clientPort_ = from.port();
    const ProxyTarget& to = datagram->target;
    if (to.address) {
      send(*to.address, to.port, datagram->data);
      continue;
    }
    if (lookUps_ >= kMostLookUps) continue;
    ++lookUps_;
    context_.resolver.lookUp(to.name, [this, alive = alive_, port = to.port,
                                       data = std::vector(datagram->data.begin(), datagram->data.end())](
                                          const std::vector<IpAddress>& found) {
      if (!*alive) return;
      --lookUps_;
      if (!found.empty()) send(found[0], port, data);
    });
  }
}

void Proxy::Datagrams::send(const IpAddress& to, std::uint16_t port, std::span<const std::uint8_t> data) {
  UniqueFd& fd = inside_[to.v6 ? 1 : 0];
  if (!fd) {
    auto made = context_.inside.socket(Inside::Kind::datagram, to.v6);
    if (!made) return log(LogLevel::warning, "proxy: {}", made.error().message());
    fd = std::move(*made);
    bool v6 = to.v6;
    Status watched = context_.loop.watch(fd.get(), EPOLLIN, [this, v6](std::uint32_t) { fromInside(v6); });
    if (!watched) return fd.reset();
  }
  SocketAddress address(to, port);
  [[maybe_unused]] ssize_t sent =
      ::sendto(fd.get(), data.data(), data.size(), MSG_DONTWAIT | MSG_NOSIGNAL, address.get(), address.length);
}

void Proxy::Datagrams::fromInside(bool v6) {
  static std::array<std::uint8_t, 65536> buffer;
  for (unsigned n = 0; n < 64; ++n) {
    SocketAddress from;
    ssize_t length =
        ::recvfrom(inside_[v6 ? 1 : 0].get(), buffer.data(), buffer.size(), MSG_DONTWAIT, from.get(), &from.length);
    if (length < 0) return;  // of an error that a datagram met, or nothing more
    auto out = socksDatagram(from.address(), from.port(), std::span(buffer).first(static_cast<std::size_t>(length)));
    SocketAddress client(client_, clientPort_);
    [[maybe_unused]] ssize_t sent =
        ::sendto(outside_.get(), out.data(), out.size(), MSG_DONTWAIT | MSG_NOSIGNAL, client.get(), client.length);
  }
}

}  // namespace lodge::network
