// SPDX-License-Identifier: Apache-2.0
#include "network/dns_by_tcp.h"

#include <sys/random.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/bytes.h"

namespace lodge::network {

namespace {

constexpr std::size_t kMostConnections = 128, kMostPerClient = 8;
constexpr std::size_t kLargestQuery = 4096, kLargestMessage = 65535;
constexpr Nanoseconds kFirstRetry = kNanosecondsPerSecond / 2, kIdle = 15 * kNanosecondsPerSecond;
constexpr unsigned kMostTries = 5;
constexpr std::uint16_t kSmallestMss = 88, kDefaultMss = 536, kDefaultMss6 = 1220;
constexpr std::size_t kTcpHeader = 20;

namespace flag {
constexpr std::uint8_t fin = 1, syn = 2, rst = 4, psh = 8, ack = 16;
}

/// Sequence numbers go round: how far `a` is behind `b`, negative if it is before it.
std::int32_t ahead(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::int32_t>(a - b);
}

std::uint16_t mssOption(std::span<const std::uint8_t> options, bool v6) {
  std::uint16_t mss = v6 ? kDefaultMss6 : kDefaultMss;
  for (std::size_t at = 0; at < options.size() && options[at] != 0;) {
    if (options[at] == 1) {
      ++at;
      continue;
    }
    if (at + 2 > options.size() || options[at + 1] < 2 || at + options[at + 1] > options.size()) break;
    if (options[at] == 2 && options[at + 1] == 4) mss = loadBe<std::uint16_t>(&options[at + 2]);
    at += options[at + 1];
  }
  return std::max(mss, kSmallestMss);
}

}  // namespace

/// What came in.
struct DnsByTcp::Segment {
  Endpoint from, to;
  std::uint32_t sequence = 0, acknowledged = 0;
  std::uint8_t flags = 0;
  std::uint16_t window = 0;
  std::span<const std::uint8_t> options{}, data{};
};

/// Names of RFC 9293, 3.3.1: `unacknowledged` SND.UNA, `sent` SND.NXT, `expected` RCV.NXT.
struct DnsByTcp::Connection {
  Endpoint here, there;
  std::uint64_t number = 0;
  std::uint32_t unacknowledged = 0, sent = 0, expected = 0;
  std::uint16_t window = 0, mss = kDefaultMss;
  bool established = false;                 ///< else our SYN is not acknowledged yet
  bool peerFinished = false;                ///< nothing more will come
  bool finished = false;                    ///< our FIN is behind the last byte of `output`
  bool asking = false;                      ///< a question is being answered
  std::vector<std::uint8_t> input, output;  ///< `output` begins at SND.UNA
  unsigned tries = 0;
  Nanoseconds heard = 0, deadline = 0;

