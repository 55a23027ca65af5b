// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "net/backend.h"
#include "network/dhcp.h"
#include "network/dns_by_tcp.h"
#include "network/dns_server.h"
#include "network/frame_builder.h"

namespace lodge::network {

/// The network's own host: a DHCP server, a name server (by UDP and TCP), router advertisements; it answers ARP,
/// neighbour solicitations and pings for its addresses. A port of the switch like any other. I/O thread.
class Services : public NetBackend {
 public:
  struct Settings {
    MacAddress mac{};
    IpAddress address;
    std::optional<IpAddress> address6;
    std::optional<RouterFacts> router{};  ///< advertise; else somebody else does, or nobody
    unsigned mtu = 1500;
  };
  using ClientOf = std::function<DhcpServer::Client(const MacAddress& source)>;
  using Granted = std::function<void(const Lease& lease)>;

  Services(EventLoop& loop, const Settings& settings, DhcpServer* dhcp, DnsServer* names, ClientOf clientOf,
           Granted granted);
  ~Services() override { *alive_ = false; }

  void setReceiver(Receiver receiver) override;
  void receiverReady() override {}
  void send(std::span<const std::uint8_t> frame, const FrameOffload& offload) override;
  bool supportsOffload() const override { return false; }

  const Settings& settings() const { return settings_; }

 private:
  void handle(std::span<const std::uint8_t> frame);
  void handleDhcp(std::span<const std::uint8_t> frame, const Packet& packet);
  void handleDns(std::span<const std::uint8_t> frame, const Packet& packet);
  bool handleNeighbour(std::span<const std::uint8_t> frame, const Packet& packet);
  bool mine(const IpAddress& address) const;
  void emit(const Frame& frame);
  void advertise();

  EventLoop& loop_;
  Settings settings_;
  DhcpServer* dhcp_;
  DnsServer* names_;
  ClientOf clientOf_;
  Granted granted_;
  Receiver receiver_;
  DnsByTcp dnsByTcp_;
  std::unique_ptr<Timer> advertiser_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace lodge::network
