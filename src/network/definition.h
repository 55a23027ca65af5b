// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "net/address.h"
#include "net/backend.h"
#include "network/policy_rule.h"
#include "network/shaper.h"
#include "network/switch.h"

namespace lodge::network {

using Json = nlohmann::json;

/// docs/networks.md describes them.
enum class NetworkKind : std::uint8_t { user, nat, internal, isolated, bridge, wifi, switched };
std::string_view toString(NetworkKind kind);
std::optional<NetworkKind> kindFrom(std::string_view text);
/// The kinds that need CAP_NET_ADMIN: what changes the host's own network.
bool needsPrivilege(NetworkKind kind);

/// An address that belongs to a machine, or to whoever has a hardware address.
struct StaticLease {
  std::string machine;  ///< empty if `mac` is given
  std::optional<MacAddress> mac;
  IpAddress address;
};

/// The other switch of a tunnel.
struct TunnelSettings {
  bool udp = false, listens = false;
  std::string address;  ///< of the peer, or of this side if it listens
  std::uint16_t port = 0;
};

/// A network as its file has it: what it is, not what runs.
struct NetworkDefinition {
  std::string name;
  NetworkKind kind = NetworkKind::user;
  std::optional<IpBlock> subnet, subnet6;
  bool ipv6 = true, dhcp = true;
  unsigned mtu = 0;    ///< 0: that of the host's card or device which it joins, when it comes up
  bool keep = false;   ///< stays when the last machine has left
  std::string uplink;  ///< the host's card; of a switch: "user", "tap:NAME" or none
  bool host = true;    ///< of a bridge: the host shares the card
  bool antiSpoof = true;
  CableSettings cable;  ///< of ports that have none of their own
  std::vector<PortForward> forwards;
  std::vector<StaticLease> leases;
  std::vector<EgressRule> egress;
  bool egressAllowed = true;  ///< what no rule decides
  std::vector<TunnelSettings> tunnels;
  std::vector<IpAddress> upstreamDns;  ///< empty: the host's

  /// What the names of its machines end in: "NAME.internal".
  std::string domain() const { return name + ".internal"; }
  /// libslirp is the way out.
  bool userUplink() const { return kind == NetworkKind::user || (kind == NetworkKind::switched && uplink == "user"); }
};

Json toJson(const NetworkDefinition& definition);
/// Errors: corrupt, naming the member.
Result<NetworkDefinition> definitionFrom(const Json& json);
/// Makes sense of it as a whole, and chooses a subnet where the kind needs one and none is given. `taken`: blocks that
/// are in use. Errors: invalidArgument, busy (an overlap).
Status completeDefinition(NetworkDefinition& definition, const std::vector<std::pair<std::string, IpBlock>>& taken);

/// 1 to 32 letters, digits, '-' and '_', a letter or digit first; not a word that --net knows.
bool isNetworkName(std::string_view name);

/// "10M", "1.5G", "800k": bits a second (powers of 1000). Errors: invalidArgument.
Result<std::uint64_t> rateFrom(std::string_view text);
/// "20ms", "1.5s", "300us". Errors: invalidArgument; over 10 s.
Result<Nanoseconds> delayFrom(std::string_view text);
/// "1%", "0.05%": parts of a million. Errors: invalidArgument.
Result<std::uint32_t> lossFrom(std::string_view text);
std::string rateText(std::uint64_t bitsPerSecond);

Json toJson(const CableSettings& cable);
/// Nothing if members have wrong types or ranges.
std::optional<CableSettings> cableFrom(const Json& json);
std::string forwardText(const PortForward& forward);
/// "tcp:listen:192.0.2.1:4789", "udp:connect:[2001:db8::1]:4789". Errors: invalidArgument.
Result<TunnelSettings> tunnelFrom(const std::string& text);
std::string tunnelText(const TunnelSettings& tunnel);

}  // namespace lodge::network
