// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/units.h"

/// Where firmware keeps its own things below 1 MiB. Everything else is placed where the kernel's images leave room.
namespace lodge::firmware::layout {

inline constexpr std::uint64_t kBiosDataArea = 0x400;
inline constexpr std::uint64_t kLowMemoryEnd = 0x9fc00;  ///< the extended BIOS data area begins
inline constexpr std::uint64_t kAcpiBase = 0xe0000;      ///< RSDP first: within the range that operating systems scan
inline constexpr std::uint64_t kAcpiEnd = 0xf0000;
inline constexpr std::uint64_t kSmbiosBase = 0xf0000;  ///< the entry point: likewise
inline constexpr std::uint64_t kSmbiosEnd = 0x100000;
inline constexpr std::uint64_t kHighMemoryStart = 0x100000;
/// Lowest address for placed things: the real-mode interrupt table and BIOS data area stay free.
inline constexpr std::uint64_t kPlacementStart = 0x1000;

}  // namespace lodge::firmware::layout
