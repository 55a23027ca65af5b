// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "net/address.h"

namespace lodge::network {

/// Who may be reached: "allow|deny [tcp|udp|icmp] TARGET [port N|N-M]", where TARGET is an address, a block of
/// addresses, a domain name, "*.NAME" (every name under it, and not it itself) or "any".
struct EgressRule {
  bool allow = true;
  std::uint8_t protocol = 0;  ///< 0: all
  std::optional<IpBlock> block;
  std::string domain;  ///< without "*."
  bool subdomains = false;
  std::uint16_t firstPort = 0, lastPort = 65535;

  bool wantsName() const { return !domain.empty(); }
  /// Whether protocol and port are this rule's.
  bool fits(std::uint8_t protocolNumber, std::uint16_t port) const;
  bool fitsName(std::string_view name) const;
};

/// Errors: invalidArgument.
Result<EgressRule> egressRuleFrom(std::string_view text);
std::string ruleText(const EgressRule& rule);

}  // namespace lodge::network
