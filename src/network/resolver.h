// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "net/address.h"
#include "network/dns.h"
#include "network/inside.h"

namespace lodge::network {

/// Looks names up inside a network, at the name servers that its machines ask. I/O thread.
class Resolver {
 public:
  /// IPv4 addresses before IPv6 ones; none: no such name, or nobody answered.
  using Answer = std::function<void(std::vector<IpAddress> addresses)>;

  Resolver(EventLoop& loop, Inside& inside);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  void setServers(std::vector<IpAddress> servers) { servers_ = std::move(servers); }
  /// `answer` is called once, now or later.
  void lookUp(const std::string& name, Answer answer);

  /// A question of the type kA or kAaaa. Empty if `name` is no name.
  static std::vector<std::uint8_t> question(std::uint16_t id, const std::string& name, std::uint16_t type);

 private:
  struct Search;
  void ask(std::uint64_t number);
  void receive(std::uint64_t number);
  void finish(std::uint64_t number);

  EventLoop& loop_;
  Inside& inside_;
  std::vector<IpAddress> servers_;
  std::map<std::uint64_t, std::unique_ptr<Search>> searches_;
  std::uint64_t next_ = 1;
};

}  // namespace lodge::network
