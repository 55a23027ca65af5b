// SPDX-License-Identifier: Apache-2.0
#include "network/dhcp_client.h"

#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "base/bytes.h"
#include "network/dhcp.h"
#include "network/frame_builder.h"

namespace lodge::network {

namespace {

constexpr std::size_t kFixedPart = 240;
constexpr std::uint32_t kMagic = 0x63825363;
constexpr std::uint8_t kDiscover = 1, kOffered = 2, kRequest = 3, kAck = 5, kNak = 6;
constexpr Nanoseconds kFirstTry = kNanosecondsPerSecond, kLongestTry = 16 * kNanosecondsPerSecond;

void put(std::vector<std::uint8_t>& message, std::uint8_t code, std::span<const std::uint8_t> value) {
  message.push_back(code);
  message.push_back(static_cast<std::uint8_t>(value.size()));
  message.insert(message.end(), value.begin(), value.end());
}

void takeOption(DhcpOffer& offer, std::uint8_t code, std::span<const std::uint8_t> value) {
  if (code == 53 && value.size() == 1) offer.type = value[0];
  if (code == 51 && value.size() == 4) offer.seconds = loadBe<std::uint32_t>(value.data());
  if (value.size() < 4) return;
  auto first = IpAddress::from(value.first(4));
  if (code == 1) offer.mask = first;
  if (code == 3) offer.router = first;
  if (code == 54) offer.server = first;
  if (code != 6) return;
  for (std::size_t at = 0; at + 4 <= value.size() && offer.nameServers.size() < 4; at += 4)
    offer.nameServers.push_back(IpAddress::from(value.subspan(at, 4)));
}

}  // namespace

std::optional<DhcpOffer> parseDhcpOffer(std::span<const std::uint8_t> m, const MacAddress& mac) {
  if (m.size() < kFixedPart || m[0] != 2 || m[1] != 1 || m[2] != 6 || loadBe<std::uint32_t>(&m[236]) != kMagic ||
      !std::equal(mac.begin(), mac.end(), &m[28]))
    return std::nullopt;
  DhcpOffer offer;
  offer.transaction = loadBe<std::uint32_t>(&m[4]);
  offer.address = IpAddress::from(m.subspan(16, 4));
  for (std::size_t at = kFixedPart; at < m.size() && m[at] != 255;) {
    if (m[at] == 0) {
      ++at;
      continue;
    }
    if (at + 2 > m.size() || at + 2 + m[at + 1] > m.size()) return std::nullopt;
    takeOption(offer, m[at], m.subspan(at + 2, m[at + 1]));
    at += 2 + std::size_t{m[at + 1]};
  }
  if (offer.type == kNak) return offer;
  bool usable = !offer.address.unspecified() && !offer.address.multicast() && !offer.mask.unspecified();
  if ((offer.type != kOffered && offer.type != kAck) || !usable) return std::nullopt;
  return offer;
}

DhcpClient::DhcpClient(EventLoop& loop, UniqueFd packets, MacAddress mac, std::string hostName, Granted granted)
    : loop_(loop),
      packets_(std::move(packets)),
      mac_(mac),
      hostName_(std::move(hostName)),
      granted_(std::move(granted)),
      timer_(loop.makeTimer([this] { timeout(); })) {}

DhcpClient::~DhcpClient() {
  loop_.unwatch(packets_.get());
}

Status DhcpClient::start() {
  [[maybe_unused]] ssize_t got = ::getrandom(&transaction_, sizeof transaction_, 0);
  if (Status s = loop_.watch(packets_.get(), EPOLLIN, [this](std::uint32_t) { receive(); }); !s) return s;
  state_ = State::selecting;
  timeout();
  return {};
}

/// Says again what was not answered; asks for more time at half of it; starts over when it is up.
void DhcpClient::timeout() {
  Nanoseconds now = loop_.clock().now();
  if (state_ == State::bound && now >= expires_) state_ = State::selecting;
  if (state_ == State::requesting && tries_ > 4) state_ = State::selecting;
  send(state_ == State::selecting ? kDiscover : kRequest);
  Nanoseconds pause = state_ == State::bound ? std::max<Nanoseconds>((expires_ - now) / 2, kNanosecondsPerSecond)
                                             : std::min(kFirstTry << std::min(tries_, 4u), kLongestTry);
  ++tries_;
  timer_->arm(now + pause);
}

void DhcpClient::send(std::uint8_t type) {
  std::vector<std::uint8_t> m(kFixedPart);
  m[0] = 1;
  m[1] = 1;
  m[2] = 6;
  storeBe(&m[4], transaction_);
  m[10] = 0x80;  // answers by broadcast
  std::copy(mac_.begin(), mac_.end(), &m[28]);
  storeBe(&m[236], kMagic);
  put(m, 53, std::array{type});
  if (type == kRequest && state_ == State::requesting) {
    put(m, 50, offer_->address.span());
    put(m, 54, offer_->server.span());
  } else if (type == kRequest) {
    auto current = offer_->address.span();
    std::copy(current.begin(), current.end(), &m[12]);
  }
  if (!hostName_.empty())
    put(m, 12, {reinterpret_cast<const std::uint8_t*>(hostName_.data()), std::min<std::size_t>(hostName_.size(), 63)});
  put(m, 55, std::array<std::uint8_t, 5>{1, 3, 6, 51, 54});
  m.push_back(255);
  m.resize(std::max<std::size_t>(m.size(), 300));
  IpAddress from = state_ == State::bound ? offer_->address : IpAddress{};
  Frame frame =
      udpFrame({mac_, from, kDhcpClientPort}, {kBroadcast, IpAddress::v4From(0xffffffff), kDhcpServerPort}, m);
  [[maybe_unused]] ssize_t sent = ::send(packets_.get(), frame.data(), frame.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

void DhcpClient::receive() {
  std::array<std::uint8_t, 4096> buffer;
  for (unsigned n = 0; n < 64; ++n) {
    ssize_t length = ::recv(packets_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (length <= 0) return;
    auto frame = std::span(buffer).first(static_cast<std::size_t>(length));
    auto packet = parsePacket(frame);
    if (!packet || packet->protocol != protocol::kUdp || packet->toPort != kDhcpClientPort || packet->payload == 0)
      continue;
    auto offer = parseDhcpOffer(frame.subspan(packet->payload, packet->end - packet->payload), mac_);
    if (offer && offer->transaction == transaction_) take(*offer);
  }
}

void DhcpClient::take(const DhcpOffer& offer) {
  Nanoseconds now = loop_.clock().now();
  if (offer.type == kOffered && state_ == State::selecting) {
    offer_ = offer;
    state_ = State::requesting;
    tries_ = 0;
    return timer_->arm(now);
  }
  if (offer.type == kNak && state_ != State::selecting) {
    state_ = State::selecting;
    tries_ = 0;
    return timer_->arm(now + kFirstTry);
  }
  if (offer.type != kAck || state_ == State::selecting) return;
  bool changed = state_ != State::bound || offer.address != offer_->address;
  offer_ = offer;
  state_ = State::bound;
  tries_ = 0;
  auto time = static_cast<Nanoseconds>(std::max(offer.seconds, 10u)) * kNanosecondsPerSecond;
  expires_ = now + time;
  timer_->arm(now + time / 2);
  if (changed) granted_(offer);
}

}  // namespace lodge::network
