// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace lodge::vnc {

/// Numbers of the protocol: most significant byte first, 1 to 4 bytes.
inline void put(std::string& out, std::uint32_t value, unsigned bytes) {
  for (unsigned n = bytes; n-- > 0;) out.push_back(static_cast<char>(value >> (8 * n)));
}
inline std::uint32_t get(const std::uint8_t* bytes, unsigned count) {
  std::uint32_t value = 0;
  for (unsigned n = 0; n < count; ++n) value = value << 8 | bytes[n];
  return value;
}

/// Encodings that are none: what a client understands (RFC 6143, 7.7.1; the RFB community's description).
enum class Pseudo : std::int32_t {
  desktopSize = -223,
  cursor = -239,
  extendedDesktopSize = -308,
  cursorWithAlpha = -314,
  extendedClipboard = static_cast<std::int32_t>(0xc0a1e5ce),
};

}  // namespace lodge::vnc
