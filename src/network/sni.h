// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace lodge::network {

/// What the beginning of a TCP stream tells of TLS (RFC 8446, 4.1.2; RFC 6066, 3).
struct TlsHello {
  bool whole = false;  ///< the ClientHello's extensions were all there
  std::string name;    ///< of the server, in lower case; empty: none given (or not seen yet)
};
/// Nothing if the bytes do not begin a ClientHello.
std::optional<TlsHello> parseTlsHello(std::span<const std::uint8_t> stream);

}  // namespace lodge::network
