// SPDX-License-Identifier: Apache-2.0
#include "network/mac_translator.h"

#include <algorithm>

#include "network/dhcp.h"

namespace lodge::network {

namespace {

constexpr std::size_t kMostAddresses = 4096, kMostPerMachine = 64;
constexpr std::size_t kFlags = 10, kHardwareAddress = 28, kFixedPart = 240;  // of a DHCP message

}  // namespace

void MacTranslator::setReceiver(Receiver receiver) {
  receiver_ = std::move(receiver);
  card_->setReceiver([this](std::span<const std::uint8_t> frame, const FrameOffload& offload) {
    fromCard(frame, offload);
    return true;
  });
}

void MacTranslator::learn(const IpAddress& address, const MacAddress& mac) {
  if (address.unspecified() || address.multicast()) return;
  auto it = owners_.find(address);
  if (it != owners_.end()) {
    if (it->second == mac) return;
    --counts_[it->second];
    it->second = mac;
    ++counts_[mac];
    if (seen_) seen_(address, mac);
    return;
  }
  if (owners_.size() >= kMostAddresses || counts_[mac] >= kMostPerMachine) return;
  owners_[address] = mac;
  ++counts_[mac];
  if (seen_) seen_(address, mac);
}

void MacTranslator::forget(const MacAddress& machine) {
  std::erase_if(owners_, [&](const auto& entry) { return entry.second == machine; });
  counts_.erase(machine);
}

/// BOOTP's broadcast flag. A checksum left to be done would be of the message as it was: it is done here.
void MacTranslator::outgoingDhcp(const Packet& packet, FrameOffload& offload) {
  if (packet.end - packet.payload < kFixedPart || out_[packet.payload] != 1) return;
  out_[packet.payload + kFlags] |= 0x80;
  fixTransportChecksum(out_, packet);
  offload = {};
}

void MacTranslator::send(std::span<const std::uint8_t> frame, const FrameOffload& given) {
  auto packet = parsePacket(frame);
  if (!packet || packet->vlan) return;
  FrameOffload offload = given;
  out_.assign(frame.begin(), frame.end());
  auto put = [&](std::size_t at) { std::copy(mac_.begin(), mac_.end(), &out_[at]); };
  put(6);
  if (auto arp = parseArp(frame, *packet)) {
    learn(arp->sender, packet->source);
    put(arp->offset + 8);
  } else if (packet->ip) {
    learn(packet->from, packet->source);
    if (auto n = parseNeighbour(frame, *packet)) {
      if (n->type == Neighbour::Type::advertisement) learn(n->target, packet->source);
      if (n->linkLayerAddress != 0) {
        put(n->linkLayerAddress);
        fixTransportChecksum(out_, *packet);
        offload = {};
      }
    }
    bool dhcp = !packet->from.v6 && packet->protocol == protocol::kUdp && packet->payload != 0 &&
                packet->toPort == kDhcpServerPort;
    if (dhcp) outgoingDhcp(*packet, offload);
  } else if (packet->etherType != ether::kArp) {
    return;  // without an address there is no way back
  }
  card_->send(out_, offload);
}

std::optional<MacAddress> MacTranslator::ownerOf(std::span<const std::uint8_t> frame, const Packet& packet) const {
  auto owner = [&](const IpAddress& address) -> std::optional<MacAddress> {
    auto it = owners_.find(address);
    if (it == owners_.end()) return std::nullopt;
    return it->second;
  };
  if (auto arp = parseArp(frame, packet)) return owner(arp->target);
  if (!packet.ip) return std::nullopt;
  bool dhcp = !packet.to.v6 && packet.protocol == protocol::kUdp && packet.toPort == kDhcpClientPort &&
              packet.payload != 0 && packet.end - packet.payload >= kFixedPart;
  if (dhcp) {
    MacAddress client;
    std::copy_n(&frame[packet.payload + kHardwareAddress], 6, client.begin());
    if (counts_.count(client) != 0) return client;
  }
  return owner(packet.to);
}

void MacTranslator::fromCard(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  auto packet = parsePacket(frame);
  if (!packet || packet->source == mac_) return;  // our own, come back from the air
  if (elsewhere_) {
    if (auto arp = parseArp(frame, *packet))
      elsewhere_(arp->sender);
    else if (auto n = parseNeighbour(frame, *packet); n && n->type == Neighbour::Type::advertisement)
      elsewhere_(n->target);
  }
  if (isGroup(packet->destination)) {
    receiver_(frame, offload);
    return;
  }
  if (packet->destination != mac_) return;
  auto machine = ownerOf(frame, *packet);
  if (!machine) return;  // the host's own
  in_.assign(frame.begin(), frame.end());
  std::copy(machine->begin(), machine->end(), in_.begin());
  if (auto arp = parseArp(frame, *packet)) std::copy(machine->begin(), machine->end(), &in_[arp->offset + 18]);
  receiver_(in_, offload);
}

}  // namespace lodge::network
