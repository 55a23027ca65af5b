// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/units.h"

namespace lodge::network {

/// The blocks of a pcapng file (IETF draft-ietf-opsawg-pcapng): section header, one interface description a port,
/// enhanced packet blocks with nanoseconds. Each function returns a block's bytes.
class CaptureFormat {
 public:
  static std::string header();
  /// The interface's number is the order in which these blocks come.
  static std::string interface(std::string_view name, std::uint32_t snapLength);
  enum class Direction : std::uint8_t { in = 1, out = 2 };
  /// `utc`: since 1970. The frame is cut at `snapLength` bytes; 0: whole.
  static std::string packet(std::uint32_t interface, Nanoseconds utc, std::span<const std::uint8_t> frame,
                            Direction direction, std::uint32_t snapLength);
};

}  // namespace lodge::network
