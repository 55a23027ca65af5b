// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "base/text.h"
#include "base/units.h"
#include "image/vmdk_extent.h"

namespace lodge::image::vmdk {

namespace {

constexpr std::uint64_t kMaxSectors = std::uint64_t{1} << 40;
constexpr std::uint64_t kMaxGrain = 16_MiB;
constexpr std::uint64_t kMaxDirectory = 1 << 22;  ///< entries: 128 TiB in grains of 64 KiB

Error bad(const std::string& what) {
  return Error(ErrorKind::corrupt, what);
}

Status checkShape(const SparseShape& shape) {
  if (shape.capacity == 0) return bad("a disk of no bytes");
  if (shape.grain < kSector || shape.grain > kMaxGrain || (shape.grain & (shape.grain - 1)) != 0) {
    return bad(fmt::format("grains of {} bytes", shape.grain));
  }
  if (shape.entriesPerTable == 0 || shape.entriesPerTable > 16384) {
    return bad(fmt::format("grain tables of {} entries", shape.entriesPerTable));
  }
  if (shape.directoryEntries() > kMaxDirectory) {
    return Error(ErrorKind::unsupported, fmt::format("a grain directory of {} entries", shape.directoryEntries()));
  }
  return {};
}

Result<SparseShape> hostedShape(BlockFile& file, SparseHeader header) {
  SparseShape shape;
  if (header.lineEnds != std::array<char, 4>{'\n', ' ', '\r', '\n'} && (header.flags & kNewlineTest) != 0) {
    return bad("the file was transferred as text, which has changed its bytes");
  }
  if (header.version == 0 || header.version > 3) {
    return Error(ErrorKind::unsupported, fmt::format("sparse extent version {}", std::uint32_t{header.version}));
  }
  if (header.directory == kDirectoryAtEnd) {
    // Written as a stream: the header that counts is near the end, before the end-of-stream marker.
    std::uint64_t bytes = file.size();
    if (bytes < 3 * kSector) return bad("a stream that ends before its footer");
    if (int error = file.read(bytes - 2 * kSector, &header, sizeof header); error != 0) {
      return Error::fromErrno(error, "read its footer");
    }
    if (header.magic != kMagic || header.directory == kDirectoryAtEnd) {
      return bad("it has no footer: the stream was cut off");
    }
  }
  for (std::uint64_t sectors : {std::uint64_t{header.capacity}, std::uint64_t{header.grainSize},
                                std::uint64_t{header.directory}, std::uint64_t{header.redundantDirectory}}) {
    if (sectors > kMaxSectors) return bad("its header has a number that is too large");
  }
  shape.header = header;
  shape.capacity = header.capacity * kSector;
  shape.grain = header.grainSize * kSector;
  shape.entriesPerTable = header.entriesPerTable;
  shape.directory = header.directory * kSector;
  if ((header.flags & kRedundantTable) != 0) shape.redundantDirectory = header.redundantDirectory * kSector;
  shape.zeroedGrains = (header.flags & kZeroedGrains) != 0;
  shape.compressed = (header.flags & kCompressed) != 0;
  if (shape.compressed && header.compression != 1) {
    return Error(ErrorKind::unsupported, fmt::format("compression {}", std::uint16_t{header.compression}));
  }
  return shape;
}

Result<SparseShape> cowdShape(const CowdHeader& header) {
  SparseShape shape;
  shape.kind = SparseShape::Kind::cowd;
  if (header.version != 1) {
    return Error(ErrorKind::unsupported, fmt::format("COWD version {}", std::uint32_t{header.version}));
  }
  shape.capacity = header.capacity * kSector;
  shape.grain = header.grainSize * kSector;
  shape.entriesPerTable = kCowdEntriesPerTable;
  shape.directory = header.directory * kSector;
  if (shape.grain != 0 && shape.directoryEntries() > header.directoryEntries) {
    return bad("its grain directory is too short");
  }
  return shape;
}

Result<SparseShape> seSparseShape(BlockFile& file, const SeSparseHeader& header) {
  SparseShape shape;
  shape.kind = SparseShape::Kind::seSparse;
  if (header.version != kSeSparseVersion) {
    return Error(ErrorKind::unsupported, fmt::format("seSparse version {:#x}", std::uint64_t{header.version}));
  }
  for (std::uint64_t sectors :
       {std::uint64_t{header.capacity}, std::uint64_t{header.grainSize}, std::uint64_t{header.tableSize},
        std::uint64_t{header.directory}, std::uint64_t{header.tables}, std::uint64_t{header.grains},
        std::uint64_t{header.volatileHeader}}) {
    if (sectors > kMaxSectors) return bad("its header has a number that is too large");
  }
  SeSparseVolatileHeader changing{};
  if (int error = file.read(header.volatileHeader * kSector, &changing, sizeof changing); error != 0) {
    return Error::fromErrno(error, "read its volatile header");
  }
  if (changing.magic != kSeSparseVolatileMagic) return bad("it has no volatile header");
  if (changing.replayJournal != 0) {
    return Error(ErrorKind::unsupported, "a seSparse extent with a journal to replay")
        .withHint("power its machine on and off on ESXi");
  }
  shape.capacity = header.capacity * kSector;
  shape.grain = header.grainSize * kSector;
  shape.entriesPerTable = header.tableSize * kSector / 8;
  shape.directory = header.directory * kSector;
  shape.tables = header.tables * kSector;
  shape.grains = header.grains * kSector;
  return shape;
}

}  // namespace

Result<SparseShape> readSparseShape(BlockFile& file) {
  std::array<std::byte, 512> head{};
  if (int error = file.read(0, head.data(), head.size()); error != 0) return Error::fromErrno(error, "read its header");
  Result<SparseShape> shape = bad("it has no header of a sparse extent");
  if (loadLe<std::uint32_t>(head.data()) == kMagic) {
    SparseHeader header{};
    std::memcpy(&header, head.data(), sizeof header);
    shape = hostedShape(file, header);
  } else if (loadLe<std::uint32_t>(head.data()) == kCowdMagic) {
    CowdHeader header{};
    std::memcpy(&header, head.data(), sizeof header);
    shape = cowdShape(header);
  } else if (loadLe<std::uint64_t>(head.data()) == kSeSparseMagic) {
    SeSparseHeader header{};
    std::memcpy(&header, head.data(), sizeof header);
    shape = seSparseShape(file, header);
  }
  if (!shape) return shape;
  if (Status good = checkShape(*shape); !good) return std::move(good).error();
  return shape;
}

}  // namespace lodge::image::vmdk
