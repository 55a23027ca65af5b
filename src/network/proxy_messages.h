// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "net/address.h"

namespace lodge::network {

/// Where a proxy's client wants to go: an address, or a name to look up.
struct ProxyTarget {
  std::string name;  ///< empty if `address` is set
  std::optional<IpAddress> address{};
  std::uint16_t port = 0;
};

/// What the beginning of a stream is: not all of it there yet, no such message, or one of `length` bytes.
enum class Reading : std::uint8_t { incomplete, wrong, whole };

namespace socks {
inline constexpr std::uint8_t kVersion = 5, kConnect = 1, kBind = 2, kUdpAssociate = 3;
inline constexpr std::uint8_t kSucceeded = 0, kFailure = 1, kNotAllowed = 2, kNetworkUnreachable = 3,
                              kHostUnreachable = 4, kRefused = 5, kTimedOut = 6, kNoCommand = 7, kNoAddressType = 8;
}  // namespace socks

/// The methods that a client offers (RFC 1928, 3).
struct SocksGreeting {
  bool anonymous = false;  ///< "no authentication" is among them
};
Reading readSocksGreeting(std::span<const std::uint8_t> bytes, std::size_t& length, SocksGreeting& greeting);

/// RFC 1928, 4.
struct SocksRequest {
  std::uint8_t command = 0;
  bool knownAddress = true;  ///< false: an address type that there is not
  ProxyTarget target{};
};
Reading readSocksRequest(std::span<const std::uint8_t> bytes, std::size_t& length, SocksRequest& request);
std::vector<std::uint8_t> socksReply(std::uint8_t code, const IpAddress& bound, std::uint16_t port);

/// RFC 1928, 7; fragments are none.
struct SocksDatagram {
  ProxyTarget target;
  std::span<const std::uint8_t> data{};
};
std::optional<SocksDatagram> readSocksDatagram(std::span<const std::uint8_t> bytes);
std::vector<std::uint8_t> socksDatagram(const IpAddress& from, std::uint16_t port, std::span<const std::uint8_t> data);

/// An HTTP request as a proxy gets it (RFC 9110, 9.3.6; RFC 9112, 3.2).
struct HttpProxyRequest {
  bool connect = false;
  ProxyTarget target{};
  std::string forward{};  ///< unless `connect`: the request as its server shall see it, up to the body
};
Reading readHttpProxyRequest(std::span<const std::uint8_t> bytes, std::size_t& length, HttpProxyRequest& request);

/// "host:80", "[fd00::1]:80", "192.0.2.1". `port`: if the text has none; 0: it must have one.
std::optional<ProxyTarget> proxyTargetFrom(std::string_view text, std::uint16_t port);

}  // namespace lodge::network
