// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/file.h"
#include "net/address.h"

namespace lodge::network {

/// What a DHCP server gave.
struct DhcpOffer {
  std::uint32_t transaction = 0;
  std::uint8_t type = 0;  ///< option 53: 2 an offer, 5 granted, 6 refused
  IpAddress address, server, mask;
  std::optional<IpAddress> router;
  std::vector<IpAddress> nameServers;
  std::uint32_t seconds = 3600;
};
/// Nothing if the message is no server's answer to `mac`.
std::optional<DhcpOffer> parseDhcpOffer(std::span<const std::uint8_t> message, const MacAddress& mac);

/// Gets an address and keeps it (RFC 2131, 4.4): over a packet socket on the card, which gives and takes whole frames.
/// I/O thread.
class DhcpClient {
 public:
  using Granted = std::function<void(const DhcpOffer& lease)>;
  DhcpClient(EventLoop& loop, UniqueFd packets, MacAddress mac, std::string hostName, Granted granted);
  ~DhcpClient();
  DhcpClient(const DhcpClient&) = delete;
  DhcpClient& operator=(const DhcpClient&) = delete;

  Status start();

 private:
  enum class State : std::uint8_t { selecting, requesting, bound };
  void send(std::uint8_t type);
  void receive();
  void take(const DhcpOffer& offer);
  void timeout();

  EventLoop& loop_;
  UniqueFd packets_;
  MacAddress mac_;
  std::string hostName_;
  Granted granted_;
  std::unique_ptr<Timer> timer_;
  State state_ = State::selecting;
  std::uint32_t transaction_ = 0;
  std::optional<DhcpOffer> offer_;
  Nanoseconds expires_ = 0;
  unsigned tries_ = 0;
};

}  // namespace lodge::network
