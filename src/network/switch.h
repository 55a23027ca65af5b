// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "net/backend.h"
#include "network/token_bucket.h"

namespace lodge::network {

using PortId = std::uint32_t;

/// The VLANs of a port (IEEE 802.1Q): untagged frames belong to `access`; with `trunk`, frames of those VLANs pass with
/// their tag.
struct VlanMembership {
  std::uint16_t access = 1;
  std::set<std::uint16_t> trunk;
  bool carries(std::uint16_t vlan) const { return vlan == access || trunk.count(vlan) != 0; }
  bool operator==(const VlanMembership&) const = default;
};

/// A learning Ethernet switch: addresses age, each port may only fill its own share of the table, and floods
/// (broadcast, multicast, unknown destinations) are limited a port. Single-threaded; outputs are called from input().
class Switch {
 public:
  using Output = std::function<void(std::span<const std::uint8_t> frame, const FrameOffload& offload)>;

  struct Limits {
    std::size_t addressesPerPort = 256;
    Nanoseconds age = 300 * kNanosecondsPerSecond;
    std::uint64_t floodsPerSecond = 4000, floodBurst = 8000;
  };
  struct Learnt {
    MacAddress mac{};
    std::uint16_t vlan = 0;
    PortId port = 0;
    bool fixed = false;
    Nanoseconds age = 0;  ///< since it was last seen
  };

  explicit Switch(const Clock& clock) : Switch(clock, Limits{}) {}
  Switch(const Clock& clock, Limits limits) : clock_(clock), limits_(limits) {}

  PortId add(VlanMembership vlans, Output output);
  /// Also forgets what was learnt there.
  void remove(PortId port);
  void setVlans(PortId port, VlanMembership vlans);
  /// `mac` is behind `port` for good: another port that uses it gains nothing.
  void pin(PortId port, const MacAddress& mac);
  void unpin(PortId port, const MacAddress& mac);
  /// Copies of all frames that enter or leave `from` go to `to`, which gets nothing else; nullopt ends it.
  void mirror(PortId from, std::optional<PortId> to);

  /// A frame that came in at `port`.
  void input(PortId port, std::span<const std::uint8_t> frame, const FrameOffload& offload);

  std::vector<Learnt> table() const;
  std::uint64_t floodsDropped() const { return floodsDropped_; }
  std::uint64_t addressesRefused() const { return addressesRefused_; }

 private:
  struct Port {
    VlanMembership vlans;
    Output output;
    std::size_t learnt = 0;
    std::optional<PortId> mirror;
    bool isMirror = false;
    TokenBucket floods;
  };
  struct Entry {
    PortId port = 0;
    bool fixed = false;
    Nanoseconds seen = 0;
  };
  static std::uint64_t key(std::uint16_t vlan, const MacAddress& mac);

  void learn(PortId port, std::uint16_t vlan, const MacAddress& mac);
  void expire();
  void forward(PortId from, std::uint16_t vlan, std::span<const std::uint8_t> frame, const FrameOffload& offload);
  void emit(PortId to, std::uint16_t vlan, std::span<const std::uint8_t> frame, const FrameOffload& offload);
  void copyToMirror(const Port& port, std::span<const std::uint8_t> frame, const FrameOffload& offload);

  const Clock& clock_;
  Limits limits_;
  std::map<PortId, Port> ports_;
  PortId next_ = 1;
  std::unordered_map<std::uint64_t, Entry> table_;
  std::unordered_map<std::uint64_t, PortId> pinned_;  ///< by address alone, in every VLAN
  Nanoseconds lastExpiry_ = 0;
  std::uint64_t floodsDropped_ = 0, addressesRefused_ = 0;
  std::vector<std::uint8_t> tagged_, untagged_;
};

}  // namespace lodge::network
