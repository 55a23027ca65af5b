// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/event_loop.h"
#include "base/file.h"
#include "network/definition.h"
#include "network/dhcp.h"
#include "network/direct_link.h"
#include "network/dns_server.h"
#include "network/guard.h"
#include "network/helper_client.h"
#include "network/host_leg.h"
#include "network/mac_translator.h"
#include "network/policy.h"
#include "network/port.h"
#include "network/services.h"
#include "network/switch.h"

namespace lodge::network {

/// A running network: the switch, its ports, its services and its way out. I/O thread.
class Network {
 public:
  Network(EventLoop& loop, NetworkDefinition definition);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  /// A descriptor that holds the network's lock: its helper has it, too, so that no successor starts before all is
  /// taken down.
  void setLock(int lock) { lock_ = lock; }
  /// Errors: what the uplink's making says; nothing is left then.
  Status start();

  /// Errors: invalidArgument (an address outside the network), busy (a taken address or name, too many ports).
  Result<PortId> join(PortSettings settings, std::unique_ptr<NetBackend> link);
  /// A tap device of its own in the host's bridge for who is about to join with these settings. `existing`: a queue of
  /// one that it has had. Errors: unsupported (the kind has no bridge), the helper's.
  Result<DirectLink::Made> plug(const PortSettings& settings, unsigned queues, UniqueFd existing);
  /// Why a port's frames must go through the switch, "has egress rules"; nullptr: they need not.
  const char* needsSwitch(const PortSettings& settings) const;
  void leave(PortId port);
  /// Changes a machine's port. Errors: notFound, invalidArgument, busy.
  Status changePort(const std::string& name, const Json& settings);
  /// Takes over what may change while the network runs: rules, cable, forwards, anti-spoofing, `keep`.
  Status changeDefinition(const NetworkDefinition& definition);

  /// It was brought up for good: it stays without machines, whatever its definition says or will say.
  void hold() { held_ = true; }
  bool stays() const { return held_ || definition_.keep; }

  /// Looks what the kernel's guard of direct ports has dropped. Waits for the helper.
  void countDrops();
  Json describe() const;
  Json leases() const;
  /// Leases that a process before this one gave, as leases() had them; what does not fit is left out.
  void restoreLeases(const Json& leases);
  /// Called when a lease was given. I/O thread.
  void onLease(std::function<void()> function) { leased_ = std::move(function); }
  std::size_t machines() const;
  const NetworkDefinition& definition() const { return definition_; }
  ForwardControl* forwards() { return forwards_; }

  /// Gets all frames while it is set.
  void setTap(Port::Tap tap);
  /// Wants to be told of ports that come, for captures.
  const std::map<PortId, std::unique_ptr<Port>>& ports() const { return ports_; }
  /// Addresses of a machine of this network, or of a name that a lease has.
  std::vector<IpAddress> addressesOf(const std::string& name) const;

 private:
  Port::Context context() { return {loop_, switch_, book_, tap_, fromBridge_}; }
  void layOut();
  Status startUplink();
  Status startUser();
  Status startHelped();
  void startHostLeg(Message& answer, const MacAddress& cardMac);
  void startServices();
  Status startTunnels();
  Port& addPort(PortSettings settings, Port::Role role, std::unique_ptr<NetBackend> link);
  Status admit(PortSettings& settings, PortId self);
  Status applyTo(Port& port, const PortSettings& settings);
  Status settle(Port& port);
  Status settleAll();
  void unsettle(const Port& port);
  std::map<IpAddress, MacAddress> givenAddresses() const;
  Status tellGiven();
  bool admitsFromBridge(std::span<const std::uint8_t> frame);
  std::shared_ptr<const EgressPolicy> policy() const;
  void setFilter(Port& port);
  void applyMirrors();
  DhcpServer::Client clientOf(const MacAddress& source) const;
  std::string nameOf(const IpAddress& address) const;
  Port* named(const std::string& name);

  EventLoop& loop_;
  NetworkDefinition definition_;
  bool held_ = false;
  Port::Tap tap_;
  std::function<void()> leased_;
  Switch switch_;
  AddressBook book_;
  std::optional<IpAddress> gateway_, serviceAddress_, serviceAddress6_;
  std::unique_ptr<DhcpServer> dhcp_;
  std::unique_ptr<DnsServer> dns_;
  std::unique_ptr<HelperClient> helper_;
  ForwardControl* forwards_ = nullptr;
  NetBackend* uplink_ = nullptr;
  MacTranslator* translator_ = nullptr;  ///< of a wifi network, and the host's way to its machines
  HostLeg* hostLeg_ = nullptr;
  std::optional<MacAddress> routerMac_;
  std::map<PortId, std::unique_ptr<Port>> ports_;
  std::map<MacAddress, Port*> bridged_;    ///< direct ports that are not held
  std::map<IpAddress, MacAddress> given_;  ///< what the helper knows of it
  Port::FromBridge fromBridge_;
  std::unique_ptr<Timer> drops_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  int lock_ = -1;
};

}  // namespace lodge::network
