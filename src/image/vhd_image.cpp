// SPDX-License-Identifier: Apache-2.0
#include "image/vhd_image.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "base/units.h"

namespace lodge::image::vhd {

namespace {

constexpr std::uint64_t kPiece = 4096;  ///< of the table, in memory
constexpr std::uint64_t kDataAlignment = 4096;

/// How many sectors from `first` on have the same bit; bitmaps have the first sector in the top bit.
std::uint64_t sameBits(const std::byte* bitmap, std::uint64_t first, std::uint64_t end, bool& set) {
  auto bit = [&](std::uint64_t i) { return (static_cast<unsigned>(bitmap[i / 8]) >> (7 - i % 8) & 1) != 0; };
  set = bit(first);
  std::uint64_t i = first + 1;
  std::uint64_t all = set ? ~std::uint64_t{0} : 0;
  while (i < end) {
    if (i % 64 == 0 && end - i >= 64 && loadLe<std::uint64_t>(bitmap + i / 8) == all) {
      i += 64;
    } else if (bit(i) == set) {
      ++i;
    } else {
      break;
    }
  }
  return i - first;
}

void setBits(std::byte* bitmap, std::uint64_t first, std::uint64_t end) {
  for (std::uint64_t i = first; i < end; ++i) {
    if (i % 8 == 0 && end - i >= 8) {
      bitmap[i / 8] = std::byte{0xff};
      i += 7;
    } else {
      bitmap[i / 8] |= static_cast<std::byte>(0x80U >> (i % 8));
    }
  }
}

}  // namespace

VhdImage::VhdImage(const OpenContext& context, const Footer& footer, const Header& header,
                   std::unique_ptr<Image> parent, std::string parentName)
    : MappedImage(context.file, context.options.file.readOnly),
      footer_(footer),
      header_(header),
      parentName_(std::move(parentName)) {
  setBacking(std::move(parent));
  std::uint64_t bytes = footer.currentBytes;
  // Virtual PC and older QEMU round to a geometry, and what lies behind it is not part of the disk.
  std::uint64_t chs = std::uint64_t{footer.cylinders} * footer.heads * footer.sectorsPerTrack;
  bool rounded =
      std::memcmp(footer.creator.data(), "vpc ", 4) == 0 || std::memcmp(footer.creator.data(), "qemu", 4) == 0;
  if (rounded && chs != 0 && chs != kMaxChsSectors && chs * kSector < bytes) bytes = chs * kSector;
  setShapeOf(bytes);
  if (fixed()) return;
  Footer last{};
  std::uint64_t file = file_->size();
  bool whole = file >= sizeof last && file_->read(file - sizeof last, &last, sizeof last) == 0 && isGood(last);
  end_ = whole ? file - sizeof last : file;
}

void VhdImage::setShapeOf(std::uint64_t bytes) {
  std::uint64_t block = fixed() ? 2_MiB : std::uint64_t{header_.blockBytes};
  bitmapBytes_ = alignUp(block / kSector / 8, kSector);
  setShape({.virtualBytes = bytes, .blockBytes = block, .fillBytes = fixed() ? block : kSector});
}

int VhdImage::entry(std::uint64_t block, std::byte*& at, std::uint64_t& piece) {
  std::uint64_t tableBytes = header_.entries * std::uint64_t{4}, start = block * 4 / kPiece * kPiece;
  piece = header_.tableOffset + start;
  auto length = static_cast<std::uint32_t>(std::min(kPiece, tableBytes - start));
  if (int error = tables_->get(piece, length, at); error != 0) return error;
  at += block * 4 - start;
  return 0;
}

int VhdImage::map(std::uint64_t offset, std::uint64_t length, Mapping& mapping) {
  length = std::min(length, virtualBytes_ - offset);
  if (fixed()) {
    mapping = {Mapping::Kind::data, length, offset};
    return 0;
  }
  std::uint64_t block = offset / shape_.blockBytes, within = offset % shape_.blockBytes;
  std::uint32_t unit = 0;
  if (int error = unitOf(block, unit); error != 0) return error;
  mapping.length = std::min(length, shape_.blockBytes - within);
  if (unit == kUnused) {
    mapping.kind = Mapping::Kind::unallocated;
    for (std::uint64_t n = 1; mapping.length < length && n < (1 << 18); ++n) {
      if (int error = unitOf(block + n, unit); error != 0) return error;
      if (unit != kUnused) break;
      mapping.length = std::min(length, mapping.length + shape_.blockBytes);
    }
    return 0;
  }
  std::uint64_t start = unit * kSector;
  if (start + bitmapBytes_ > end_) return corrupt(fmt::format("block {} lies behind the file's end", block));
  std::byte* bitmap = nullptr;
  if (int error = tables_->get(start, static_cast<std::uint32_t>(bitmapBytes_), bitmap); error != 0) return error;
  bool set = false;
  std::uint64_t first = within / kSector, end = (within + mapping.length - 1) / kSector + 1;
  std::uint64_t run = sameBits(bitmap, first, end, set) * kSector - within % kSector;
  mapping.length = std::min(mapping.length, run);
  mapping.kind = set ? Mapping::Kind::data : Mapping::Kind::unallocated;
  mapping.host = start + bitmapBytes_ + within;
  return 0;
}

int VhdImage::reserve(std::uint64_t offset, std::uint64_t& length, std::uint64_t& host) {
  std::uint64_t block = offset / shape_.blockBytes, within = offset % shape_.blockBytes;
  length = std::min(length, shape_.blockBytes - within);
  std::uint32_t unit = 0;
  if (int error = unitOf(block, unit); error != 0) return error;
  std::uint64_t start = unit * kSector;
  if (unit == kUnused) {
    // The data, not the bitmap before them, lie at page boundaries. The old footer ends up under the bitmap or before.
    start = alignUp(end_ + bitmapBytes_, kDataAlignment) - bitmapBytes_;
    if ((start + bitmapBytes_ + shape_.blockBytes) / kSector >= kUnused) return EFBIG;
    // The bitmap must be there before the table leads to it: what was in its place may be the old footer.
    std::vector<std::byte> bitmap(bitmapBytes_, std::byte{hasBacking() ? std::uint8_t{0} : std::uint8_t{0xff}});
    if (int error = file_->write(start, bitmap.data(), bitmap.size()); error != 0) return error;
    end_ = start + bitmapBytes_ + shape_.blockBytes;
  }
  host = start + bitmapBytes_ + within;
  return 0;
}

int VhdImage::publish(std::uint64_t offset, std::uint64_t length, std::uint64_t host) {
  std::uint64_t block = offset / shape_.blockBytes, within = offset % shape_.blockBytes;
  std::uint64_t start = host - within - bitmapBytes_;
  std::byte* bitmap = nullptr;
  if (int error = tables_->get(start, static_cast<std::uint32_t>(bitmapBytes_), bitmap); error != 0) return error;
  bool set = false;
  std::uint64_t first = within / kSector, end = (within + length - 1) / kSector + 1;
  if (sameBits(bitmap, first, end, set) != end - first || !set) {
    setBits(bitmap, first, end);
    tables_->setDirty(start);
  }
  std::uint32_t unit = 0;
  if (int error = unitOf(block, unit); error != 0) return error;
  return unit == kUnused ? setUnit(block, static_cast<std::uint32_t>(start / kSector)) : 0;
}

int VhdImage::unitOf(std::uint64_t block, std::uint32_t& unit) {
  std::byte* at = nullptr;
  std::uint64_t piece = 0;
  if (int error = entry(block, at, piece); error != 0) return error;
  unit = loadBe<std::uint32_t>(at);
  return 0;
}

int VhdImage::setUnit(std::uint64_t block, std::uint32_t unit) {
  std::byte* at = nullptr;
  std::uint64_t piece = 0;
  if (int error = entry(block, at, piece); error != 0) return error;
  Be32 value = unit;
  std::memcpy(at, &value, sizeof value);
  tables_->setDirty(piece);
  return 0;
}

int VhdImage::beginWriting() {
  if (fixed()) return 0;
  // The footer's copy in front is what counts while the file grows: see that it is good.
  Footer front{};
  if (int error = file_->read(0, &front, sizeof front); error != 0) return error;
  if (isGood(front)) return 0;
  int error = file_->write(0, &footer_, sizeof footer_);
  return error == 0 ? file_->flush() : error;
}

void VhdImage::addState(std::vector<TableCache::Copy>& copies) {
  auto bytes = bytesOf(footer_);
  copies.push_back({end_, {bytes.begin(), bytes.end()}});
}

}  // namespace lodge::image::vhd
