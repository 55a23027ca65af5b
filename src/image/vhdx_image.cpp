// SPDX-License-Identifier: Apache-2.0
#include "image/vhdx_image.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "base/text.h"

namespace lodge::image::vhdx {

namespace {

constexpr std::uint64_t kPage = 4_KiB;

bool bitAt(std::byte byte, std::uint64_t sector) {
  return (static_cast<unsigned>(byte) >> (sector % 8) & 1) != 0;
}

}  // namespace

VhdxImage::VhdxImage(const OpenContext& context, std::shared_ptr<BlockFile> file, Contents contents,
                     std::unique_ptr<Image> parent, std::string parentName, bool hadLog)
    : MappedImage(std::move(file), context.options.file.readOnly),
      contents_(std::move(contents)),
      parentName_(std::move(parentName)),
      hadLog_(hadLog) {
  setBacking(std::move(parent));
  setShapeOf();
  end_ = alignUp(end_, 1_MiB);
}

VhdxImage::~VhdxImage() {
  if (int error = settle(); error != 0) {
    log(LogLevel::error, "image {}: close: {}", inQuotes(file_->name()), std::strerror(error));
  }
}

int VhdxImage::settle() {
  if (int error = flush(); error != 0 || !log_) return error;
  // All is in its place: no log to replay.
  auto held = lock();
  contents_.header.log = {};
  if (int error = writeHeader(*file_, contents_.header, contents_.current); error != 0) return error;
  log_.reset();
  beginAgain();
  return file_->flush();
}

void VhdxImage::setShapeOf() {
  setShape({.virtualBytes = contents_.diskBytes,
            .blockBytes = contents_.blockBytes,
            .fillBytes = contents_.hasParent() ? contents_.sectorBytes : contents_.blockBytes});
}

int VhdxImage::page(std::uint64_t offset, std::byte*& at) {
  std::uint64_t start = alignDown(offset, kPage);
  if (int error = tables_->get(start, kPage, at); error != 0) return error;
  at += offset - start;
  return 0;
}

int VhdxImage::entry(std::uint64_t index, std::uint64_t& value) {
  std::byte* at = nullptr;
  if (int error = page(contents_.batOffset + index * 8, at); error != 0) return error;
  value = loadLe<std::uint64_t>(at);
  return 0;
}

int VhdxImage::setEntry(std::uint64_t index, std::uint64_t value) {
  std::byte* at = nullptr;
  std::uint64_t offset = contents_.batOffset + index * 8;
  if (int error = page(offset, at); error != 0) return error;
  storeLe(at, value);
  tables_->setDirty(alignDown(offset, kPage));
  return 0;
}

int VhdxImage::map(std::uint64_t offset, std::uint64_t length, Mapping& mapping) {
  if (contents_.hasParent()) {
    std::uint64_t value = 0;
    if (int error = entry(indexOf(offset / shape_.blockBytes), value); error != 0) return error;
    if (stateOf(value) == kPartiallyPresent) return mapPartial(offset, value, length, mapping);
  }
  return mapBlocks(offset, length, mapping, [&](std::uint64_t block, Mapping& one) {
    std::uint64_t value = 0;
    if (int error = entry(indexOf(block), value); error != 0) return error;
    switch (static_cast<unsigned>(stateOf(value))) {
      case kNotPresent:
        one.kind = Mapping::Kind::unallocated;
        return 0;
      case kUndefined:
      case kZero:
      case kUnmapped:
        one.kind = Mapping::Kind::zero;
        return 0;
      case kPartiallyPresent:
        if (!contents_.hasParent()) return corrupt(fmt::format("block {} is partial without a parent", block));
        one.kind = Mapping::Kind::compressed;  // ends the run of another kind; never seen first
        return 0;
      case kFullyPresent:
        break;
      default:
        return corrupt(fmt::format("block {} has state {}", block, static_cast<unsigned>(stateOf(value))));
    }
    one.kind = Mapping::Kind::data;
    one.host = offsetOf(value);
    if (one.host < 1_MiB || one.host >= end_) return corrupt(fmt::format("block {} lies outside the file", block));
    return 0;
  });
}

int VhdxImage::bitmapByte(std::uint64_t sector, std::uint64_t bitmap, std::byte*& at) {
  return page(bitmap + sector % kSectorsPerBitmap / 8, at);
}

int VhdxImage::mapPartial(std::uint64_t offset, std::uint64_t value, std::uint64_t length, Mapping& mapping) {
  std::uint64_t block = offset / shape_.blockBytes, within = offset % shape_.blockBytes;
  length = std::min({length, shape_.blockBytes - within, virtualBytes_ - offset});
  if (offsetOf(value) < 1_MiB || offsetOf(value) >= end_) {
    return corrupt(fmt::format("block {} lies outside the file", block));
  }
  std::uint64_t bitmapEntry = 0;
  if (int error = entry(bitmapIndexOf(block), bitmapEntry); error != 0) return error;
  mapping = {Mapping::Kind::unallocated, length, 0};
  std::uint64_t bitmap = offsetOf(bitmapEntry);
  if (stateOf(bitmapEntry) != kBitmapPresent || bitmap < 1_MiB || bitmap >= end_) {
    return stateOf(bitmapEntry) == kBitmapPresent ? corrupt(fmt::format("the bitmap of block {} is elsewhere", block))
                                                  : 0;
  }
  std::uint64_t bytes = contents_.sectorBytes, first = offset / bytes, end = (offset + length - 1) / bytes + 1;
  std::byte* at = nullptr;
  if (int error = bitmapByte(first, bitmap, at); error != 0) return error;
  bool set = bitAt(*at, first);
  std::uint64_t sector = first + 1;
  for (; sector < end; ++sector) {
    if (sector % 8 == 0) {
      if (int error = bitmapByte(sector, bitmap, at); error != 0) return error;
      if (end - sector >= 8 && *at == (set ? std::byte{0xff} : std::byte{0})) {
        sector += 7;
        continue;
      }
    }
    if (bitAt(*at, sector) != set) break;
  }
  mapping.length = std::min(length, std::min(sector, end) * bytes - offset);
  if (set) {
    mapping.kind = Mapping::Kind::data;
    mapping.host = offsetOf(value) + within;
  }
  return 0;
}

int VhdxImage::reserve(std::uint64_t offset, std::uint64_t& length, std::uint64_t& host) {
  std::uint64_t block = offset / shape_.blockBytes, within = offset % shape_.blockBytes;
  if (!contents_.hasParent()) {
    std::uint64_t n = (length + shape_.blockBytes - 1) / shape_.blockBytes;
    host = takeSpace(n * shape_.blockBytes, 1_MiB);
    return 0;
  }
  length = std::min(length, shape_.blockBytes - within);
  std::uint64_t value = 0, bitmapEntry = 0;
  if (int error = entry(indexOf(block), value); error != 0) return error;
  bool whole = within == 0 && (length == shape_.blockBytes || offset + length == virtualBytes_);
  if (stateOf(value) == kPartiallyPresent) {
    host = offsetOf(value) + within;
    return 0;
  }
  // A block that reads as zero now is zero where it is not written: its space is new. Not so one of the parent.
  bool partial = stateOf(value) == kNotPresent && !whole;
  if (partial) {
    if (int error = entry(bitmapIndexOf(block), bitmapEntry); error != 0) return error;
    if (stateOf(bitmapEntry) != kBitmapPresent) {
      std::uint64_t bitmap = takeSpace(1_MiB, 1_MiB);
      if (int error = setEntry(bitmapIndexOf(block), makeEntry(kBitmapPresent, bitmap)); error != 0) return error;
    }
  }
  host = takeSpace(shape_.blockBytes, 1_MiB) + within;
  return 0;
}

int VhdxImage::publish(std::uint64_t offset, std::uint64_t length, std::uint64_t host) {
  std::uint64_t first = offset / shape_.blockBytes, end = (offset + length - 1) / shape_.blockBytes + 1;
  std::uint64_t start = host - offset % shape_.blockBytes;
  if (!contents_.hasParent()) {
    for (std::uint64_t block = first; block < end; ++block, start += shape_.blockBytes) {
      if (int error = setEntry(indexOf(block), makeEntry(kFullyPresent, start)); error != 0) return error;
    }
    return 0;
  }
  std::uint64_t value = 0;
  if (int error = entry(indexOf(first), value); error != 0) return error;
  bool whole = offset % shape_.blockBytes == 0 && (length == shape_.blockBytes || offset + length == virtualBytes_);
  bool wasZero = stateOf(value) == kZero || stateOf(value) == kUnmapped || stateOf(value) == kUndefined;
  if (whole || wasZero) return setEntry(indexOf(first), makeEntry(kFullyPresent, start));
  if (int error = setBitmap(offset, length); error != 0) return error;
  if (stateOf(value) == kPartiallyPresent) return 0;
  return setEntry(indexOf(first), makeEntry(kPartiallyPresent, start));
}

int VhdxImage::setBitmap(std::uint64_t offset, std::uint64_t length) {
  std::uint64_t bitmapEntry = 0;
  if (int error = entry(bitmapIndexOf(offset / shape_.blockBytes), bitmapEntry); error != 0) return error;
  std::uint64_t bytes = contents_.sectorBytes, end = (offset + length - 1) / bytes + 1;
  if (stateOf(bitmapEntry) != kBitmapPresent) {
    // A partial block of a damaged image: its bitmap is made now, all of the parent's.
    bitmapEntry = makeEntry(kBitmapPresent, takeSpace(1_MiB, 1_MiB));
    if (int error = setEntry(bitmapIndexOf(offset / shape_.blockBytes), bitmapEntry); error != 0) return error;
  }
  for (std::uint64_t sector = offset / bytes; sector < end; ++sector) {
    std::byte* at = nullptr;
    std::uint64_t where = offsetOf(bitmapEntry) + sector % kSectorsPerBitmap / 8;
    if (int error = page(where, at); error != 0) return error;
    *at |= static_cast<std::byte>(1U << (sector % 8));
    tables_->setDirty(alignDown(where, kPage));
  }
  return 0;
}

int VhdxImage::publishZero(std::uint64_t offset, std::uint64_t& length) {
  std::uint64_t block = shape_.blockBytes;
  if (offset % block != 0) return ENOTSUP;
  bool toEnd = offset + length == virtualBytes_;
  std::uint64_t n = toEnd ? (length + block - 1) / block : length / block;
  if (n == 0) return ENOTSUP;
  for (std::uint64_t i = 0; i < n; ++i) {
    std::uint64_t value = 0;
    if (int error = entry(indexOf(offset / block + i), value); error != 0) return error;
    if (stateOf(value) == kPartiallyPresent) return ENOTSUP;
    if (int error = setEntry(indexOf(offset / block + i), kZero); error != 0) return error;
  }
  length = std::min(n * block, length);
  return 0;
}

int VhdxImage::beginWriting() {
  // A new log, and new ids: whoever has this image as a parent can tell that it is not what it was.
  contents_.header.log = randomUuid(true);
  contents_.header.fileWrite = randomUuid(true);
  contents_.header.dataWrite = randomUuid(true);
  if (int error = writeHeader(*file_, contents_.header, contents_.current); error != 0) return error;
  log_.emplace(contents_.header);
  return 0;
}

int VhdxImage::writeTables(const std::vector<TableCache::Copy>& copies) {
  return log_ ? log_->write(*file_, copies) : EINVAL;
}

int VhdxImage::unitOf(std::uint64_t block, std::uint32_t& unit) {
  std::uint64_t value = 0;
  if (int error = entry(indexOf(block), value); error != 0) return error;
  bool here = stateOf(value) == kFullyPresent || stateOf(value) == kPartiallyPresent;
  unit = here ? static_cast<std::uint32_t>(std::min<std::uint64_t>(offsetOf(value) / 1_MiB, kNone - 1)) : kNone;
  return 0;
}

int VhdxImage::setUnit(std::uint64_t block, std::uint32_t unit) {
  std::uint64_t value = 0;
  if (int error = entry(indexOf(block), value); error != 0) return error;
  return setEntry(indexOf(block), unit == kNone ? 0 : makeEntry(stateOf(value), unit * 1_MiB));
}

}  // namespace lodge::image::vhdx
