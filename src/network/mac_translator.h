// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "net/backend.h"
#include "network/packet.h"

namespace lodge::network {

/// Many machines behind a card whose network takes frames from one hardware address only (a Wi-Fi station). Frames
/// leave under the card's address, in ARP and neighbour discovery too; what comes back is told apart by IP address.
/// DHCP asks for broadcast answers, for a server's unicast would not tell the machines apart.
class MacTranslator : public NetBackend {
 public:
  MacTranslator(std::unique_ptr<NetBackend> card, const MacAddress& mac) : card_(std::move(card)), mac_(mac) {}

  void setReceiver(Receiver receiver) override;
  void receiverReady() override { card_->receiverReady(); }
  void send(std::span<const std::uint8_t> frame, const FrameOffload& offload) override;
  bool supportsOffload() const override { return true; }

  /// Told of each address that a machine is first seen with, and of what others in the card's network say is theirs.
  using Seen = std::function<void(const IpAddress& address, const MacAddress& machine)>;
  using Elsewhere = std::function<void(const IpAddress& address)>;
  void watch(Seen seen, Elsewhere elsewhere) {
    seen_ = std::move(seen);
    elsewhere_ = std::move(elsewhere);
  }
  /// A frame of the host's own, as it is.
  void sendAsIs(std::span<const std::uint8_t> frame) { card_->send(frame, FrameOffload{}); }
  /// What was learnt of a machine that has left.
  void forget(const MacAddress& machine);

 private:
  void fromCard(std::span<const std::uint8_t> frame, const FrameOffload& offload);
  void learn(const IpAddress& address, const MacAddress& mac);
  void outgoingDhcp(const Packet& packet, FrameOffload& offload);
  std::optional<MacAddress> ownerOf(std::span<const std::uint8_t> frame, const Packet& packet) const;

  std::unique_ptr<NetBackend> card_;
  MacAddress mac_;
  Receiver receiver_;
  std::map<IpAddress, MacAddress> owners_;
  std::map<MacAddress, std::size_t> counts_;
  std::vector<std::uint8_t> out_, in_;
  Seen seen_;
  Elsewhere elsewhere_;
};

}  // namespace lodge::network
