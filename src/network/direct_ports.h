// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "net/address.h"
#include "network/guard.h"
#include "network/message.h"

namespace lodge::network {

/// What a direct port may send, and whether its frames stay out of the bridge.
struct DirectRules {
  MacAddress mac{};
  bool only4 = false, only6 = false;  ///< it may use no addresses but those that it was given
  bool guard = true;                  ///< false: it may send what it likes
  bool held = false;                  ///< nothing passes between it and the bridge: its packet socket has all
  bool operator==(const DirectRules&) const = default;
};

/// Why the kernel drops a direct port's frames: in its table, the place in this list, from 1 on.
inline constexpr std::array<std::string_view, 18> kDropReasons = {
    refusal::kSourceMac, refusal::kTag,        refusal::kSnap,       refusal::kBridgeGroup, refusal::kBrokenArp,
    refusal::kArpMac,    refusal::kArpAddress, refusal::kBrokenIp,   refusal::kDhcp,        refusal::kDhcp6,
    refusal::kRouter,    refusal::kRedirect,   refusal::kQuery,      refusal::kTarget,      refusal::kLinkLayer,
    refusal::kSource,    refusal::kFlood,      refusal::kGroupRouter};

/// The helper's side of direct ports: tap devices in the bridge, one a card, whose other end a machine has. A table of
/// nftables' bridge family stands for the guard (network/guard.h): a source belongs to the hardware address that it was
/// given to, or else to the first that used it, until it was quiet for ten minutes. A table of the netdev family drops
/// what passes a bridge's rules by.
class DirectPorts {
 public:
  struct Place {
    std::string network, bridge;
    std::string uplink;  ///< the network's own tap device in the bridge: where machines behind its switch come from
  };
  ~DirectPorts() { clear(); }

  void setPlace(Place place) { place_ = std::move(place); }
  /// {"do":"plug","number":N,"queues":Q,"guard":true}: the device's queues come back, and a packet socket on it.
  /// `existing`: a queue of a device that shall be it, as after another process of the network's.
  Result<Message> plug(const nlohmann::json& request, UniqueFd existing);
  /// {"do":"rules","tap":T,"mac":M,"only4":...,"only6":...,"guard":...,"held":...}
  Result<Message> rules(const nlohmann::json& request);
  /// {"do":"given","set":[[address,mac],...],"unset":[address,...]}: whose addresses are whose for good, whatever port
  /// they are at; an address has one owner.
  Result<Message> given(const nlohmann::json& request);
  /// {"do":"forget","mac":M}: what nobody gave it is free.
  Result<Message> forget(const nlohmann::json& request);
  /// {"do":"drops"}: {"drops":{TAP:{REASON:frames,...},...}}, since each port came.
  Result<Message> drops() const;
  /// {"do":"unplug","tap":T}
  Result<Message> unplug(const nlohmann::json& request);
  void clear();

 private:
  struct Port {
    unsigned number = 0;
    DirectRules rules;
  };
  Status makeTable(bool guard);
  Status connect(const std::string& tap, unsigned number);
  std::string table() const;
  void release(const MacAddress& mac) const;

  Place place_;
  bool made_ = false;
  std::map<std::string, Port> ports_;
  std::map<IpAddress, MacAddress> given_;
};

/// The device of a direct port: at most 15 characters. Another user's networks have other ones.
std::string directTapName(const std::string& network, unsigned number);
inline constexpr unsigned kMostDirectPorts = 1023;
/// Takes a network's devices that are there out of any bridge, and down: the guard goes next.
void stopDirectTaps(const std::string& network);

/// nftables' text: the tables of a bridge, a port's part of them, and its removal.
std::string directTable(const std::string& table, const std::string& uplink, bool guard);
std::string directIngress(const std::string& table, const std::string& tap, unsigned number);
std::string directPortRules(const std::string& table, const std::string& tap, unsigned number,
                            const DirectRules& before, const DirectRules& rules);
std::string directPortRemoval(const std::string& table, const std::string& tap, unsigned number,
                              const DirectRules& before);
/// An address that belongs to a hardware address for good, and that it belongs to somebody; `what`: add or delete.
std::string directOwner(const std::string& table, const char* what, const IpAddress& address, const MacAddress& mac);
std::string directTaken(const std::string& table, const char* what, const IpAddress& address);
/// Forgets who used an address first; `key` as the table has it.
std::string directClaimRemoval(const std::string& table, const char* suffix, const std::string& key,
                               const std::string& mac);

}  // namespace lodge::network
