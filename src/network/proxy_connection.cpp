// SPDX-License-Identifier: Apache-2.0
#include "network/proxy_connection.h"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>

#include <array>
#include <cerrno>

#include "base/text.h"
#include "network/socket_address.h"

namespace lodge::network {

namespace {

constexpr std::size_t kPipe = 256 << 10;
constexpr Nanoseconds kHandshake = 30 * kNanosecondsPerSecond, kConnecting = 15 * kNanosecondsPerSecond;

void noDelay(int fd) {
  int on = 1;
  [[maybe_unused]] int set = ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

std::uint8_t socksCodeOf(int error) {
  switch (error) {
    case ECONNREFUSED:
      return socks::kRefused;
    case ENETUNREACH:
      return socks::kNetworkUnreachable;
    case EHOSTUNREACH:
      return socks::kHostUnreachable;
    case ETIMEDOUT:
      return socks::kTimedOut;
    case EACCES:
    case EPERM:
      return socks::kNotAllowed;
    default:
      return socks::kFailure;
  }
}

}  // namespace

Proxy::Connection::Connection(Context context, Kind kind, UniqueFd client, std::function<void()> ended)
    : context_(context),
      kind_(kind),
      client_(std::move(client)),
      ended_(std::move(ended)),
      state_(kind == Kind::socks ? State::greeting : State::request) {
  noDelay(client_.get());
  patience_ = context_.loop.makeTimer([this] {
    context_.loop.post([this, alive = alive_] {
      if (!*alive) return;
      if (state_ == State::working && server_) return failed(ETIMEDOUT);
      end();
    });
  });
  patience_->arm(context_.loop.clock().now() + kHandshake);
  watch();
}

Proxy::Connection::~Connection() {
  *alive_ = false;
  context_.loop.unwatch(client_.get());
  if (server_) context_.loop.unwatch(server_.get());
}

void Proxy::Connection::end() {
  if (state_ == State::over) return;
  state_ = State::over;
  patience_->cancel();
  context_.loop.unwatch(client_.get());
  if (server_) context_.loop.unwatch(server_.get());
  ended_();
}

void Proxy::Connection::watch() {
  if (state_ == State::over) return;
  auto room = [](const Pipe& p) { return !p.ended && p.data.size() < kPipe; };
  bool working = state_ == State::working;
  std::uint32_t client = (room(up_) && !working ? EPOLLIN : 0u) | (down_.empty() ? 0u : EPOLLOUT);
  if (client != clientWatched_) {
    clientWatched_ = client;
    Status done = context_.loop.watch(client_.get(), client, [this](std::uint32_t events) { clientEvents(events); });
    if (!done) return end();
  }
  if (!server_) return;
  std::uint32_t server = working ? EPOLLOUT : (room(down_) ? EPOLLIN : 0u) | (up_.empty() ? 0u : EPOLLOUT);
  if (server == serverWatched_) return;
  serverWatched_ = server;
  Status done = context_.loop.watch(server_.get(), server, [this](std::uint32_t events) { serverEvents(events); });
  if (!done) end();
}

/// False: the connection broke.
bool Proxy::Connection::read(int fd, Pipe& pipe) {
  static std::array<std::uint8_t, 65536> buffer;  // one thread; what is in it is copied at once
  while (!pipe.ended && pipe.data.size() < kPipe) {
    ssize_t n = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    if (n == 0) pipe.ended = true;
    pipe.data.insert(pipe.data.end(), buffer.begin(), buffer.begin() + n);
    if (n < static_cast<ssize_t>(buffer.size())) break;
  }
  return true;
}

bool Proxy::Connection::write(int fd, Pipe& pipe) {
  while (!pipe.empty()) {
    ssize_t n = ::send(fd, pipe.data.data() + pipe.at, pipe.data.size() - pipe.at, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno == EAGAIN;
    pipe.at += static_cast<std::size_t>(n);
  }
  pipe.data.clear();
  pipe.at = 0;
  if (pipe.ended && !pipe.shut) {
    pipe.shut = true;
    ::shutdown(fd, SHUT_WR);
  }
  return true;
}

void Proxy::Connection::clientEvents(std::uint32_t events) {
  if (state_ == State::working && (events & (EPOLLERR | EPOLLHUP)) != 0) return end();
  if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0 && state_ != State::working && !read(client_.get(), up_))
    return end();
  switch (state_) {
    case State::relaying:
      return relay();
    case State::answering:
      if (!write(client_.get(), down_) || down_.empty()) return end();
      return watch();
    case State::associated:  // the datagrams go on for as long as this connection
      up_.data.clear();
      if (up_.ended || !write(client_.get(), down_)) return end();
      return watch();
    default:
      return handle();
  }
}

void Proxy::Connection::serverEvents(std::uint32_t events) {
  if (state_ == State::working) {
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(server_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return failed(error);
    if ((events & EPOLLOUT) != 0) connected();
    return;
  }
  if (state_ != State::relaying) return;
  if ((events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0 && !read(server_.get(), down_)) {
    // What came before the break is the client's still.
    down_.ended = up_.ended = up_.shut = true;
    up_.data.clear();
    up_.at = 0;
  }
  relay();
}

void Proxy::Connection::relay() {
  if (!write(client_.get(), down_) || !write(server_.get(), up_)) return end();
  if (up_.shut && down_.shut) return end();
  watch();
}

void Proxy::Connection::handle() {
  Reading reading = Reading::whole;
  while (reading == Reading::whole && (state_ == State::greeting || state_ == State::request))
    reading = kind_ == Kind::socks ? handleSocks() : handleHttp();
  if (reading == Reading::wrong) {
    if (kind_ == Kind::socks) return end();
    return refuse(0, "this is no request that a proxy answers");
  }
  bool waiting = state_ == State::greeting || state_ == State::request;
  if (waiting && up_.ended) return end();
  if (!write(client_.get(), down_)) return end();
  watch();
}

Reading Proxy::Connection::handleSocks() {
  std::size_t length = 0;
  if (state_ == State::greeting) {
    SocksGreeting greeting;
    Reading reading = readSocksGreeting(up_.data, length, greeting);
    if (reading != Reading::whole) return reading;
    up_.data.erase(up_.data.begin(), up_.data.begin() + static_cast<std::ptrdiff_t>(length));
    answer({socks::kVersion, static_cast<std::uint8_t>(greeting.anonymous ? 0 : 0xff)});
    state_ = greeting.anonymous ? State::request : State::answering;
    return reading;
  }
  SocksRequest request;
  Reading reading = readSocksRequest(up_.data, length, request);
  if (reading != Reading::whole) return reading;
  up_.data.erase(up_.data.begin(), up_.data.begin() + static_cast<std::ptrdiff_t>(length));
  if (!request.knownAddress) {
    refuse(socks::kNoAddressType, "");
  } else if (request.command == socks::kUdpAssociate) {
    associate();
  } else if (request.command != socks::kConnect) {
    refuse(socks::kNoCommand, "");
  } else {
    go(request.target);
  }
  return reading;
}

Reading Proxy::Connection::handleHttp() {
  std::size_t length = 0;
  HttpProxyRequest request;
  Reading reading = readHttpProxyRequest(up_.data, length, request);
  if (reading != Reading::whole) return reading;
  up_.data.erase(up_.data.begin(), up_.data.begin() + static_cast<std::ptrdiff_t>(length));
  tunnel_ = request.connect;
  up_.data.insert(up_.data.begin(), request.forward.begin(), request.forward.end());
  go(request.target);
  return reading;
}

void Proxy::Connection::associate() {
  auto opened = Datagrams::open(context_, client_.get());
  if (!opened) return refuse(socks::kFailure, opened.error().message());
  datagrams_ = std::move(*opened);
  patience_->cancel();
  state_ = State::associated;
  answer(socksReply(socks::kSucceeded, datagrams_->address(), datagrams_->port()));
}

void Proxy::Connection::go(const ProxyTarget& target) {
  state_ = State::working;
  target_ = target;
  patience_->cancel();
  if (target.address) {
    addresses_ = {*target.address};
    return connectNext();
  }
  context_.resolver.lookUp(target.name, [this, alive = alive_](std::vector<IpAddress> found) {
    if (!*alive || state_ != State::working) return;
    addresses_ = std::move(found);
    if (addresses_.empty()) return refuse(socks::kHostUnreachable, "the network knows no address of " + target_.name);
    connectNext();
  });
}

void Proxy::Connection::connectNext() {
  const IpAddress& address = addresses_[nextAddress_++];
  if (server_) context_.loop.unwatch(server_.get());
  serverWatched_ = 0;
  auto fd = context_.inside.socket(Inside::Kind::stream, address.v6);
  if (!fd) return refuse(socks::kFailure, fd.error().message());
  server_ = std::move(*fd);
  noDelay(server_.get());
  SocketAddress to(address, target_.port);
  patience_->arm(context_.loop.clock().now() + kConnecting);
  if (::connect(server_.get(), to.get(), to.length) != 0 && errno != EINPROGRESS) return failed(errno);
  watch();
}

void Proxy::Connection::failed(int error) {
  if (nextAddress_ < addresses_.size()) return connectNext();
  refuse(
      socksCodeOf(error),
      Error::fromErrno(error, fmt::format("connect to {} port {}",
                                          target_.name.empty() ? toText(*target_.address) : target_.name, target_.port))
          .message());
}

void Proxy::Connection::connected() {
  patience_->cancel();
  state_ = State::relaying;
  SocketAddress own;
  ::getsockname(server_.get(), own.get(), &own.length);
  if (kind_ == Kind::socks) {
    answer(socksReply(socks::kSucceeded, own.address(), own.port()));
  } else if (tunnel_) {
    std::string_view text = "HTTP/1.1 200 Connection established\r\n\r\n";
    answer({text.begin(), text.end()});
  }
  relay();
}

void Proxy::Connection::answer(const std::vector<std::uint8_t>& bytes) {
  down_.data.insert(down_.data.end(), bytes.begin(), bytes.end());
}

/// The client is told, and then it is over.
void Proxy::Connection::refuse(std::uint8_t socksCode, const std::string& why) {
  state_ = State::answering;
  if (kind_ == Kind::socks) {
    answer(socksReply(socksCode, IpAddress{}, 0));
  } else {
    std::string text = fmt::format(
        "HTTP/1.1 {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}\n",
        addresses_.empty() && target_.port == 0 ? "400 Bad Request" : "502 Bad Gateway", why.size() + 1, why);
    answer({text.begin(), text.end()});
  }
  patience_->arm(context_.loop.clock().now() + kHandshake);
  watch();
}

}  // namespace lodge::network
