// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "firmware/platform.h"

namespace lodge::firmware {

/// A machine's UUID, always the same for the same name: version 8 of RFC 9562 (a hash of our own choice), in that
/// standard's byte order.
std::array<std::uint8_t, 16> machineUuid(std::string_view machineName);

/// SMBIOS 3.0 entry point and structure table (DSP0134 3.0) for guest-physical address `base`; `memoryBytes` of RAM.
std::vector<std::uint8_t> buildSmbios(const PlatformDescription& platform, std::uint64_t memoryBytes,
                                      std::uint64_t base);

}  // namespace lodge::firmware
