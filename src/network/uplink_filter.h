// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>

#include "net/backend.h"
#include "network/dhcp.h"
#include "network/packet.h"

namespace lodge::network {

/// Before a user network's NAT, whose own DHCP and name servers must not see what the network's services answer.
class UplinkFilter : public NetBackend {
 public:
  UplinkFilter(std::unique_ptr<NetBackend> inner, IpAddress service, std::optional<IpAddress> service6)
      : inner_(std::move(inner)), service_(service), service6_(service6) {}

  void setReceiver(Receiver receiver) override { inner_->setReceiver(std::move(receiver)); }
  void receiverReady() override { inner_->receiverReady(); }
  bool supportsOffload() const override { return inner_->supportsOffload(); }
  void send(std::span<const std::uint8_t> frame, const FrameOffload& offload) override {
    // Only what goes to all can be meant for the services too.
    if ((frame[0] & 1) != 0 && answeredElsewhere(frame)) return;
    inner_->send(frame, offload);
  }

 private:
  bool answeredElsewhere(std::span<const std::uint8_t> frame) const {
    auto packet = parsePacket(frame);
    if (!packet) return true;
    if (auto arp = parseArp(frame, *packet)) return arp->target == service_;
    if (auto n = parseNeighbour(frame, *packet)) {
      return n->type == Neighbour::Type::solicitation && n->target == service6_;
    }
    return packet->ip && !packet->from.v6 && packet->protocol == protocol::kUdp && packet->toPort == kDhcpServerPort;
  }

  std::unique_ptr<NetBackend> inner_;
  IpAddress service_;
  std::optional<IpAddress> service6_;
};

}  // namespace lodge::network
