// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "image/endian.h"
#include "image/uuid.h"

namespace lodge::image::vhd {

// Microsoft's "Virtual Hard Disk Image Format Specification" 1.0: a footer that says everything, and for the kinds that
// grow a copy of it in front, a header, a table of 32-bit sector numbers, and blocks with a bitmap before each.

constexpr std::uint64_t kSector = 512;
constexpr std::uint32_t kUnused = 0xffffffff;  ///< table entry
constexpr std::uint64_t kNoOffset = ~std::uint64_t{0};
constexpr std::uint64_t kMaxBytes = std::uint64_t{2040} << 30;  ///< Hyper-V's limit
constexpr std::uint64_t kMaxChsSectors = std::uint64_t{65535} * 16 * 255;

enum Type : std::uint32_t { kFixed = 2, kDynamic = 3, kDifferencing = 4 };

struct Footer {
  std::array<char, 8> cookie;  ///< "conectix"
  Be32 features;
  Be32 version;     ///< 0x00010000
  Be64 dataOffset;  ///< of the header; all ones for fixed
  Be32 timestamp;   ///< seconds since 2000-01-01 UTC
  std::array<char, 4> creator;
  Be32 creatorVersion;
  std::array<char, 4> creatorHost;
  Be64 originalBytes, currentBytes;
  Be16 cylinders;
  std::uint8_t heads, sectorsPerTrack;
  Be32 type;
  Be32 checksum;  ///< complement of the sum of the footer's bytes without this field
  Uuid uuid;
  std::uint8_t savedState;
  std::array<std::byte, 427> reserved;
};
static_assert(sizeof(Footer) == 512 && alignof(Footer) == 1);

struct Locator {
  Be32 platform;  ///< kRelative, kAbsolute, ...
  Be32 space;     ///< bytes kept for it (some products count sectors)
  Be32 length;    ///< bytes of the name
  Be32 reserved;
  Be64 offset;
};
constexpr std::uint32_t kRelative = 0x57327275;  ///< "W2ru": UTF-16LE, relative to the child
constexpr std::uint32_t kAbsolute = 0x57326b75;  ///< "W2ku": UTF-16LE

struct Header {
  std::array<char, 8> cookie;  ///< "cxsparse"
  Be64 dataOffset;             ///< all ones
  Be64 tableOffset;
  Be32 version;  ///< 0x00010000
  Be32 entries;
  Be32 blockBytes;
  Be32 checksum;
  Uuid parentUuid;
  Be32 parentTimestamp;
  Be32 reserved;
  std::array<Be16, 256> parentName;  ///< UTF-16BE
  std::array<Locator, 8> locators;
  std::array<std::byte, 256> padding;
};
static_assert(sizeof(Header) == 1024 && alignof(Header) == 1);

struct Chs {
  std::uint16_t cylinders = 0;
  std::uint8_t heads = 0, sectors = 0;
  std::uint64_t total() const { return std::uint64_t{cylinders} * heads * sectors; }
};
/// The geometry of a disk of so many sectors (the specification's appendix): total() may be less.
Chs geometryOf(std::uint64_t sectors);
/// The least number of sectors from `sectors` on that a geometry gives exactly.
std::uint64_t roundToGeometry(std::uint64_t sectors);

/// What the checksum fields should be.
std::uint32_t checksumOf(Footer footer);
std::uint32_t checksumOf(Header header);
bool isGood(const Footer& footer);
bool isGood(const Header& header);

/// A footer for a new image or one whose size changes; checksum set.
void setSize(Footer& footer, std::uint64_t bytes);
Footer makeFooter(std::uint64_t bytes, Type type, bool exact);

}  // namespace lodge::image::vhd
