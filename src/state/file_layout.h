// SPDX-License-Identifier: Apache-2.0
// The first page of a state file; docs/state-format.md. Numbers are little-endian.
#pragma once

#include <array>
#include <cstdint>

namespace lodge::state {

inline constexpr std::array<char, 8> kMagic = {'L', 'O', 'D', 'G', 'E', 's', 't', '\n'};
inline constexpr std::uint32_t kFormatVersion = 1;
inline constexpr std::uint64_t kDataStart = 4096;

struct FileHeader {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t chunkBytes;
  std::uint64_t fileBytes;  ///< so that a file that was cut short is known at once
  std::uint64_t memoryBytes;
  std::uint64_t chunksAt, chunkCount;
  std::uint64_t sectionsAt, sectionsBytes;
  std::uint32_t chunksChecksum, sectionsChecksum;
  std::uint32_t reserved;
  std::uint32_t checksum;  ///< CRC-32C of what is before it
};
static_assert(sizeof(FileHeader) == 80);

}  // namespace lodge::state
