// SPDX-License-Identifier: Apache-2.0
#include "network/dns_server.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/bytes.h"
#include "base/log.h"
#include "base/text.h"
#include "network/packet.h"

namespace lodge::network {

namespace {

constexpr std::size_t kMostPending = 512;
constexpr Nanoseconds kPatience = 3 * kNanosecondsPerSecond;
constexpr std::uint32_t kOwnTtl = 10;

std::uint16_t randomId() {
  std::uint16_t id = 0;
  [[maybe_unused]] ssize_t got = ::getrandom(&id, sizeof id, 0);
  return id;
}

UniqueFd connectTo(const IpAddress& server, bool tcp) {
  int type = (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
  UniqueFd fd(::socket(server.v6 ? AF_INET6 : AF_INET, type, 0));
  int done;
  if (server.v6) {
    sockaddr_in6 a{};
    a.sin6_family = AF_INET6;
    a.sin6_port = htons(kDnsPort);
    std::memcpy(&a.sin6_addr, server.bytes.data(), 16);
    done = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a);
  } else {
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(kDnsPort);
    a.sin_addr.s_addr = htonl(server.v4());
    done = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a);
  }
  if (done != 0 && errno != EINPROGRESS) fd.reset();
  return fd;
}

std::vector<std::uint8_t> framed(std::span<const std::uint8_t> message) {
  std::vector<std::uint8_t> out(2);
  storeBe(out.data(), static_cast<std::uint16_t>(message.size()));
  out.insert(out.end(), message.begin(), message.end());
  return out;
}

}  // namespace

/// A question that waits for a server of the host's.
struct DnsServer::Pending {
  std::vector<std::uint8_t> query;
  DnsQuestion question;
  bool tcp = false, written = false;
  Answer answer;
  std::uint16_t id = 0;
  std::vector<IpAddress> servers;
  std::size_t server = 0;
  UniqueFd fd;
  std::vector<std::uint8_t> input;
  std::unique_ptr<Timer> timer;
};

DnsServer::DnsServer(EventLoop& loop, std::string domain, Names names, Reverse reverse, std::vector<IpAddress> upstream)
    : loop_(loop),
      domain_(std::move(domain)),
      names_(std::move(names)),
      reverse_(std::move(reverse)),
      upstream_(std::move(upstream)) {}

DnsServer::~DnsServer() {
  for (auto& [number, p] : pending_) loop_.unwatch(p->fd.get());
}

std::vector<IpAddress> DnsServer::servers() const {
  if (!upstream_.empty()) return upstream_;
  std::vector<IpAddress> all;
  auto text = readFile("/etc/resolv.conf", 64 << 10);
  if (!text) return all;
  std::string_view content(reinterpret_cast<const char*>(text->data()), text->size());
  for (std::string_view line : split(content, '\n')) {
    if (!line.starts_with("nameserver")) continue;
    std::size_t from = line.find_first_not_of(" \t", 10);
    if (from == std::string_view::npos || from == 10) continue;
    auto address = ipFrom(line.substr(from, line.find_first_of(" \t\r%", from) - from));
    if (address) all.push_back(*address);
  }
  return all;
}

bool DnsServer::answerHere(std::span<const std::uint8_t> query, const DnsQuestion& q, const Answer& answer) {
  std::vector<DnsRecord> records;
  if (q.type == dns::kPtr) {
    auto address = addressOfReverse(q.name);
    std::string name = address ? reverse_(*address) : std::string();
    if (name.empty()) return false;
    records.push_back({q.name, dns::kPtr, kOwnTtl, {}, name + "." + domain_});
    answer(makeDnsAnswer(query, q, dns::kNoError, records));
    return true;
  }
  bool inDomain = q.name.ends_with("." + domain_) || q.name == domain_;
  std::string name = q.name.ends_with("." + domain_) ? q.name.substr(0, q.name.size() - domain_.size() - 1) : q.name;
  if (!inDomain && name.find('.') != std::string::npos) return false;
  std::vector<IpAddress> addresses = names_(name);
  for (const IpAddress& a : addresses) {
    std::uint16_t type = a.v6 ? dns::kAaaa : dns::kA;
    if (q.type == type || q.type == dns::kAny) records.push_back({q.name, type, kOwnTtl, a, {}});
  }
  // A name without a dot is nobody else's either.
  std::uint8_t code = addresses.empty() && q.name != domain_ ? dns::kNoName : dns::kNoError;
  answer(makeDnsAnswer(query, q, code, records));
  return true;
}

