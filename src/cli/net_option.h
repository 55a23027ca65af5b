// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "machine/config.h"
#include "net/forward.h"
#include "network/definition.h"

namespace lodge::cli {

/// Reads a --net value: "none" (gives nullopt), or
///   user[,forward=tcp|udp:[HOST-ADDRESS]:HOST-PORT:[GUEST-ADDRESS:]GUEST-PORT]...[,mac=XX:XX:XX:XX:XX:XX][,hostname=NAME]
///       [,queues=N][,ipv6=on|off][,tftp=FOLDER][,bootfile=NAME][,restricted]
/// or the name of one of the user's networks (network/store.h) with a port's settings: NAME[,mac=...][,ip=ADDRESS]...
///       [,rate=100M][,delay=20ms][,loss=1%][,vlan=N][,trunk=N+N...][,mirror=PORT][,link=down][,spoof=on][,queues=N].
/// IPv6 addresses go in brackets. Errors: invalidArgument.
Result<std::optional<NetConfig>> parseNet(std::string_view text);

/// A port's settings out of KEY=VALUE fields, as network::updatePort() takes them. Errors: invalidArgument.
Result<network::Json> parsePortSettings(std::span<const std::string> fields);

/// Six hexadecimal bytes between colons; not a group address (bit 0 of the first byte), which no card can have.
Result<MacAddress> parseMac(std::string_view text);

}  // namespace lodge::cli
