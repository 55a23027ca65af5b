// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace lodge {

/// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78) of the bytes, continued from `before`.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0);

}  // namespace lodge
