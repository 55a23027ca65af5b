// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"

namespace lodge {

using MacAddress = std::array<std::uint8_t, 6>;

/// "52:54:00:12:34:56", in lower case.
std::string toText(const MacAddress& mac);
/// Six hexadecimal bytes between colons; nothing else around them.
std::optional<MacAddress> macFrom(std::string_view text);
inline bool isGroup(const MacAddress& mac) {
  return (mac[0] & 1) != 0;
}

/// An IPv4 address (the first four bytes) or an IPv6 address.
struct IpAddress {
  bool v6 = false;
  std::array<std::uint8_t, 16> bytes{};

  static IpAddress v4From(std::uint32_t hostOrder);
  /// `bytes`: 4 or 16 of them, in network order.
  static IpAddress from(std::span<const std::uint8_t> bytes);
  std::uint32_t v4() const;  ///< host order; of an IPv4 address only
  std::span<const std::uint8_t> span() const { return std::span(bytes).first(v6 ? 16 : 4); }
  bool unspecified() const { return *this == IpAddress{v6, {}}; }
  bool multicast() const { return v6 ? bytes[0] == 0xff : bytes[0] >= 224; }  ///< or IPv4's limited broadcast
  bool linkLocal() const {
    return v6 ? bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80 : bytes[0] == 169 && bytes[1] == 254;
  }
  auto operator<=>(const IpAddress&) const = default;  // NOLINT(modernize-use-nullptr)
};

std::optional<IpAddress> ipFrom(std::string_view text);
std::string toText(const IpAddress& address);

/// A block of addresses: 10.0.2.0/24, fd00::/64.
struct IpBlock {
  IpAddress base;
  unsigned prefix = 0;

  bool contains(const IpAddress& address) const;
  bool overlaps(const IpBlock& other) const { return contains(other.base) || other.contains(base); }
  IpAddress mask() const;
  /// The address `number` after the base.
  IpAddress at(std::uint32_t number) const;
  /// IPv4's directed broadcast.
  IpAddress last() const;
  bool operator==(const IpBlock&) const = default;
};

/// Reads ADDRESS/LENGTH; a lone address is a block of one. Errors: invalidArgument, with what is wrong and, where host
/// bits are set, the block that was meant.
Result<IpBlock> blockFrom(std::string_view text);
std::string toText(const IpBlock& block);

}  // namespace lodge
