// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "image/endian.h"

namespace lodge::image::vmdk {

// VMware's "Virtual Disk Format 5.0": sparse extents. All counts and offsets are in sectors of 512 bytes.

constexpr std::uint64_t kSector = 512;
constexpr std::uint32_t kMagic = 0x564d444b;      ///< "KDMV" in the file
constexpr std::uint32_t kCowdMagic = 0x44574f43;  ///< "COWD"
constexpr std::uint64_t kSeSparseMagic = 0xcafebabe;
constexpr std::uint64_t kSeSparseVersion = 0x0000000200000001;
constexpr std::uint64_t kDirectoryAtEnd = ~std::uint64_t{0};

enum Flags : std::uint32_t {
  kNewlineTest = 1,
  kRedundantTable = 2,
  kZeroedGrains = 4,  ///< table entry 1 means a grain of zeroes
  kCompressed = 1 << 16,
  kMarkers = 1 << 17,
};

/// "Hosted" sparse extents (monolithicSparse, twoGbMaxExtentSparse, streamOptimized).
struct SparseHeader {
  Le32 magic, version, flags;
  Le64 capacity, grainSize;
  Le64 descriptorOffset, descriptorSize;
  Le32 entriesPerTable;
  Le64 redundantDirectory, directory;
  Le64 overhead;  ///< where the first grain may be
  std::uint8_t uncleanShutdown;
  std::array<char, 4> lineEnds;  ///< "\n \r\n": broken by transfers as text
  Le16 compression;              ///< 1: deflate
  std::array<std::byte, 433> padding;
};
static_assert(sizeof(SparseHeader) == 512 && alignof(SparseHeader) == 1);

/// Before each piece of a streamOptimized extent. bytes == 0: a table of `type`, `value` sectors long; otherwise a
/// compressed grain for sector `value`, whose data begin at `type`.
struct Marker {
  Le64 value;
  Le32 bytes;
  Le32 type;
};
static_assert(sizeof(Marker) == 16);
constexpr std::uint64_t kGrainMarkerBytes = 12;
enum MarkerType : std::uint32_t { kEndOfStream = 0, kTable = 1, kDirectory = 2, kFooter = 3 };

/// ESX's sparse extents of VMFS 3 to 5 (vmfsSparse). The rest of the header says nothing that is needed.
struct CowdHeader {
  Le32 magic, version, flags;
  Le32 capacity, grainSize;
  Le32 directory, directoryEntries, freeSector;
};
static_assert(sizeof(CowdHeader) == 32);
constexpr std::uint64_t kCowdEntriesPerTable = 4096;

/// ESX's space-efficient sparse extents of VMFS 6 (seSparse).
struct SeSparseHeader {
  Le64 magic, version;
  Le64 capacity, grainSize, tableSize, flags;
  std::array<Le64, 4> reserved;
  Le64 volatileHeader, volatileHeaderSize;
  Le64 journalHeader, journalHeaderSize, journal, journalSize;
  Le64 directory, directorySize;
  Le64 tables, tablesSize;
  Le64 freeBitmap, freeBitmapSize;
  Le64 backMap, backMapSize;
  Le64 grains, grainsSize;
  std::array<std::byte, 304> padding;
};
static_assert(sizeof(SeSparseHeader) == 512);
struct SeSparseVolatileHeader {
  Le64 magic, freeTable, nextTransaction, replayJournal;
};
constexpr std::uint64_t kSeSparseVolatileMagic = 0xcafecafe;

}  // namespace lodge::image::vmdk
