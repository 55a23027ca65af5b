// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "base/crc32c.h"
#include "base/units.h"
#include "image/endian.h"
#include "image/uuid.h"

namespace lodge::image::vhdx {

// Microsoft's [MS-VHDX]: "Virtual Hard Disk v2 (VHDX) File Format". Section numbers are that document's.

constexpr std::uint64_t kHeaderOffsets[] = {64_KiB, 128_KiB};
constexpr std::uint64_t kRegionTableOffsets[] = {192_KiB, 256_KiB};
constexpr std::uint64_t kHeaderBytes = 4_KiB, kRegionTableBytes = 64_KiB, kMetadataTableBytes = 64_KiB;
constexpr std::uint64_t kLogSector = 4_KiB;
constexpr std::uint64_t kMaxDiskBytes = 64_TiB;

/// 2.2.2: 4 KiB in the file, the rest is zero.
struct Header {
  std::array<char, 4> signature;  ///< "head"
  Le32 checksum;                  ///< CRC-32C of the 4 KiB with this field zero
  Le64 sequence;                  ///< the greater one of the two headers counts
  Uuid fileWrite, dataWrite, log;
  Le16 logVersion, version;
  Le32 logBytes;
  Le64 logOffset;
  std::array<std::byte, 4016> reserved;
};
static_assert(sizeof(Header) == kHeaderBytes && alignof(Header) == 1);

/// 2.2.3
struct RegionTable {
  std::array<char, 4> signature;  ///< "regi"
  Le32 checksum;
  Le32 entries;
  Le32 reserved;
};
struct Region {
  Uuid kind;
  Le64 offset;
  Le32 bytes;
  Le32 required;
};
static_assert(sizeof(RegionTable) == 16 && sizeof(Region) == 32);
constexpr std::uint32_t kMostEntries = 2047;

/// 2.6.1
struct MetadataTable {
  std::array<char, 8> signature;  ///< "metadata"
  Le16 reserved;
  Le16 entries;
  std::array<std::byte, 20> reserved2;
};
struct MetadataEntry {
  Uuid item;
  Le32 offset;  ///< from the region's start
  Le32 bytes;
  Le32 flags;
  Le32 reserved;
};
static_assert(sizeof(MetadataTable) == 32 && sizeof(MetadataEntry) == 32);
enum MetadataFlags : std::uint32_t { kIsUser = 1, kIsVirtualDisk = 2, kIsRequired = 4 };

/// 2.6.2.1
struct FileParameters {
  Le32 blockBytes;
  Le32 flags;
};
enum FileFlags : std::uint32_t { kLeaveBlocksAllocated = 1, kHasParent = 2 };

/// 2.6.2.6
struct ParentLocator {
  Uuid type;
  Le16 reserved;
  Le16 entries;
};
struct ParentEntry {
  Le32 keyOffset, valueOffset;
  Le16 keyBytes, valueBytes;
};
static_assert(sizeof(ParentLocator) == 20 && sizeof(ParentEntry) == 12);

/// 2.5.1: three bits of state, and the offset in MiB from bit 20 on.
enum State : std::uint8_t {
  kNotPresent = 0,
  kUndefined = 1,
  kZero = 2,
  kUnmapped = 3,
  kFullyPresent = 6,
  kPartiallyPresent = 7,
  kBitmapPresent = 6,
};
constexpr State stateOf(std::uint64_t entry) {
  return static_cast<State>(entry & 7);
}
constexpr std::uint64_t offsetOf(std::uint64_t entry) {
  return entry >> 20 << 20;
}
constexpr std::uint64_t makeEntry(State state, std::uint64_t offset) {
  return offset | state;
}
constexpr std::uint64_t kSectorsPerBitmap = std::uint64_t{1} << 23;

/// 2.3.1
struct LogHeader {
  std::array<char, 4> signature;  ///< "loge"
  Le32 checksum;                  ///< of the whole entry
  Le32 bytes;
  Le32 tail;  ///< offset in the log of the oldest entry that is still needed
  Le64 sequence;
  Le32 descriptors;
  Le32 reserved;
  Uuid log;
  Le64 flushedFileBytes, lastFileBytes;
};
struct LogDescriptor {
  std::array<char, 4> signature;  ///< "desc" or "zero"
  Le32 trailing;                  ///< the sector's last 4 bytes
  Le64 leading;                   ///< its first 8 bytes; of a "zero": how many bytes
  Le64 offset;
  Le64 sequence;
};
struct LogData {
  std::array<char, 4> signature;  ///< "data"
  Le32 sequenceHigh;
  std::array<std::byte, 4084> bytes;
  Le32 sequenceLow;
};
static_assert(sizeof(LogHeader) == 64 && sizeof(LogDescriptor) == 32 && sizeof(LogData) == kLogSector);

/// A GUID from its text's five numbers, in file order.
constexpr Uuid guid(std::uint32_t a, std::uint16_t b, std::uint16_t c, std::uint16_t d, std::uint64_t e) {
  Uuid uuid{};
  auto put = [&](std::size_t at, std::uint64_t value, int bytes, bool big) {
    for (int i = 0; i < bytes; ++i) {
      uuid[at + static_cast<std::size_t>(i)] = static_cast<std::byte>(value >> 8 * (big ? bytes - 1 - i : i));
    }
  };
  put(0, a, 4, false);
  put(4, b, 2, false);
  put(6, c, 2, false);
  put(8, d, 2, true);
  put(10, e, 6, true);
  return uuid;
}
constexpr Uuid kBatRegion = guid(0x2dc27766, 0xf623, 0x4200, 0x9d64, 0x115e9bfd4a08);
constexpr Uuid kMetadataRegion = guid(0x8b7ca206, 0x4790, 0x4b9a, 0xb8fe, 0x575f050f886e);
constexpr Uuid kFileParametersItem = guid(0xcaa16737, 0xfa36, 0x4d43, 0xb3b6, 0x33f0aa44e76b);
constexpr Uuid kDiskSizeItem = guid(0x2fa54224, 0xcd1b, 0x4876, 0xb211, 0x5dbed83bf4b8);
constexpr Uuid kDiskIdItem = guid(0xbeca12ab, 0xb2e6, 0x4523, 0x93ef, 0xc309e000c746);
constexpr Uuid kLogicalSectorItem = guid(0x8141bf1d, 0xa96f, 0x4709, 0xba47, 0xf233a8faab5f);
constexpr Uuid kPhysicalSectorItem = guid(0xcda348c7, 0x445d, 0x4471, 0x9cc9, 0xe9885251c556);
constexpr Uuid kParentLocatorItem = guid(0xa8d35f2d, 0xb30b, 0x454d, 0xabf7, 0xd3d84834ab0c);
constexpr Uuid kVhdxParent = guid(0xb04aefb7, 0xd19e, 0x4a81, 0xb789, 0x25b8e9445913);

/// The CRC of bytes whose checksum field (4 bytes at 4) counts as zero.
inline std::uint32_t checksumOf(std::span<const std::byte> bytes) {
  constexpr std::byte kNone[4] = {};
  std::uint32_t crc = crc32c(bytes.first(4));
  crc = crc32c(kNone, crc);
  return crc32c(bytes.subspan(8), crc);
}

template <class T, std::size_t n>
bool hasSignature(const T& object, const char (&text)[n]) {
  return std::memcmp(object.signature.data(), text, n - 1) == 0;
}

}  // namespace lodge::image::vhdx
