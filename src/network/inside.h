// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "net/address.h"
#include "network/message.h"

namespace lodge::network {

/// A network namespace of this program's own: a child process stands in it and makes sockets there for this one, so
/// that connections start inside the network whose port the namespace's card is. It ends with this process.
class Inside {
 public:
  enum class Kind : std::uint8_t { stream, datagram, packet };

  /// To be called while this process has one thread. Errors: permissionDenied (no namespaces for this user), io.
  static Result<std::unique_ptr<Inside>> create();
  ~Inside();
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

  /// The card: a tap device with offload headers, for join() (network/client.h).
  int tap() const { return tap_.get(); }
  const MacAddress& mac() const { return mac_; }
  Status setMtu(unsigned mtu);
  /// The IPv4 address and default router; what was set before goes. IPv6 comes by the network's advertisements.
  Status setAddress(const IpBlock& network, const IpAddress& address, const std::optional<IpAddress>& router);
  /// IPv6 in full: an address that no advertisement gives.
  Status setAddress6(const IpAddress& address, unsigned prefix);

  /// A non-blocking socket of the namespace's; a packet socket is bound to the card. Errors: io.
  Result<UniqueFd> socket(Kind kind, bool v6);

 private:
  Inside(UniqueFd socket, pid_t pid) : socket_(std::move(socket)), pid_(pid) {}
  Result<Message> ask(const nlohmann::json& request);

  UniqueFd socket_, tap_;
  pid_t pid_;
  MacAddress mac_{};
};

}  // namespace lodge::network
