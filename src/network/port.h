// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "net/backend.h"
#include "network/capture.h"
#include "network/definition.h"
#include "network/direct_link.h"
#include "network/guard.h"
#include "network/policy.h"
#include "network/shaper.h"
#include "network/switch.h"

namespace lodge::network {

/// What a port is, as whoever joins asks for it and `lodge network edit` changes it.
struct PortSettings {
  std::string name;  ///< the machine's or the tap device's
  std::optional<MacAddress> mac{};
  std::vector<IpAddress> addresses{};    ///< its own; the first IPv4 one is what DHCP gives it
  std::optional<CableSettings> cable{};  ///< else the network's
  VlanMembership vlans{};
  std::optional<bool> antiSpoof{};  ///< else the network's
  std::string mirrorOf{};           ///< name of the port whose frames come here
  bool up = true;
};
Json toJson(const PortSettings& settings);
/// Takes the members that are there over `settings`. Errors: invalidArgument, naming the member.
Status updatePort(const Json& json, PortSettings& settings);

struct PortCounters {
  std::uint64_t framesIn = 0, bytesIn = 0, framesOut = 0, bytesOut = 0;  ///< in: from the machine
  std::uint64_t spoofed = 0, refused = 0, shaped = 0, down = 0;
};

/// One cable of the switch with what hangs on it: settings, guard, egress filter, shapers, counters, captures.
/// I/O thread.
class Port {
 public:
  enum class Role : std::uint8_t { machine, services, uplink, tunnel };
  /// Gets each frame that passes; for captures.
  using Tap = std::function<void(const Port&, std::span<const std::uint8_t> frame, CaptureFormat::Direction)>;

  /// Whether a frame from the host's bridge may pass.
  using FromBridge = std::function<bool(std::span<const std::uint8_t> frame)>;

  struct Context {
    EventLoop& loop;
    Switch& wires;
    AddressBook& book;
    const Tap& tap;
    const FromBridge& fromBridge;
  };
  Port(Context context, PortSettings settings, Role role, std::unique_ptr<NetBackend> link);
  ~Port();
  Port(const Port&) = delete;
  Port& operator=(const Port&) = delete;

  /// Called once all is in place: frames flow from then on.
  void start();
  void apply(const PortSettings& settings, const CableSettings& cable, bool antiSpoof);
  void setFilter(std::unique_ptr<EgressFilter> filter) { filter_ = std::move(filter); }
  EgressFilter* filter() { return filter_.get(); }

  PortId id() const { return id_; }
  Role role() const { return role_; }
  const PortSettings& settings() const { return settings_; }
  PortCounters counters() const;
  NetBackend& link() { return *link_; }
  /// Where the port is in the host's bridge, if it is one of those.
  DirectLink* direct() const { return direct_; }
  bool guarded() const { return guarded_; }
  /// Whether the guard lets a frame pass; counts and logs what it refuses.
  bool guards(std::span<const std::uint8_t> frame);
  /// What the kernel's guard has dropped since the port came: {REASON:frames,...}.
  void kernelDropped(const Json& drops);
  Json describe() const;

 private:
  void fromLink(std::span<const std::uint8_t> frame, const FrameOffload& offload);
  void toLink(std::span<const std::uint8_t> frame, const FrameOffload& offload);
  bool admits(std::span<const std::uint8_t> frame);
  bool guards(std::span<const std::uint8_t> frame, const Packet& packet);

  Context context_;
  PortSettings settings_;
  Role role_;
  std::unique_ptr<NetBackend> link_;
  DirectLink* direct_;
  PortId id_ = 0;
  Guard::Identity identity_;
  bool guarded_ = false;
  std::unique_ptr<EgressFilter> filter_;
  Shaper in_, out_;
  PortCounters counters_;
  std::map<std::string, std::uint64_t> refused_, inKernel_;  ///< frames that are not its own, by the reason
  Nanoseconds spoofLogged_ = -1;
};

}  // namespace lodge::network
