// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "image/block_file.h"

/// qcow2 on disk, after QEMU's docs/interop/qcow2.txt. All numbers are big-endian.
namespace lodge::image::qcow2 {

inline constexpr std::uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
inline constexpr unsigned kMinClusterBits = 9, kMaxClusterBits = 21;
inline constexpr std::uint64_t kMaxL1Bytes = 32u << 20, kMaxRefTableBytes = 8u << 20;
inline constexpr std::uint32_t kMaxSnapshots = 65536;
inline constexpr std::uint32_t kSubclusters = 32;

namespace incompatible {
inline constexpr std::uint64_t dirty = 1, corrupt = 2, dataFile = 4, compressionType = 8, extendedL2 = 16,
                               known = dirty | corrupt | dataFile | compressionType | extendedL2;
}
namespace compatible {
inline constexpr std::uint64_t lazyRefcounts = 1;
}
namespace autoclear {
inline constexpr std::uint64_t bitmaps = 1, rawData = 2, known = bitmaps | rawData;
}
namespace extension {
inline constexpr std::uint32_t end = 0, backingFormat = 0xe2792aca, featureNames = 0x6803f857, bitmaps = 0x23852875,
                               cryptHeader = 0x0537be77, dataFile = 0x44415441;
}
namespace entry {
inline constexpr std::uint64_t copied = std::uint64_t{1} << 63, compressed = std::uint64_t{1} << 62, zero = 1,
                               offsetMask = 0x00fffffffffffe00;
}
enum class Compression : std::uint8_t { deflate = 0, zstd = 1 };

struct Extension {
  std::uint32_t type;
  std::string data;
};

/// The header's fields, and its extensions in their order: what is not known is kept and written back.
struct Header {
  std::uint32_t version = 3;
  std::uint32_t clusterBits = 16;
  std::uint64_t size = 0;
  std::uint32_t cryptMethod = 0;
  std::uint32_t l1Entries = 0;
  std::uint64_t l1Offset = 0;
  std::uint64_t refTableOffset = 0;
  std::uint32_t refTableClusters = 0;
  std::uint32_t snapshotCount = 0;
  std::uint64_t snapshotsOffset = 0;
  std::uint64_t incompatible = 0, compatible = 0, autoclear = 0;
  std::uint32_t refcountOrder = 4;
  std::uint32_t headerLength = 112;
  Compression compression = Compression::deflate;
  std::string laterFields{};  ///< after byte 112, of headers longer than that
  std::vector<Extension> extensions{};
  std::string backingName{};

  std::uint64_t clusterBytes() const { return std::uint64_t{1} << clusterBits; }
  bool extendedL2() const { return (incompatible & incompatible::extendedL2) != 0; }
  bool hasDataFile() const { return (incompatible & incompatible::dataFile) != 0; }
  bool rawDataFile() const { return (autoclear & autoclear::rawData) != 0; }
  std::uint64_t l2EntryBytes() const { return extendedL2() ? 16 : 8; }
  std::uint64_t l2Entries() const { return clusterBytes() / l2EntryBytes(); }
  std::uint64_t bytesPerL2() const { return l2Entries() << clusterBits; }
  std::string extensionText(std::uint32_t type) const;
  void setExtension(std::uint32_t type, std::string data);  ///< empty: removed
};

/// Errors: corrupt, unsupported (encryption, unknown incompatible features, each by name).
Result<Header> readHeader(BlockFile& file);
/// All of the header's cluster as far as it is used. Errors: invalidArgument (does not fit), io.
Status writeHeader(BlockFile& file, const Header& header);

/// Of bitmap directory entries and bitmap tables.
namespace bitmap {
inline constexpr std::uint32_t inUse = 1, automatic = 2, extraDataCompatible = 4, known = 7;
inline constexpr std::uint8_t dirtyTracking = 1;
inline constexpr std::uint64_t allOnes = 1;  // a table entry without a cluster
}  // namespace bitmap

/// One entry of the directory of persistent bitmaps (qcow2_bitmap_directory.cpp).
struct Bitmap {
  std::string name;
  std::uint64_t tableOffset;
  std::uint32_t tableEntries;
  std::uint32_t flags;
  std::uint32_t granularityBits;
  std::uint8_t type;
  std::string extra;
  std::uint64_t flagsOffset;  ///< in the file

  /// How many clusters its bits take.
  std::uint64_t pages(std::uint64_t diskBytes, std::uint64_t cluster) const;
  /// Why it cannot be read or changed; empty: it can.
  std::string unsupported() const;
};
struct BitmapDirectory {
  std::vector<Bitmap> bitmaps{};
  std::uint64_t offset = 0, bytes = 0;  ///< in the file
};
/// Errors: corrupt, io.
Result<BitmapDirectory> readBitmapDirectory(BlockFile& file, const Header& header);
std::vector<std::byte> packBitmaps(const std::vector<Bitmap>& bitmaps);
std::string packBitmapsExtension(std::uint32_t count, std::uint64_t bytes, std::uint64_t offset);
/// A bitmap's table, in native byte order: each entry leads to a cluster of the file, or has none. Errors: corrupt, io.
Result<std::vector<std::uint64_t>> readBitmapTable(BlockFile& file, const Header& header, const Bitmap& bitmap);

}  // namespace lodge::image::qcow2
