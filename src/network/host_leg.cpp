// SPDX-License-Identifier: Apache-2.0
#include "network/host_leg.h"

#include <ifaddrs.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "base/log.h"

namespace lodge::network {

namespace {

constexpr Nanoseconds kProbeTime = kNanosecondsPerSecond, kRefusedFor = 60 * kNanosecondsPerSecond;
constexpr Nanoseconds kLookAgain = 5 * kNanosecondsPerSecond;
constexpr std::size_t kMostMachines = 1024;

std::optional<IpAddress> addressOf(const sockaddr* a) {
  if (!a || (a->sa_family != AF_INET && a->sa_family != AF_INET6)) return std::nullopt;
  IpAddress out;
  out.v6 = a->sa_family == AF_INET6;
  if (out.v6) {
    sockaddr_in6 in6;
    std::memcpy(&in6, a, sizeof in6);
    std::memcpy(out.bytes.data(), &in6.sin6_addr, 16);
  } else {
    sockaddr_in in;
    std::memcpy(&in, a, sizeof in);
    std::memcpy(out.bytes.data(), &in.sin_addr, 4);
  }
  return out;
}

}  // namespace

std::vector<HostLeg::Place> placesOf(const std::string& card) {
  std::vector<HostLeg::Place> all;
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return all;
  for (const ifaddrs* entry = list; entry; entry = entry->ifa_next) {
    auto address = addressOf(entry->ifa_addr), mask = addressOf(entry->ifa_netmask);
    if (!address || !mask || card != entry->ifa_name || address->linkLocal()) continue;
    HostLeg::Place place{*address, {*address, 0}};
    for (std::size_t n = 0; n < mask->span().size(); ++n) {
      place.link.prefix += static_cast<unsigned>(__builtin_popcount(mask->bytes[n]));
      place.link.base.bytes[n] &= mask->bytes[n];
    }
    all.push_back(place);
  }
  ::freeifaddrs(list);
  return all;
}

Frame addressProbe(const MacAddress& from, const IpAddress& address) {
  if (!address.v6) return arpFrame(false, {from, IpAddress{}, 0}, {MacAddress{}, address, 0}, kBroadcast);
  // To the solicited-node group of the address, from no address yet (RFC 4862, 5.4.2).
  Frame message = {135, 0, 0, 0, 0, 0, 0, 0};
  message.insert(message.end(), address.bytes.begin(), address.bytes.end());
  Endpoint to{
      {0x33, 0x33, 0xff, address.bytes[13], address.bytes[14], address.bytes[15]}, *ipFrom("ff02::1:ff00:0"), 0};
  std::copy_n(&address.bytes[13], 3, &to.address.bytes[13]);
  return icmp6Frame({from, IpAddress{true, {}}, 0}, to, message);
}

HostLeg::HostLeg(TimerFactory& timers, std::unique_ptr<NetBackend> tap, const MacAddress& mac,
                 const MacAddress& cardMac, Places places, Route route, Probe probe)
    : timers_(timers),
      tap_(std::move(tap)),
      mac_(mac),
      cardMac_(cardMac),
      findPlaces_(std::move(places)),
      route_(std::move(route)),
      probe_(std::move(probe)),
      places_(findPlaces_()) {
  timer_ = timers_.makeTimer([this] { tick(); });
  timer_->arm(timers_.clock().now() + kLookAgain);
}

bool HostLeg::isHost(const IpAddress& address) const {
  return std::any_of(places_.begin(), places_.end(), [&](const Place& p) { return p.address == address; });
}

const HostLeg::Place* HostLeg::placeFor(const IpAddress& machine) const {
  for (const Place& p : places_) {
    if (p.link.contains(machine) && p.address != machine) return &p;
  }
  return nullptr;
}

bool HostLeg::fromHost(std::span<const std::uint8_t> frame) const {
  auto packet = parsePacket(frame);
  if (!packet) return false;
  if (auto arp = parseArp(frame, *packet)) return isHost(arp->sender);
  if (!packet->ip) return false;
  return isHost(packet->from) || (packet->from.linkLocal() && parseNeighbour(frame, *packet));
}

void HostLeg::setReceiver(Receiver receiver) {
  receiver_ = std::move(receiver);
  tap_->setReceiver([this](std::span<const std::uint8_t> frame, const FrameOffload& offload) {
    return !fromHost(frame) || receiver_(frame, offload);
  });
}

void HostLeg::send(std::span<const std::uint8_t> frame, const FrameOffload& offload) {
  auto packet = parsePacket(frame);
  if (!packet || packet->vlan) return;
  bool toUs = packet->destination == mac_;
  // The card's own network asks the host itself.
  if (auto arp = parseArp(frame, *packet)) {
    if (!arp->reply && isHost(arp->target) && machines_.count(arp->sender) != 0)
      receiver_(arpFrame(true, {mac_, arp->target, 0}, {arp->senderMac, arp->sender, 0}, packet->source), {});
    else if (arp->reply && toUs)
      tap_->send(frame, offload);
    return;
  }
  if (!packet->ip) return;
  auto neighbour = parseNeighbour(frame, *packet);
  if (neighbour && neighbour->type == Neighbour::Type::solicitation && isHost(neighbour->target)) {
    bool ours = toUs || machines_.count(packet->from) != 0;
    if (ours) receiver_(neighbourAdvertisement(*packet, mac_, neighbour->target), {});
    return;
  }
  if (toUs && (isHost(packet->to) || (neighbour && packet->to.linkLocal()))) tap_->send(frame, offload);
}

void HostLeg::machineHas(const IpAddress& address, const MacAddress& mac) {
  if (address.linkLocal() || isHost(address)) return;
  if (machines_.size() >= kMostMachines && machines_.count(address) == 0) return;
  auto [it, isNew] = machines_.try_emplace(address);
  if (!isNew && it->second.mac == mac) return;
  if (!isNew) unroute(address, it->second);
  it->second.mac = mac;
  start(address, it->second);
}

void HostLeg::start(const IpAddress& address, Machine& machine) {
  machine.state = State::probing;
  machine.since = timers_.clock().now();
  probe_(addressProbe(cardMac_, address));
  timer_->arm(machine.since + kProbeTime);
}

void HostLeg::settle(const IpAddress& address, Machine& machine) {
  const Place* place = placeFor(address);
  machine.since = timers_.clock().now();
  machine.state = State::refused;
  if (!place) return;  // perhaps later
  Status routed = route_(address, place->address, true);
  if (!routed)
    return log(LogLevel::warning, "no route of the host's to {}: {}", toText(address), routed.error().message());
  machine.state = State::routed;
  machine.from = place->address;
}

void HostLeg::unroute(const IpAddress& address, Machine& machine) {
  if (machine.state == State::routed) [[maybe_unused]]
    Status done = route_(address, machine.from, false);
  machine.state = State::refused;
  machine.since = timers_.clock().now();
}

void HostLeg::claimedElsewhere(const IpAddress& address) {
  auto it = machines_.find(address);
  if (it == machines_.end() || it->second.state == State::refused) return;
  log(LogLevel::warning, "{} is somebody else's in the card's network: the host does not take it for a machine's",
      toText(address));
  unroute(address, it->second);
}

void HostLeg::forget(const MacAddress& mac) {
  for (auto it = machines_.begin(); it != machines_.end();) {
    if (it->second.mac != mac) {
      ++it;
      continue;
    }
    unroute(it->first, it->second);
    it = machines_.erase(it);
  }
}

void HostLeg::tick() {
  Nanoseconds now = timers_.clock().now(), next = now + kLookAgain;
  if (std::vector<Place> places = findPlaces_(); !(places == places_)) {
    places_ = std::move(places);
    // The host has another address: routes are made anew.
    for (auto& [address, machine] : machines_) {
      unroute(address, machine);
      machine.since = now - kRefusedFor;
    }
  }
  for (auto& [address, machine] : machines_) {
    if (machine.state == State::probing && now - machine.since >= kProbeTime) settle(address, machine);
    if (machine.state == State::refused && now - machine.since >= kRefusedFor) start(address, machine);
    if (machine.state == State::probing) next = std::min(next, machine.since + kProbeTime);
  }
  timer_->arm(next);
}

}  // namespace lodge::network
