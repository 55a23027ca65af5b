// SPDX-License-Identifier: Apache-2.0
#include "network/tunnel.h"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"
#include "net/offload.h"
#include "net/virtio_header.h"
#include "network/packet.h"

namespace lodge::network {

namespace {

/// What a stream and each datagram begin with.
constexpr std::array<std::uint8_t, 8> kHello = {'l', 'o', 'd', 'g', 'e', 't', 'n', '1'};
constexpr std::array<std::uint8_t, 4> kMagic = {'L', 't', 'n', '1'};
constexpr std::uint8_t kKnock = 0, kFrame = 1;
constexpr std::size_t kMostOutput = 3 << 20;
constexpr Nanoseconds kAgain = kNanosecondsPerSecond, kSilence = 30 * kNanosecondsPerSecond;

std::string textOf(const TunnelSettings& t) {
  return "tunnel " + tunnelText(t);
}

}  // namespace

bool StreamFrames::add(std::span<const std::uint8_t> bytes) {
  data_.erase(data_.begin(), data_.begin() + static_cast<std::ptrdiff_t>(std::exchange(at_, 0)));
  data_.insert(data_.end(), bytes.begin(), bytes.end());
  return data_.size() < 4 || loadBe<std::uint32_t>(data_.data()) <= kLongest;
}

std::optional<std::span<const std::uint8_t>> StreamFrames::next() {
  if (data_.size() - at_ < 4) return std::nullopt;
  std::size_t length = loadBe<std::uint32_t>(&data_[at_]);
  if (length > kLongest || data_.size() - at_ - 4 < length) return std::nullopt;
  auto message = std::span(data_).subspan(at_ + 4, length);
  at_ += 4 + length;
  return message;
}

void StreamFrames::clear() {
  data_.clear();
  at_ = 0;
}

Tunnel::Tunnel(EventLoop& loop, TunnelSettings settings)
    : loop_(loop), settings_(std::move(settings)), timer_(loop.makeTimer([this] { tick(); })) {}

Tunnel::~Tunnel() {
  for (UniqueFd* fd : {&listener_, &fd_}) {
    if (*fd) loop_.unwatch(fd->get());
  }
}

Status Tunnel::listen() {
  auto address = ipFrom(settings_.address);
  SocketAddress where(address.value_or(IpAddress{}), settings_.port);
  int type = (settings_.udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
  UniqueFd fd(::socket(where.storage.ss_family, type, 0));
  int on = 1;
  if (fd && !settings_.udp) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  bool bound = fd && ::bind(fd.get(), where.get(), where.length) == 0;
  if (!bound || (!settings_.udp && ::listen(fd.get(), 4) != 0))
    return Error::fromErrno(errno, textOf(settings_)).withHint("choose another address or port with --tunnel");
  (settings_.udp ? fd_ : listener_) = std::move(fd);
  return {};
}

Status Tunnel::start() {
  if (settings_.listens) {
    if (Status s = listen(); !s) return s;
  } else if (settings_.udp) {
    auto address = ipFrom(settings_.address);
    peer_ = SocketAddress(address.value_or(IpAddress{}), settings_.port);
    fd_.reset(::socket(peer_->storage.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd_) return Error::fromErrno(errno, textOf(settings_));
  }
  timer_->arm(loop_.clock().now());
  if (settings_.udp) return loop_.watch(fd_.get(), EPOLLIN, [this](std::uint32_t) { receiveDatagrams(); });
  if (settings_.listens) return loop_.watch(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept(); });
  return {};
}

/// Each second: the side that connects knocks, or tries again.
void Tunnel::tick() {
  Nanoseconds now = loop_.clock().now();
  if (settings_.udp) {
    if (peer_) sendDatagram(kKnock, {});
    if (heard_ && now - lastHeard_ > kSilence) {
      heard_ = false;
      if (settings_.listens) peer_.reset();
      log(LogLevel::warning, "{}: the other side is silent", textOf(settings_));
    }
  } else if (!settings_.listens && !fd_) {
    connectNow();
  }
  timer_->arm(now + kAgain);
}

void Tunnel::connectNow() {
  auto address = ipFrom(settings_.address);
  SocketAddress to(address.value_or(IpAddress{}), settings_.port);
  fd_.reset(::socket(to.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd_) return;
  connecting_ = true;
  if (::connect(fd_.get(), to.get(), to.length) != 0 && errno != EINPROGRESS) return fd_.reset();
  output_.assign(kHello.begin(), kHello.end());
  watchStream();
}

void Tunnel::accept() {
  UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  // A peer that came back may not have been missed yet: the newest is the one that lives.
  if (!fd) return;
  if (fd_) lost();
  fd_ = std::move(fd);
  connecting_ = false;
  output_.assign(kHello.begin(), kHello.end());
  watchStream();
}

void Tunnel::lost() {
  if (heard_) log(LogLevel::warning, "{}: the other side has gone", textOf(settings_));
  loop_.unwatch(fd_.get());
  fd_.reset();
  heard_ = connecting_ = false;
  input_.clear();
  output_.clear();
  written_ = 0;
  watched_ = 0;
}

void Tunnel::watchStream() {
  std::uint32_t wanted = (connecting_ ? 0u : EPOLLIN) | (output_.empty() ? 0u : EPOLLOUT);
  if (wanted == watched_) return;
  watched_ = wanted;
  Status done = loop_.watch(fd_.get(), wanted, [this](std::uint32_t events) { streamEvents(events); });
  if (!done) lost();
}

void Tunnel::streamEvents(std::uint32_t events) {
  if (connecting_) {
    int error = 0, on = 1;
    socklen_t length = sizeof error;
    ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0 || (events & (EPOLLERR | EPOLLHUP)) != 0) return lost();
    connecting_ = false;
    [[maybe_unused]] int set = ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if ((events & EPOLLOUT) != 0) flush();
  if (fd_ && (events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) receiveStream();
  if (fd_) watchStream();
}

void Tunnel::flush() {
  while (written_ < output_.size()) {
    ssize_t n = ::send(fd_.get(), output_.data() + written_, output_.size() - written_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) return lost();
    written_ += static_cast<std::size_t>(n);
  }
  output_.clear();
  written_ = 0;
}

void Tunnel::queue(std::span<const std::uint8_t> header, std::span<const std::uint8_t> frame) {
  if (output_.size() - written_ + frame.size() > kMostOutput) return;  // lost, as on a wire that is full
  if (written_ > kMostOutput / 2)
    output_.erase(output_.begin(), output_.begin() + static_cast<std::ptrdiff_t>(std::exchange(written_, 0)));
  std::array<std::uint8_t, 4> length;
  storeBe(length.data(), static_cast<std::uint32_t>(header.size() + frame.size()));
  output_.insert(output_.end(), length.begin(), length.end());
  output_.insert(output_.end(), header.begin(), header.end());
  output_.insert(output_.end(), frame.begin(), frame.end());
}

void Tunnel::receiveStream() {
  static std::array<std::uint8_t, 65536> buffer;
  for (unsigned n = 0; n < 16; ++n) {
    ssize_t length = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (length <= 0) return lost();
    std::span<const std::uint8_t> bytes(buffer.data(), static_cast<std::size_t>(length));
    if (!heard_) {
      if (bytes.size() < kHello.size() || !std::equal(kHello.begin(), kHello.end(), bytes.begin())) return lost();
      heard_ = true;
      bytes = bytes.subspan(kHello.size());
      log(LogLevel::info, "{}: connected", textOf(settings_));
    }
    if (!input_.add(bytes)) return lost();
    while (auto message = input_.next()) {
      if (message->size() > kVirtioHeaderSize && receiver_)
        receiver_(message->subspan(kVirtioHeaderSize), fromHeader(*message));
    }
    if (!fd_) return;  // what came led to an answer, and the answer into the void
  }
}

void Tunnel::sendDatagram(std::uint8_t type, std::span<const std::uint8_t> frame) {
  if (!peer_) return;
  std::array<std::uint8_t, 5> head = {kMagic[0], kMagic[1], kMagic[2], kMagic[3], type};
  std::array<iovec, 2> pieces = {{{head.data(), head.size()}, {const_cast<std::uint8_t*>(frame.data()), frame.size()}}};
  msghdr message{};
  message.msg_name = peer_->get();
  message.msg_namelen = peer_->length;
  message.msg_iov = pieces.data();
  message.msg_iovlen = pieces.size();
  [[maybe_unused]] ssize_t sent = ::sendmsg(fd_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void Tunnel::receiveDatagrams() {
  static std::array<std::uint8_t, 65536> buffer;
  for (unsigned n = 0; n < 64; ++n) {
    SocketAddress from;
    ssize_t length = ::recvfrom(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT, from.get(), &from.length);
    if (length < 0) return;
    datagram(std::span(buffer).first(static_cast<std::size_t>(length)), from);
  }
}

void Tunnel::datagram(std::span<const std::uint8_t> bytes, const SocketAddress& from) {
  if (bytes.size() <= kMagic.size() || !std::equal(kMagic.begin(), kMagic.end(), bytes.begin())) return;
  bool known = peer_ && from.address() == peer_->address() && from.port() == peer_->port();
  if (!known && (peer_ || !settings_.listens)) return;
  peer_ = from;
  lastHeard_ = loop_.clock().now();
  if (!std::exchange(heard_, true)) log(LogLevel::info, "{}: the other side is there", textOf(settings_));
  auto frame = bytes.subspan(kMagic.size() + 1);
  if (bytes[kMagic.size()] == kFrame && receiver_ && !frame.empty()) receiver_(frame, FrameOffload{});
}

void Tunnel::send(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  if (!heard_) return;
  if (settings_.udp) {
    if (!offload.needsChecksum && offload.segmentation == 0) return sendDatagram(kFrame, frame);
    finishOffload(frame, offload, [&](std::span<const std::uint8_t> finished) { sendDatagram(kFrame, finished); });
    return;
  }
  bool idle = output_.empty();
  queue(toHeader(offload), frame);
  if (!idle) return;
  flush();
  if (fd_) watchStream();
}

}  // namespace lodge::network
