// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "net/address.h"
#include "network/message.h"

namespace lodge::network {

/// What a direct port may send, and whether its frames stay out of the bridge.
struct DirectRules {
  MacAddress mac{};
  std::vector<IpAddress> own;         ///< nobody else of the bridge's ports may use them
  bool only4 = false, only6 = false;  ///< it may use none but those of its own
  bool guard = true;                  ///< false: it may send what it likes
  bool held = false;                  ///< nothing passes between it and the bridge: its packet socket has all
  bool operator==(const DirectRules&) const = default;
};

/// The helper's side of direct ports: tap devices in the bridge, one a card, whose other end a machine has. A table of
/// nftables' bridge family stands for the guard (network/guard.h): a source belongs to the hardware address that it was
/// given to, or else to the first that used it, until it was quiet for ten minutes.
class DirectPorts {
 public:
  struct Place {
    std::string network, bridge;
    std::string uplink;  ///< the network's own tap device in the bridge: where machines behind its switch come from
  };
  ~DirectPorts() { clear(); }

  void setPlace(Place place) { place_ = std::move(place); }
  /// {"do":"plug","number":N,"queues":Q,"guard":true,"network":[{"mac":M,"address":A},...]}: the device's queues come
  /// back, and a packet socket on it. `existing`: a queue of a device that shall be it, as after another process of the
  /// network's.
  Result<Message> plug(const nlohmann::json& request, UniqueFd existing);
  /// {"do":"rules","tap":T,"mac":M,"own":[...],"only4":...,"only6":...,"guard":...,"held":...}
  Result<Message> rules(const nlohmann::json& request);
  /// {"do":"unplug","tap":T}
  Result<Message> unplug(const nlohmann::json& request);
  void clear();

 private:
  struct Port {
    unsigned number = 0;
    DirectRules rules;
  };
  Status makeTable(const nlohmann::json& request);
  std::string table() const;

  Place place_;
  bool made_ = false;
  std::map<std::string, Port> ports_;
};

/// The device of a direct port: at most 15 characters.
std::string directTapName(const std::string& network, unsigned number);
inline constexpr unsigned kMostDirectPorts = 1023;

/// nftables' text: the table of a bridge, a port's part of it, and its removal.
std::string directTable(const std::string& table, const std::string& uplink, bool guard);
std::string directPortRules(const std::string& table, const std::string& tap, unsigned number,
                            const DirectRules& before, const DirectRules& rules);
std::string directPortRemoval(const std::string& table, const std::string& tap, unsigned number,
                              const DirectRules& before);
/// An address that belongs to a hardware address for good; `add` or `delete`.
std::string directOwner(const std::string& table, const char* what, const IpAddress& address, const MacAddress& mac);

}  // namespace lodge::network