void DnsServer::ask(std::span<const std::uint8_t> query, bool tcp, Answer answer) {
  auto question = parseDnsQuestion(query);
  if (!question || question->response) return;
  if (question->opcode != 0) return answer(makeDnsAnswer(query, *question, 4, {}));
  if (question->dnsClass == 1 && answerHere(query, *question, answer)) return;
  auto all = servers();
  if (all.empty() || pending_.size() >= kMostPending)
    return answer(makeDnsAnswer(query, *question, dns::kServerFailure, {}));
  auto pending = std::make_unique<Pending>();
  pending->query.assign(query.begin(), query.end());
  pending->question = std::move(*question);
  pending->tcp = tcp;
  pending->answer = std::move(answer);
  pending->servers = std::move(all);
  forward(std::move(pending));
}

void DnsServer::forward(std::unique_ptr<Pending> pending) {
  std::uint64_t number = next_++;
  Pending& p = *pending;
  pending_[number] = std::move(pending);
  p.timer = loop_.makeTimer([this, number] { loop_.post([this, number] { failed(number); }); });
  p.id = randomId();
  p.fd = connectTo(p.servers[p.server], p.tcp);
  p.timer->arm(loop_.clock().now() + (p.fd ? kPatience : 0));
  if (!p.fd) return;
  std::vector<std::uint8_t> query = p.query;
  storeBe(query.data(), p.id);
  if (!p.tcp) {
    [[maybe_unused]] ssize_t sent = ::send(p.fd.get(), query.data(), query.size(), MSG_NOSIGNAL);
    p.written = true;
  }
  Status watched = loop_.watch(p.fd.get(), p.tcp ? EPOLLIN | EPOLLOUT : EPOLLIN, [this, number](std::uint32_t events) {
    auto it = pending_.find(number);
    if (it == pending_.end()) return;
    Pending& mine = *it->second;
    if (!mine.written && (events & EPOLLOUT) != 0) {
      std::vector<std::uint8_t> message = mine.query;
      storeBe(message.data(), mine.id);
      message = framed(message);
      // A question fits the empty buffer of a new connection.
      mine.written = true;
      if (::send(mine.fd.get(), message.data(), message.size(), MSG_NOSIGNAL) < 0) return failed(number);
      if (Status again = loop_.watch(mine.fd.get(), EPOLLIN, [this, number](std::uint32_t) { received(number); });
          !again)
        failed(number);
      return;
    }
    received(number);
  });
  if (!watched) log(LogLevel::warning, "name server: {}", watched.error().message());
}

void DnsServer::received(std::uint64_t number) {
  auto it = pending_.find(number);
  if (it == pending_.end()) return;
  Pending& p = *it->second;
  std::array<std::uint8_t, 65535> buffer;
  ssize_t length = ::recv(p.fd.get(), buffer.data(), buffer.size(), 0);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (length <= 0) return failed(number);
  std::span<const std::uint8_t> message = std::span(buffer).first(static_cast<std::size_t>(length));
  if (p.tcp) {
    p.input.insert(p.input.end(), message.begin(), message.end());
    if (p.input.size() < 2 || p.input.size() < 2u + loadBe<std::uint16_t>(p.input.data())) return;
    message = std::span<const std::uint8_t>(p.input).subspan(2, loadBe<std::uint16_t>(p.input.data()));
  }
  auto answer = parseDnsQuestion(message);
  // Who answers another question is no server of ours.
  if (!answer || !answer->response || answer->id != p.id || answer->name != p.question.name ||
      answer->type != p.question.type)
    return;
  std::vector<std::uint8_t> out(message.begin(), message.end());
  storeBe(out.data(), p.question.id);
  finish(number, out);
}

void DnsServer::failed(std::uint64_t number) {
  auto it = pending_.find(number);
  if (it == pending_.end()) return;
  std::unique_ptr<Pending> pending = std::move(it->second);
  pending_.erase(it);
  loop_.unwatch(pending->fd.get());
  if (++pending->server < std::min<std::size_t>(pending->servers.size(), 3)) {
    pending->input.clear();
    pending->written = false;
    pending->fd.reset();
    return forward(std::move(pending));
  }
  pending->answer(makeDnsAnswer(pending->query, pending->question, dns::kServerFailure, {}));
}

void DnsServer::finish(std::uint64_t number, std::span<const std::uint8_t> message) {
  auto it = pending_.find(number);
  std::unique_ptr<Pending> pending = std::move(it->second);
  pending_.erase(it);
  loop_.unwatch(pending->fd.get());
  pending->answer(message);
}

}  // namespace lodge::network
