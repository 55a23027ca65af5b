// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "net/backend.h"
#include "network/frame_builder.h"
#include "network/packet.h"

namespace lodge::network {

/// The host and the machines of a wifi network among themselves. The card cannot send to itself, so a tap device of the
/// host's stands between them, with a route to each machine's address; the host keeps its addresses at the card. Here
/// they are answered for (ARP, neighbour discovery) towards the machines, and nothing but what is between the host's
/// addresses and the machines' passes. A machine's address gets its route once nobody in the card's network has
/// answered for it (RFC 5227, RFC 4862), and loses it if somebody does: who uses another's address harms only itself.
/// I/O thread.
class HostLeg : public NetBackend {
 public:
  /// Sets or takes away the host's route to a machine; `from`: the host's address for it.
  using Route = std::function<Status(const IpAddress& machine, const IpAddress& from, bool set)>;
  /// Sends a frame from the card.
  using Probe = std::function<void(const Frame& frame)>;
  /// An address of the host's card and what is on its link.
  struct Place {
    IpAddress address;
    IpBlock link;
    bool operator==(const Place&) const = default;
  };
  using Places = std::function<std::vector<Place>()>;

  /// `tap`: of hardware address `mac`; `cardMac`: what probes are sent under.
  HostLeg(TimerFactory& timers, std::unique_ptr<NetBackend> tap, const MacAddress& mac, const MacAddress& cardMac,
          Places places, Route route, Probe probe);

  void setReceiver(Receiver receiver) override;
  void receiverReady() override { tap_->receiverReady(); }
  void send(std::span<const std::uint8_t> frame, const FrameOffload& offload) override;
  bool supportsOffload() const override { return true; }

  /// A machine was seen with this address.
  void machineHas(const IpAddress& address, const MacAddress& mac);
  /// Somebody in the card's network has it.
  void claimedElsewhere(const IpAddress& address);
  /// The machine has left.
  void forget(const MacAddress& mac);

 private:
  enum class State : std::uint8_t { probing, routed, refused };
  struct Machine {
    MacAddress mac{};
    State state = State::probing;
    Nanoseconds since = 0;
    IpAddress from;  ///< of its route
  };
  void tick();
  void start(const IpAddress& address, Machine& machine);
  void settle(const IpAddress& address, Machine& machine);
  void unroute(const IpAddress& address, Machine& machine);
  const Place* placeFor(const IpAddress& machine) const;
  bool isHost(const IpAddress& address) const;
  bool fromHost(std::span<const std::uint8_t> frame) const;

  TimerFactory& timers_;
  std::unique_ptr<NetBackend> tap_;
  MacAddress mac_, cardMac_;
  Places findPlaces_;
  Route route_;
  Probe probe_;
  Receiver receiver_;
  std::vector<Place> places_;
  std::map<IpAddress, Machine> machines_;
  std::unique_ptr<Timer> timer_;
};

/// The IPv4 and global IPv6 addresses of a card of this network namespace.
std::vector<HostLeg::Place> placesOf(const std::string& card);
/// Asks whether anybody has an address, as a host does before it takes it.
Frame addressProbe(const MacAddress& from, const IpAddress& address);

}  // namespace lodge::network
