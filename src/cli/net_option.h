// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string_view>

#include "base/error.h"
#include "machine/config.h"

namespace lodge::cli {

/// Reads a --net value: "none" (gives nullopt), or
///   user[,forward=tcp|udp:[HOST-ADDRESS]:HOST-PORT:[GUEST-ADDRESS:]GUEST-PORT]...[,mac=XX:XX:XX:XX:XX:XX][,hostname=NAME]
///       [,ipv6=on|off][,tftp=FOLDER][,bootfile=NAME][,restricted]
/// IPv6 addresses go in brackets. Errors: invalidArgument.
Result<std::optional<NetConfig>> parseNet(std::string_view text);

/// tcp:127.0.0.1:2222:22, tcp::2222:22 (the same), udp:[::1]:5353:10.0.2.15:53. Errors: invalidArgument.
Result<PortForward> parseForward(std::string_view text);

/// Six hexadecimal bytes between colons; not a group address (bit 0 of the first byte), which no card can have.
Result<MacAddress> parseMac(std::string_view text);

}  // namespace lodge::cli
