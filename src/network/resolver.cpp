// SPDX-License-Identifier: Apache-2.0
#include "network/resolver.h"

#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <array>
#include <utility>

#include "base/text.h"
#include "network/packet.h"
#include "network/socket_address.h"

namespace lodge::network {

namespace {

constexpr Nanoseconds kPatience = 2 * kNanosecondsPerSecond;
/// How long the second answer is waited for once the first has addresses.
constexpr Nanoseconds kOtherFamily = 300'000'000;
constexpr unsigned kTries = 3;
constexpr std::size_t kMostSearches = 512;

}  // namespace

struct Resolver::Search {
  std::string name;
  Answer answer;
  UniqueFd fd;
  std::unique_ptr<Timer> timer;
  std::uint16_t id = 0;  ///< of the question for IPv4; the other's is the next
  unsigned tries = 0;
  std::array<bool, 2> answered{};
  std::array<std::vector<IpAddress>, 2> found;
};

Resolver::Resolver(EventLoop& loop, Inside& inside) : loop_(loop), inside_(inside) {}

Resolver::~Resolver() {
  for (auto& [n, s] : searches_) {
    if (s->fd) loop_.unwatch(s->fd.get());
  }
}

std::vector<std::uint8_t> Resolver::question(std::uint16_t id, const std::string& name, std::uint16_t type) {
  std::vector<std::uint8_t> q(12);
  storeBe(q.data(), id);
  q[2] = 1;  // recursion desired
  q[5] = 1;  // one question
  std::string_view whole = name;
  if (whole.ends_with(".")) whole.remove_suffix(1);
  if (whole.empty() || whole.size() > 253) return {};
  for (std::string_view label : split(whole, '.')) {
    if (label.empty() || label.size() > 63) return {};
    q.push_back(static_cast<std::uint8_t>(label.size()));
    q.insert(q.end(), label.begin(), label.end());
  }
  q.insert(q.end(), {0, 0, static_cast<std::uint8_t>(type), 0, 1});
  return q;
}

void Resolver::lookUp(const std::string& name, Answer answer) {
  if (servers_.empty() || searches_.size() >= kMostSearches || question(0, name, dns::kA).empty()) return answer({});
  std::uint64_t number = next_++;
  auto search = std::make_unique<Search>();
  search->name = name;
  search->answer = std::move(answer);
  search->timer = loop_.makeTimer([this, number] { loop_.post([this, number] { ask(number); }); });
  searches_[number] = std::move(search);
  ask(number);
}

void Resolver::ask(std::uint64_t number) {
  auto it = searches_.find(number);
  if (it == searches_.end()) return;
  Search& s = *it->second;
  bool enough = !s.found[0].empty() || !s.found[1].empty();
  if (enough || s.tries >= kTries) return finish(number);
  const IpAddress& server = servers_[s.tries++ % servers_.size()];
  if (s.fd) loop_.unwatch(s.fd.get());
  auto fd = inside_.socket(Inside::Kind::datagram, server.v6);
  s.timer->arm(loop_.clock().now() + kPatience);
  if (!fd) return;
  s.fd = std::move(*fd);
  SocketAddress address(server, kDnsPort);
  if (::connect(s.fd.get(), address.get(), address.length) != 0) return;
  [[maybe_unused]] ssize_t got = ::getrandom(&s.id, sizeof s.id, 0);
  for (unsigned n = 0; n < 2; ++n) {
    if (s.answered[n]) continue;
    auto q = question(static_cast<std::uint16_t>(s.id + n), s.name, n == 0 ? dns::kA : dns::kAaaa);
    [[maybe_unused]] ssize_t sent = ::send(s.fd.get(), q.data(), q.size(), MSG_NOSIGNAL);
  }
  [[maybe_unused]] Status watched =
      loop_.watch(s.fd.get(), EPOLLIN, [this, number](std::uint32_t) { receive(number); });
}

void Resolver::receive(std::uint64_t number) {
  auto it = searches_.find(number);
  if (it == searches_.end()) return;
  Search& s = *it->second;
  std::array<std::uint8_t, 4096> buffer;
  ssize_t length = ::recv(s.fd.get(), buffer.data(), buffer.size(), 0);
  if (length <= 0) return;  // refused: the next try comes with the timer
  auto message = std::span(buffer).first(static_cast<std::size_t>(length));
  auto answer = parseDnsQuestion(message);
  if (!answer || !answer->response) return;
  auto which = static_cast<std::uint16_t>(answer->id - s.id);
  if (which > 1 || answer->type != (which == 0 ? dns::kA : dns::kAaaa)) return;
  s.answered[which] = true;
  for (const DnsRecord& r : parseDnsAnswers(message, *answer)) {
    if (r.type == answer->type && s.found[which].size() < 16) s.found[which].push_back(r.address);
  }
  if (s.answered[0] && s.answered[1]) return finish(number);
  if (!s.found[which].empty()) s.timer->arm(loop_.clock().now() + kOtherFamily);
}

void Resolver::finish(std::uint64_t number) {
  auto it = searches_.find(number);
  std::unique_ptr<Search> s = std::move(it->second);
  searches_.erase(it);
  if (s->fd) loop_.unwatch(s->fd.get());
  std::vector<IpAddress> all = std::move(s->found[0]);
  all.insert(all.end(), s->found[1].begin(), s->found[1].end());
  s->answer(std::move(all));
}

}  // namespace lodge::network