  bool waiting() const { return sent != unacknowledged || !output.empty(); }
  bool hasQuestion() const { return input.size() >= 2 && input.size() >= 2u + loadBe<std::uint16_t>(input.data()); }
};

DnsByTcp::DnsByTcp(TimerFactory& timers, unsigned mtu, Emit emit, Ask ask)
    : timers_(timers), mtu_(mtu), emit_(std::move(emit)), ask_(std::move(ask)) {
  timer_ = timers_.makeTimer([this] { expire(); });
}

DnsByTcp::~DnsByTcp() {
  *alive_ = false;
}

void DnsByTcp::emit(Connection& c, std::uint32_t sequence, std::uint8_t flags, std::span<const std::uint8_t> data) {
  TcpFields fields{.sequence = sequence, .acknowledged = c.expected, .flags = flags};
  fields.window = static_cast<std::uint16_t>(2 + kLargestQuery - std::min(c.input.size(), 2 + kLargestQuery));
  if ((flags & flag::syn) != 0) fields.mss = static_cast<std::uint16_t>(mtu_ - (c.here.address.v6 ? 60 : 40));
  emit_(tcpFrame(c.here, c.there, fields, data));
}

void DnsByTcp::refuse(const Segment& s) {
  if ((s.flags & flag::rst) != 0) return;
  bool acks = (s.flags & flag::ack) != 0;
  std::uint32_t length = static_cast<std::uint32_t>(s.data.size()) + ((s.flags & (flag::syn | flag::fin)) != 0 ? 1 : 0);
  TcpFields fields{.sequence = acks ? s.acknowledged : 0,
                   .acknowledged = acks ? 0 : s.sequence + length,
                   .flags = static_cast<std::uint8_t>(acks ? flag::rst : flag::rst | flag::ack)};
  emit_(tcpFrame(s.to, s.from, fields, {}));
}

void DnsByTcp::segment(std::span<const std::uint8_t> frame, const Packet& p) {
  if (p.transport == 0 || p.payload < p.transport + kTcpHeader || p.end < p.payload || p.end > frame.size()) return;
  if (isGroup(p.destination) || isGroup(p.source) || p.from.multicast() || p.from.unspecified()) return;
  const std::uint8_t* h = &frame[p.transport];
  Segment s{.from = {p.source, p.from, p.fromPort}, .to = {p.destination, p.to, p.toPort}};
  s.sequence = loadBe<std::uint32_t>(h + 4);
  s.acknowledged = loadBe<std::uint32_t>(h + 8);
  s.flags = h[13];
  s.window = loadBe<std::uint16_t>(h + 14);
  s.options = frame.subspan(p.transport + kTcpHeader, p.payload - p.transport - kTcpHeader);
  s.data = frame.subspan(p.payload, p.end - p.payload);
  Key key{p.to, p.from, p.fromPort};
  auto it = connections_.find(key);
  if (it == connections_.end()) {
    bool opens = (s.flags & (flag::syn | flag::ack | flag::rst | flag::fin)) == flag::syn;
    if (opens)
      open(key, s);
    else
      refuse(s);
    return rearm();
  }
  Connection& c = *it->second;
  c.heard = timers_.clock().now();
  if ((s.flags & flag::rst) != 0) {
    if (s.sequence == c.expected) connections_.erase(it);
    return rearm();
  }
  if ((s.flags & flag::syn) != 0) {
    // The same SYN once more, or one of a client that has forgotten the connection, whom this tells (RFC 5961, 4).
    if (!c.established && s.sequence + 1 == c.expected)
      emit(c, c.unacknowledged, flag::syn | flag::ack);
    else
      emit(c, c.sent, flag::ack);
    return;
  }
  if (!acknowledge(c, s)) return rearm();
  take(c, s);
  if (c.finished && !c.waiting())
    connections_.erase(it);
  else
    serve(key, c);
  rearm();
}

bool DnsByTcp::makeRoom(const MacAddress& client) {
  std::size_t theirs = 0;
  auto quietest = connections_.end();
  for (auto it = connections_.begin(); it != connections_.end(); ++it) {
    theirs += it->second->there.mac == client ? 1 : 0;
    if (quietest == connections_.end() || it->second->heard < quietest->second->heard) quietest = it;
  }
  if (theirs >= kMostPerClient) return false;
  if (connections_.size() >= kMostConnections) connections_.erase(quietest);
  return true;
}

void DnsByTcp::open(const Key& key, const Segment& s) {
  if (!makeRoom(s.from.mac)) return refuse(s);
  auto c = std::make_unique<Connection>();
  c->here = s.to;
  c->there = s.from;
  c->number = next_++;
  [[maybe_unused]] ssize_t got = ::getrandom(&c->unacknowledged, sizeof c->unacknowledged, 0);
  c->sent = c->unacknowledged + 1;
  c->expected = s.sequence + 1;
  c->window = s.window;
  auto room = static_cast<std::uint16_t>(std::min(65535u, mtu_) - (key.here.v6 ? 60 : 40));
  c->mss = std::min(mssOption(s.options, key.here.v6), room);
  c->heard = timers_.clock().now();
  c->deadline = c->heard + kFirstRetry;
  emit(*c, c->unacknowledged, flag::syn | flag::ack);
  connections_[key] = std::move(c);
}

/// What of ours has arrived. False: the segment is to be dropped.
bool DnsByTcp::acknowledge(Connection& c, const Segment& s) {
  if ((s.flags & flag::ack) == 0) return false;
  if (ahead(s.acknowledged, c.sent) > 0 || ahead(s.acknowledged, c.unacknowledged) < 0) {
    if (ahead(s.acknowledged, c.sent) > 0) emit(c, c.sent, flag::ack);
    return false;
  }
  std::uint32_t count = s.acknowledged - c.unacknowledged;
  if (!c.established) {
    if (count == 0) return false;
    c.established = true;
    ++c.unacknowledged;
    --count;
  }
  std::size_t bytes = std::min<std::size_t>(count, c.output.size());
  c.output.erase(c.output.begin(), c.output.begin() + static_cast<std::ptrdiff_t>(bytes));
  c.unacknowledged = s.acknowledged;
  c.window = s.window;
  if (count != 0) c.tries = 0;
  c.deadline = timers_.clock().now() + kFirstRetry;
  return true;
}

void DnsByTcp::take(Connection& c, const Segment& s) {
  bool fin = (s.flags & flag::fin) != 0;
  if (s.data.empty() && !fin) return;
  std::int32_t before = ahead(c.expected, s.sequence);
  if (before >= 0 && !c.peerFinished && static_cast<std::size_t>(before) <= s.data.size()) {
    auto data = s.data.subspan(static_cast<std::size_t>(before));
    std::size_t room = 2 + kLargestQuery - std::min(c.input.size(), 2 + kLargestQuery);
    if (data.size() > room) {
      data = data.first(room);
      fin = false;
    }
    c.input.insert(c.input.end(), data.begin(), data.end());
    c.expected += static_cast<std::uint32_t>(data.size());
    if (fin) {
      c.peerFinished = true;
      ++c.expected;
    }
  }
  emit(c, c.sent, flag::ack);
}

/// The next question, if the one before has been answered and its answer has arrived.
void DnsByTcp::serve(const Key& key, Connection& c) {
  if (!c.established) return;
  while (!c.asking && c.output.empty() && c.input.size() >= 2) {
    std::size_t length = loadBe<std::uint16_t>(c.input.data());
    if (length > kLargestQuery || length < 12) {
      emit(c, c.sent, flag::rst | flag::ack);
      connections_.erase(key);
      return;
    }
    if (c.input.size() < 2 + length) break;
    std::vector<std::uint8_t> query(c.input.begin() + 2, c.input.begin() + 2 + static_cast<std::ptrdiff_t>(length));
    c.input.erase(c.input.begin(), c.input.begin() + 2 + static_cast<std::ptrdiff_t>(length));
    c.asking = true;
    serving_ = true;
    ask_(query, [this, key, number = c.number, alive = alive_](std::span<const std::uint8_t> message) {
      if (*alive) answered(key, number, message);
    });
    serving_ = false;
  }
  transmit(c, false);
}

void DnsByTcp::answered(const Key& key, std::uint64_t number, std::span<const std::uint8_t> message) {
  auto it = connections_.find(key);
  if (it == connections_.end() || it->second->number != number || message.size() > kLargestMessage) return;
  Connection& c = *it->second;
  c.asking = false;
  c.output.resize(2);
  storeBe(c.output.data(), static_cast<std::uint16_t>(message.size()));
  c.output.insert(c.output.end(), message.begin(), message.end());
  if (serving_) return;  // serve() goes on with it
  serve(key, c);
  rearm();
}

/// What the peer's window has room for; with `again` all from the oldest byte on, one byte at least (RFC
/// 9293, 3.8.6.1).
void DnsByTcp::transmit(Connection& c, bool again) {
  if (!c.established) {
    if (again) emit(c, c.unacknowledged, flag::syn | flag::ack);
    return;
  }
  std::uint32_t before = c.sent;
  std::size_t window = again ? std::max<std::size_t>(c.window, 1) : c.window;
  std::size_t at = again ? 0 : c.sent - c.unacknowledged;
  while (at < std::min(c.output.size(), window)) {
    std::size_t part = std::min<std::size_t>(c.mss, std::min(c.output.size(), window) - at);
    emit(c, c.unacknowledged + static_cast<std::uint32_t>(at), flag::ack | flag::psh,
         std::span(c.output).subspan(at, part));
    at += part;
    std::uint32_t end = c.unacknowledged + static_cast<std::uint32_t>(at);
    if (ahead(end, c.sent) > 0) c.sent = end;
  }
  if (at >= c.output.size() && c.peerFinished && !c.asking && !c.hasQuestion() && (!c.finished || again)) {
    std::uint32_t end = c.unacknowledged + static_cast<std::uint32_t>(c.output.size());
    c.finished = true;
    emit(c, end, flag::fin | flag::ack);
    c.sent = end + 1;
  }
  if (c.sent != before) c.deadline = timers_.clock().now() + kFirstRetry;
}

void DnsByTcp::expire() {
  Nanoseconds now = timers_.clock().now();
  for (auto it = connections_.begin(); it != connections_.end();) {
    Connection& c = *it->second;
    bool late = c.waiting() && now >= c.deadline;
    if (late) ++c.tries;
    if (now - c.heard >= kIdle || c.tries > kMostTries) {
      emit(c, c.sent, flag::rst | flag::ack);
      it = connections_.erase(it);
      continue;
    }
    if (late) {
      transmit(c, true);
      c.deadline = now + (kFirstRetry << c.tries);
    }
    ++it;
  }
  rearm();
}

void DnsByTcp::rearm() {
  if (connections_.empty()) return timer_->cancel();
  Nanoseconds first = std::numeric_limits<Nanoseconds>::max();
  for (const auto& [key, c] : connections_) {
    first = std::min(first, c->heard + kIdle);
    if (c->waiting()) first = std::min(first, c->deadline);
  }
  timer_->arm(first);
}

}  // namespace lodge::network
