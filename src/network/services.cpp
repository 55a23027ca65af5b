// SPDX-License-Identifier: Apache-2.0
#include "network/services.h"

#include <algorithm>

#include "base/bytes.h"
#include "net/offload.h"

namespace lodge::network {

namespace {

constexpr Nanoseconds kAdvertiseEvery = 120 * kNanosecondsPerSecond;

}  // namespace

Services::Services(EventLoop& loop, const Settings& settings, DhcpServer* dhcp, DnsServer* names, ClientOf clientOf,
                   Granted granted)
    : loop_(loop),
      settings_(settings),
      dhcp_(dhcp),
      names_(names),
      clientOf_(std::move(clientOf)),
      granted_(std::move(granted)),
      dnsByTcp_(
          loop, settings_.mtu, [this](const Frame& frame) { emit(frame); },
          [this](std::span<const std::uint8_t> query, DnsByTcp::Answer answer) {
            if (names_) names_->ask(query, true, std::move(answer));
          }) {}

void Services::setReceiver(Receiver receiver) {
  receiver_ = std::move(receiver);
  if (!settings_.router) return;
  advertiser_ = loop_.makeTimer([this] { advertise(); });
  advertiser_->arm(loop_.clock().now());
}

void Services::advertise() {
  emit(routerAdvertisement(*settings_.router, allNodes()));
  advertiser_->arm(loop_.clock().now() + kAdvertiseEvery);
}

bool Services::mine(const IpAddress& address) const {
  return address == settings_.address || address == settings_.address6;
}

void Services::emit(const Frame& frame) {
  if (!frame.empty() && receiver_) receiver_(frame, FrameOffload{});
}

void Services::send(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  if (!offload.needsChecksum && offload.segmentation == 0) return handle(frame);
  finishOffload(frame, offload, [&](std::span<const std::uint8_t> finished) { handle(finished); });
}

void Services::handle(std::span<const std::uint8_t> frame) {
  auto packet = parsePacket(frame);
  if (!packet || packet->source == settings_.mac) return;
  if (auto arp = parseArp(frame, *packet)) {
    if (!arp->reply && arp->target == settings_.address) {
      emit(arpFrame(true, {settings_.mac, settings_.address, 0}, {arp->senderMac, arp->sender, 0}, packet->source));
    }
    return;
  }
  if (!packet->ip || handleNeighbour(frame, *packet)) return;
  bool udp = packet->protocol == protocol::kUdp && packet->payload != 0;
  if (udp && !packet->from.v6 && packet->toPort == kDhcpServerPort) return handleDhcp(frame, *packet);
  if (!mine(packet->to)) return;
  if (udp && packet->toPort == kDnsPort) return handleDns(frame, *packet);
  if (packet->protocol == protocol::kTcp && packet->toPort == kDnsPort) return dnsByTcp_.segment(frame, *packet);
  emit(echoReply(frame, *packet));
}

bool Services::handleNeighbour(std::span<const std::uint8_t> frame, const Packet& packet) {
  auto n = parseNeighbour(frame, packet);
  if (!n) return false;
  if (n->type == Neighbour::Type::solicitation && n->target == settings_.address6)
    emit(neighbourAdvertisement(packet, settings_.mac, n->target));
  if (n->type == Neighbour::Type::routerSolicitation && settings_.router) {
    Endpoint to = packet.from.unspecified() ? allNodes() : Endpoint{packet.source, packet.from, 0};
    emit(routerAdvertisement(*settings_.router, to));
  }
  return true;
}

void Services::handleDhcp(std::span<const std::uint8_t> frame, const Packet& packet) {
  if (!dhcp_) return;
  auto reply = dhcp_->answer(frame.subspan(packet.payload, packet.end - packet.payload), clientOf_(packet.source));
  if (!reply) return;
  if (reply->lease) granted_(*reply->lease);
  emit(udpFrame({settings_.mac, settings_.address, kDhcpServerPort}, {reply->toMac, reply->to, kDhcpClientPort},
                reply->message));
}

void Services::handleDns(std::span<const std::uint8_t> frame, const Packet& packet) {
  if (!names_) return;
  auto query = frame.subspan(packet.payload, packet.end - packet.payload);
  auto question = parseDnsQuestion(query);
  if (!question) return;
  std::size_t largest = std::min<std::size_t>(question->largest, 1232);
  Endpoint me{settings_.mac, packet.to, kDnsPort}, client{packet.source, packet.from, packet.fromPort};
  names_->ask(query, false, [this, alive = alive_, me, client, largest](std::span<const std::uint8_t> message) {
    if (!*alive) return;
    auto answered = parseDnsQuestion(message);
    if (!answered) return;
    if (message.size() > largest) return emit(udpFrame(me, client, makeDnsTruncated(message, *answered)));
    emit(udpFrame(me, client, message));
  });
}

}  // namespace lodge::network
