// SPDX-License-Identifier: Apache-2.0
#include "network/direct_link.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>

#include "base/text.h"

namespace lodge::network {

Result<DirectLink::Made> DirectLink::make(EventLoop& loop, HelperClient& helper, Plug plug) {
  std::vector<int> fds;
  if (plug.existing) fds.push_back(plug.existing.get());
  auto answer =
      helper.ask({{"do", "plug"}, {"number", plug.number}, {"queues", plug.queues}, {"guard", plug.guard}}, fds);
  if (!answer) return std::move(answer).error();
  if (answer->fds.empty()) return Error(ErrorKind::internal, "the helper gave no descriptor");
  Made made{std::unique_ptr<DirectLink>(new DirectLink(loop, helper)), {}};
  made.link->tap_ = answer->facts.value("tap", "");
  made.link->index_ = answer->facts.value("index", 0u);
  made.link->number_ = plug.number;
  made.link->packets_ = std::move(answer->fds.back());
  answer->fds.pop_back();
  made.queues = std::move(answer->fds);
  return made;
}

DirectLink::~DirectLink() {
  switched_.reset();
  [[maybe_unused]] auto done = helper_.ask({{"do", "unplug"}, {"tap", tap_}});
}

/// A packet socket gets the frames of the protocol that it is bound to: all, or none.
Status DirectLink::listen(bool on) {
  if (!on) switched_.reset();
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = on ? htons(ETH_P_ALL) : 0;
  address.sll_ifindex = static_cast<int>(index_);
  if (::bind(packets_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return Error::fromErrno(errno, "tap device " + inQuotes(tap_));
  if (!on || switched_) return {};
  UniqueFd mine(::fcntl(packets_.get(), F_DUPFD_CLOEXEC, 0));
  if (!mine) return Error::fromErrno(errno, "tap device " + inQuotes(tap_));
  // What came before the last time ended is old.
  for (std::uint8_t byte; ::recv(mine.get(), &byte, 1, MSG_DONTWAIT) >= 0;) {
  }
  switched_ = std::make_unique<MessageNet>(loop_, std::move(mine), MessageNet::Kind::tap);
  if (receiver_) switched_->setReceiver(receiver_);
  return {};
}

Status DirectLink::set(const DirectRules& rules) {
  if (rules == rules_) return {};
  auto done = helper_.ask({{"do", "rules"},
                           {"tap", tap_},
                           {"mac", toText(rules.mac)},
                           {"only4", rules.only4},
                           {"only6", rules.only6},
                           {"guard", rules.guard},
                           {"held", rules.held}});
  if (!done) return std::move(done).error();
  bool turned = rules.held != held() || rules.held != bool(switched_);
  rules_ = rules;
  return turned ? listen(rules.held) : Status();
}

/// /proc/net/dev is of this process's network namespace; /sys is of whoever mounted it.
DirectLink::Counters DirectLink::counters() const {
  Counters c;
  UniqueFd file(::open("/proc/self/net/dev", O_RDONLY | O_CLOEXEC));
  std::string text;
  std::array<char, 4096> piece;
  for (ssize_t n; file && (n = ::read(file.get(), piece.data(), piece.size())) > 0;)
    text.append(piece.data(), static_cast<std::size_t>(n));
  for (std::string_view line : split(text, '\n')) {
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    if (!line.starts_with(tap_ + ":")) continue;
    // Received: bytes, packets and six more; sent: bytes, packets.
    std::array<unsigned long long, 10> n{};
    const char* at = line.data() + tap_.size() + 1;
    for (auto& number : n) {
      char* end = nullptr;
      number = std::strtoull(at, &end, 10);
      at = end;
    }
    c = {.framesIn = n[1], .bytesIn = n[0], .framesOut = n[9], .bytesOut = n[8]};
  }
  return c;
}

void DirectLink::setReceiver(Receiver receiver) {
  receiver_ = std::move(receiver);
  if (switched_) switched_->setReceiver(receiver_);
}

}  // namespace lodge::network
