// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "image/endian.h"
#include "image/uuid.h"

namespace lodge::image::vdi {

// VirtualBox's image format, version 1.1: a header, a table of 32-bit block numbers, then the blocks.

constexpr std::uint32_t kSignature = 0xbeda107f;  ///< at offset 64
constexpr std::uint32_t kVersion = 0x00010001;
constexpr std::uint32_t kHeaderBytes = 400;       ///< from headerBytes on, as VirtualBox writes it
constexpr std::uint32_t kLeastHeaderBytes = 384;  ///< without the logical geometry, as QEMU does
constexpr std::uint32_t kFree = 0xffffffff;       ///< never written: the parent's content, or zero
constexpr std::uint32_t kZero = 0xfffffffe;       ///< discarded: zero

enum Type : std::uint32_t { kDynamic = 1, kFixed = 2, kUndo = 3, kDifferencing = 4 };

struct Geometry {
  Le32 cylinders, heads, sectors, sectorBytes;
};

struct Header {
  std::array<char, 64> text;
  Le32 signature;
  Le32 version;
  Le32 headerBytes;
  Le32 type;
  Le32 flags;
  std::array<char, 256> comment;
  Le32 tableOffset;  ///< bytes
  Le32 dataOffset;   ///< bytes
  Geometry geometry;
  Le32 unused;
  Le64 diskBytes;
  Le32 blockBytes;
  Le32 blockExtraBytes;  ///< before each block; 0 in all known images
  Le32 blocks;
  Le32 allocatedBlocks;
  Uuid created, modified, parent, parentModified;
  Geometry logicalGeometry;
  std::array<std::byte, 40> padding;
};
static_assert(sizeof(Header) == 512 && alignof(Header) == 1);

}  // namespace lodge::image::vdi
