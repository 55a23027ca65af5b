// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "net/address.h"

namespace lodge::network {

inline constexpr std::uint16_t kDhcpServerPort = 67, kDhcpClientPort = 68;

struct DhcpSettings {
  IpBlock subnet;
  IpAddress server;
  std::optional<IpAddress> router, nameServer;
  IpAddress first, last;  ///< what is leased to whoever has no address of its own
  std::string domain;
  unsigned mtu = 1500;
  Nanoseconds leaseTime = 3600 * kNanosecondsPerSecond;
};

struct Lease {
  MacAddress mac{};
  IpAddress address;
  std::string name;         ///< the machine's, or what the client calls itself
  Nanoseconds expires = 0;  ///< on the server's clock; a fixed one never does
  bool fixed = false;       ///< reserved for the machine, used or not
  bool left = false;        ///< its machine has gone: the address is another's when no other is free
};

/// DHCP for IPv4 (RFC 2131, 2132). One lease a hardware address.
class DhcpServer {
 public:
  DhcpServer(DhcpSettings settings, const Clock& clock) : settings_(std::move(settings)), clock_(clock) {}

  /// Who asks, as the switch knows it.
  struct Client {
    std::string name;               ///< of the machine; empty: the client's own host name
    std::optional<MacAddress> mac;  ///< the only hardware address that this client may ask for
    /// Whether somebody else uses an address that nobody leased; empty: nobody does.
    std::function<bool(const IpAddress&)> used;
  };
  struct Reply {
    std::vector<std::uint8_t> message;
    IpAddress to;                ///< the client's new address, or the broadcast address
    MacAddress toMac{};          ///< the client's, or the broadcast address
    std::optional<Lease> lease;  ///< that this granted
  };
  /// What a DHCP message (UDP's payload) is answered; nothing if it is none, or not for us.
  std::optional<Reply> answer(std::span<const std::uint8_t> message, const Client& client);

  /// This address belongs to `mac` for good. False: somebody else has it reserved.
  bool reserve(const MacAddress& mac, const IpAddress& address, const std::string& name);
  /// The machine has gone: what was reserved for it is a lease like others. The lease ends in its time, or when
  /// somebody else finds no other address.
  void left(const MacAddress& mac);
  /// The machine is here (again): its lease, if it has one.
  std::optional<Lease> here(const MacAddress& mac);
  /// A lease of a server before this one. False: the address or the client has another.
  bool restore(const Lease& lease);
  void rename(const MacAddress& mac, const std::string& name);

  std::vector<Lease> leases() const;
  const DhcpSettings& settings() const { return settings_; }

 private:
  struct Request;
  std::optional<IpAddress> choose(const MacAddress& mac, std::optional<IpAddress> wanted, const Client& client) const;
  bool freeFor(const IpAddress& address, const MacAddress& mac) const;
  std::optional<IpAddress> abandoned() const;
  void forget(const MacAddress& mac);
  Lease& grant(const Request& request, const IpAddress& address, const Client& client);
  std::vector<std::uint8_t> reply(const Request& request, std::uint8_t type, const IpAddress& yours) const;
  void expire();

  DhcpSettings settings_;
  const Clock& clock_;
  std::map<MacAddress, Lease> leases_;
  std::map<IpAddress, MacAddress> owners_;     ///< of leases_
  std::map<IpAddress, Nanoseconds> declined_;  ///< in use by somebody unknown until then
};

}  // namespace lodge::network
