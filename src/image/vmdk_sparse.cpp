// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <libdeflate.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "base/units.h"
#include "image/io_vector.h"
#include "image/vmdk_extent.h"

namespace lodge::image::vmdk {

namespace {

using Kind = Mapping::Kind;

struct FreeDecompressor {
  void operator()(libdeflate_decompressor* d) const { libdeflate_free_decompressor(d); }
};

/// zlib data of at most `to.size()` bytes; what is missing becomes zero.
bool inflate(std::span<const std::byte> from, std::span<std::byte> to) {
  thread_local std::unique_ptr<libdeflate_decompressor, FreeDecompressor> decompressor(libdeflate_alloc_decompressor());
  std::size_t made = 0;
  auto result = libdeflate_zlib_decompress(decompressor.get(), from.data(), from.size(), to.data(), to.size(), &made);
  if (result != LIBDEFLATE_SUCCESS && result != LIBDEFLATE_SHORT_OUTPUT) return false;
  std::fill(to.begin() + static_cast<std::ptrdiff_t>(made), to.end(), std::byte{0});
  return true;
}

}  // namespace

SparseExtent::SparseExtent(std::shared_ptr<BlockFile> file, bool readOnly, const SparseShape& shape)
    : MappedImage(std::move(file), readOnly || shape.kind != SparseShape::Kind::hosted), sparse_(shape) {
  setShape({.virtualBytes = shape.capacity, .blockBytes = shape.grain, .fillBytes = shape.grain});
}

Result<std::unique_ptr<SparseExtent>> SparseExtent::open(std::shared_ptr<BlockFile> file, bool readOnly) {
  auto shape = readSparseShape(*file);
  if (!shape) return std::move(shape).error();
  std::unique_ptr<SparseExtent> extent(new SparseExtent(std::move(file), readOnly, *shape));
  if (Status loaded = extent->loadDirectory(); !loaded) return std::move(loaded).error();
  return extent;
}

Status SparseExtent::loadDirectory() {
  std::uint64_t entries = sparse_.directoryEntries(), width = sparse_.entryBytes();
  auto load = [&](std::uint64_t at, std::vector<std::uint64_t>& to) -> Status {
    if (at > file_->size() || entries * width > file_->size() - at) {
      return Error(ErrorKind::corrupt, "its grain directory lies outside the file");
    }
    std::vector<std::byte> bytes(entries * width);
    if (int error = file_->read(at, bytes.data(), bytes.size()); error != 0) {
      return Error::fromErrno(error, "read its grain directory");
    }
    to.resize(entries);
    for (std::uint64_t i = 0; i < entries; ++i) {
      if (width == 4) {
        to[i] = loadLe<std::uint32_t>(bytes.data() + i * 4) * kSector;
        continue;
      }
      auto value = loadLe<std::uint64_t>(bytes.data() + i * 8);
      if (value != 0 && value >> 32 != 0x10000000) return Error(ErrorKind::corrupt, "a grain directory entry");
      to[i] = value == 0 ? 0 : sparse_.tables + (value & 0xffffffff) * sparse_.tableBytes();
    }
    return {};
  };
  if (Status loaded = load(sparse_.directory, directory_); !loaded) return loaded;
  for (std::uint64_t table : directory_) {
    if (table != 0 && (table >= file_->size() || table < kSector)) {
      return Error(ErrorKind::corrupt, fmt::format("a grain table at {:#x}, outside the file", table));
    }
  }
  if (readOnly() || sparse_.redundantDirectory == 0) return {};
  if (Status loaded = load(sparse_.redundantDirectory, redundant_); !loaded) redundant_.clear();
  for (std::uint64_t& table : redundant_) {
    if (table >= file_->size() || table < kSector) table = 0;
  }
  return {};
}

bool SparseExtent::empty() const {
  return std::all_of(directory_.begin(), directory_.end(), [](std::uint64_t table) { return table == 0; });
}

int SparseExtent::entry(std::uint64_t grain, std::uint64_t& value) {
  value = 0;
  std::uint64_t table = directory_[grain / sparse_.entriesPerTable];
  if (table == 0) return 0;
  std::byte* bytes = nullptr;
  auto length = static_cast<std::uint32_t>(sparse_.tableBytes());
  if (int error = tables_->get(table, length, bytes); error != 0) return error;
  bytes += grain % sparse_.entriesPerTable * sparse_.entryBytes();
  value = sparse_.entryBytes() == 4 ? loadLe<std::uint32_t>(bytes) : loadLe<std::uint64_t>(bytes);
  return 0;
}

int SparseExtent::decode(std::uint64_t grain, Mapping& one) {
  std::uint64_t value = 0;
  if (int error = entry(grain, value); error != 0) return error;
  if (value == 0) return 0;
  if (sparse_.kind == SparseShape::Kind::seSparse) {
    std::uint64_t type = value >> 60;
    if (type == 1 || type == 2) {
      one.kind = Kind::zero;
      return 0;
    }
    if (type != 3) return corrupt(fmt::format("the table entry of grain {}", grain));
    std::uint64_t index = (value & 0x0fff000000000000) >> 48 | (value & 0x0000ffffffffffff) << 12;
    one.host = sparse_.grains + index * sparse_.grain;
  } else {
    if (value == 1 && sparse_.zeroedGrains) {
      one.kind = Kind::zero;
      return 0;
    }
    one.host = value * kSector;
  }
  one.kind = sparse_.compressed ? Kind::compressed : Kind::data;
  if (one.host >= end_) return corrupt(fmt::format("grain {} lies outside the file", grain));
  return 0;
}

int SparseExtent::map(std::uint64_t offset, std::uint64_t length, Mapping& mapping) {
  // Without a table for many grains at once, there is no need to look at each.
  std::uint64_t span = sparse_.grain * sparse_.entriesPerTable;
  std::uint64_t index = offset / span;
  if (directory_[index] == 0) {
    while (++index < directory_.size() && directory_[index] == 0 && index * span - offset < length) {
    }
    std::uint64_t end = std::min(virtualBytes_, index * span);
    mapping = {Kind::unallocated, std::min(length, end - offset), 0};
    return 0;
  }
  if (!sparse_.compressed) {
    return mapBlocks(offset, length, mapping, [&](std::uint64_t grain, Mapping& one) { return decode(grain, one); });
  }
  return mapBlocks(offset, length, mapping, [&](std::uint64_t grain, Mapping& one) {
    int error = decode(grain, one);
    // A compressed grain's place is where its marker is, whichever byte of it is asked for.
    if (one.kind == Kind::compressed && grain == offset / sparse_.grain) one.host -= offset % sparse_.grain;
    return error;
  });
}

int SparseExtent::readCompressed(const Mapping& mapping, std::uint64_t offset, std::span<const iovec> to) {
  thread_local std::vector<std::byte> packed, plain;
  std::uint64_t grain = sparse_.grain, most = grain + grain / 8 + 1024, have = grain + kSector;
  packed.resize(have);
  iovec v{packed.data(), have};
  if (int error = file_->readv(mapping.host, {&v, 1}); error != 0) return error;
  std::uint64_t bytes = 0, start = 0;
  if ((sparse_.header.flags & kMarkers) != 0) {
    Marker marker{};
    std::memcpy(static_cast<void*>(&marker), packed.data(), kGrainMarkerBytes);
    if (marker.value * kSector != offset / grain * grain) return corrupt("a grain's marker says another place");
    bytes = marker.bytes;
    start = kGrainMarkerBytes;
  } else {
    bytes = grain;  // deflate data know their own end
  }
  if (bytes == 0 || bytes > most) return corrupt(fmt::format("a compressed grain of {} bytes", bytes));
  if (start + bytes > have) {
    packed.resize(start + bytes);
    v = {packed.data() + have, start + bytes - have};
    if (int error = file_->readv(mapping.host + have, {&v, 1}); error != 0) return error;
  }
  bool direct = to.size() == 1 && to[0].iov_len == grain;
  std::span<std::byte> target(static_cast<std::byte*>(direct ? to[0].iov_base : nullptr), direct ? grain : 0);
  if (!direct) {
    plain.resize(grain);
    target = plain;
  }
  if (!inflate({packed.data() + start, bytes}, target)) return corrupt("a grain's compressed data are damaged");
  if (!direct) scatter(plain.data() + offset % grain, to);
  return 0;
}

int SparseExtent::readUnallocated(std::uint64_t offset, std::span<const iovec> to) {
  std::uint64_t wanted = bytesIn(to), at = parent_.start + offset;
  std::uint64_t there = parent_.image && at < parent_.image->size() ? std::min(wanted, parent_.image->size() - at) : 0;
  IoCursor cursor(to);
  if (there != 0) {
    if (int error = parent_.image->read(at, cursor.take(there)); error != 0) return error;
  }
  fillZero(cursor.take(wanted - there));
  return 0;
}

int SparseExtent::reserve(std::uint64_t, std::uint64_t& length, std::uint64_t& host) {
  if (sparse_.compressed) return ENOTSUP;
  std::uint64_t n = (length + sparse_.grain - 1) / sparse_.grain;
  host = takeSpace(n * sparse_.grain, std::min<std::uint64_t>(sparse_.grain, 64_KiB));
  return end_ / kSector > 0xffffffff ? EFBIG : 0;
}

int SparseExtent::publish(std::uint64_t offset, std::uint64_t length, std::uint64_t host) {
  std::uint64_t first = offset / sparse_.grain, end = (offset + length - 1) / sparse_.grain + 1;
  for (std::uint64_t grain = first; grain < end; ++grain, host += sparse_.grain) {
    if (int error = setEntry(grain, static_cast<std::uint32_t>(host / kSector)); error != 0) return error;
  }
  return 0;
}

int SparseExtent::publishZero(std::uint64_t offset, std::uint64_t& length) {
  if (!sparse_.zeroedGrains || sparse_.compressed) return ENOTSUP;
  std::uint64_t first = offset / sparse_.grain, end = (offset + length - 1) / sparse_.grain + 1;
  for (std::uint64_t grain = first; grain < end; ++grain) {
    if (int error = setEntry(grain, 1); error != 0) return error;
  }
  return 0;
}

int SparseExtent::setEntry(std::uint64_t grain, std::uint32_t value) {
  if (int error = setIn(directory_, sparse_.directory, grain, value); error != 0) return error;
  return redundant_.empty() ? 0 : setIn(redundant_, sparse_.redundantDirectory, grain, value);
}

int SparseExtent::setIn(std::vector<std::uint64_t>& directory, std::uint64_t at, std::uint64_t grain,
                        std::uint32_t value) {
  std::uint64_t index = grain / sparse_.entriesPerTable;
  auto length = static_cast<std::uint32_t>(sparse_.tableBytes());
  std::byte* bytes = nullptr;
  if (directory[index] == 0) {
    std::uint64_t table = takeSpace(alignUp(length, kSector), kSector);
    if (table / kSector > 0xffffffff) return EFBIG;
    // The directory is kept in pieces of a sector; new space is zero, so the order of the two does not matter.
    std::uint64_t piece = at + index * 4 / kSector * kSector;
    if (int error = tables_->get(piece, kSector, bytes); error != 0) return error;
    storeLe(bytes + index * 4 % kSector, static_cast<std::uint32_t>(table / kSector));
    tables_->setDirty(piece);
    directory[index] = table;
    tables_->fresh(table, length);
  }
  if (int error = tables_->get(directory[index], length, bytes); error != 0) return error;
  storeLe(bytes + grain % sparse_.entriesPerTable * 4, value);
  tables_->setDirty(directory[index]);
  return 0;
}

int SparseExtent::unitOf(std::uint64_t block, std::uint32_t& unit) {
  std::uint64_t value = 0;
  if (int error = entry(block, value); error != 0) return error;
  bool none = value == 0 || (value == 1 && sparse_.zeroedGrains);
  unit = none ? kNone : static_cast<std::uint32_t>(value);
  return 0;
}

int SparseExtent::setUnit(std::uint64_t block, std::uint32_t unit) {
  return setEntry(block, unit == kNone ? 0 : unit);
}

}  // namespace lodge::image::vmdk
