// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/error.h"

namespace lodge::network {

/// What moves a card's addresses and routes to another, and back: lines for `ip -batch`.
struct AddressMove {
  std::string there, back;
  std::string gateway;  ///< IPv4's, if a route has one
  /// IPv6 prefixes whose routes may outlive the addresses on the card that was left, and would lead into nothing: those
  /// that came by router advertisements do.
  std::vector<std::string> left;
};
Result<AddressMove> planMove(const std::string& from, const std::string& to);

/// The bridge of a network whose helper was killed: a card in it gets its addresses and routes back, then the bridge
/// goes. Nothing happens to a bridge that Lodge did not make.
void takeDownBridge(const std::string& bridge);

/// A firewall that drops what it does not know when it is forwarded, as Docker sets up by iptables, lets the machines
/// through: rules in its chain FORWARD that name the bridge and carry the network's name as a comment. True: they were
/// needed, and closeForward() takes them away.
bool openForward(const std::string& network, const std::string& bridge);
void closeForward(const std::string& network, const std::string& bridge);

}  // namespace lodge::network
