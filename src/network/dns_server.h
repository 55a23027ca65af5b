// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/file.h"
#include "network/dns.h"

namespace lodge::network {

/// Answers for the machines' names, and asks the host's name servers for all others. I/O thread.
class DnsServer {
 public:
  using Answer = std::function<void(std::span<const std::uint8_t> message)>;
  /// Addresses of a name of this network ("web"), without the domain; empty: no such name.
  using Names = std::function<std::vector<IpAddress>(const std::string& name)>;
  /// The name that an address has, or empty.
  using Reverse = std::function<std::string(const IpAddress& address)>;

  /// `upstream`: the servers to ask; empty: those of /etc/resolv.conf, read at each question.
  DnsServer(EventLoop& loop, std::string domain, Names names, Reverse reverse, std::vector<IpAddress> upstream);
  ~DnsServer();
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;

  /// Calls `answer` now, later or (no server answered in time) with a failure; never if the query is no query.
  void ask(std::span<const std::uint8_t> query, bool tcp, Answer answer);

 private:
  struct Pending;
  bool answerHere(std::span<const std::uint8_t> query, const DnsQuestion& question, const Answer& answer);
  void forward(std::unique_ptr<Pending> pending);
  void received(std::uint64_t number);
  void failed(std::uint64_t number);
  void finish(std::uint64_t number, std::span<const std::uint8_t> message);
  std::vector<IpAddress> servers() const;

  EventLoop& loop_;
  std::string domain_;
  Names names_;
  Reverse reverse_;
  std::vector<IpAddress> upstream_;
  std::map<std::uint64_t, std::unique_ptr<Pending>> pending_;
  std::uint64_t next_ = 1;
};

}  // namespace lodge::network
