// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <string>

namespace lodge::image {

/// Sixteen bytes as they stand in a file.
using Uuid = std::array<std::byte, 16>;

/// A random one (RFC 4122, version 4) in the file order of `mixed` (Microsoft's: the first three fields little-endian)
/// or of the RFC.
Uuid randomUuid(bool mixed);
/// "01234567-89ab-cdef-0123-456789abcdef".
std::string formatUuid(const Uuid& uuid, bool mixed);
inline bool isNull(const Uuid& uuid) {
  return uuid == Uuid{};
}

}  // namespace lodge::image
