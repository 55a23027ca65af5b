// SPDX-License-Identifier: Apache-2.0
#include "image/vdi_image.h"

#include <fmt/format.h>

#include <cerrno>

#include "base/text.h"
#include "base/units.h"

namespace lodge::image::vdi {

namespace {

constexpr std::uint64_t kPiece = 4096;  ///< of the table, in memory
constexpr std::uint64_t kMostBlocks = 0x3ff00000;

}  // namespace

VdiImage::VdiImage(const OpenContext& context, const Header& header, std::unique_ptr<Image> parent,
                   std::string parentName)
    : MappedImage(context.file, context.options.file.readOnly),
      header_(header),
      child_(header.type == kUndo || header.type == kDifferencing),
      parentName_(std::move(parentName)) {
  setBacking(std::move(parent));
  setShapeOf(header.diskBytes);
}

void VdiImage::setShapeOf(std::uint64_t bytes) {
  std::uint64_t block = header_.blockBytes;
  setShape({.virtualBytes = bytes, .blockBytes = block, .fillBytes = block});
}

int VdiImage::entry(std::uint64_t block, std::byte*& at, std::uint64_t& piece) {
  std::uint64_t tableBytes = header_.blocks * std::uint64_t{4}, start = block * 4 / kPiece * kPiece;
  piece = header_.tableOffset + start;
  auto length = static_cast<std::uint32_t>(std::min(kPiece, tableBytes - start));
  if (int error = tables_->get(piece, length, at); error != 0) return error;
  at += block * 4 - start;
  return 0;
}

std::uint64_t VdiImage::endUnit() const {
  std::uint64_t bytes = file_->size();
  return bytes <= header_.dataOffset ? 0 : (bytes - header_.dataOffset + shape_.blockBytes - 1) / shape_.blockBytes;
}

int VdiImage::map(std::uint64_t offset, std::uint64_t length, Mapping& mapping) {
  return mapBlocks(offset, length, mapping, [&](std::uint64_t block, Mapping& one) {
    std::byte* at = nullptr;
    std::uint64_t piece = 0;
    if (int error = entry(block, at, piece); error != 0) return error;
    auto value = loadLe<std::uint32_t>(at);
    if (value >= kZero) {
      one.kind = value == kZero ? Mapping::Kind::zero : Mapping::Kind::unallocated;
      return 0;
    }
    one.kind = Mapping::Kind::data;
    one.host = header_.dataOffset + value * shape_.blockBytes;
    if (one.host >= end_) return corrupt(fmt::format("block {} lies behind the file's end", block));
    return 0;
  });
}

int VdiImage::reserve(std::uint64_t, std::uint64_t& length, std::uint64_t& host) {
  std::uint64_t block = shape_.blockBytes;
  std::uint64_t n = (length + block - 1) / block;
  std::uint64_t number = end_ <= header_.dataOffset ? 0 : (end_ - header_.dataOffset + block - 1) / block;
  if (number + n >= kZero) return EFBIG;
  host = header_.dataOffset + number * block;
  end_ = host + n * block;
  return 0;
}

int VdiImage::publish(std::uint64_t offset, std::uint64_t length, std::uint64_t host) {
  std::uint64_t first = offset / shape_.blockBytes, end = (offset + length - 1) / shape_.blockBytes + 1;
  auto number = static_cast<std::uint32_t>((host - header_.dataOffset) / shape_.blockBytes);
  for (std::uint64_t block = first; block < end; ++block, ++number) {
    if (int error = setUnit(block, number); error != 0) return error;
  }
  return 0;
}

int VdiImage::unitOf(std::uint64_t block, std::uint32_t& unit) {
  std::byte* at = nullptr;
  std::uint64_t piece = 0;
  if (int error = entry(block, at, piece); error != 0) return error;
  unit = loadLe<std::uint32_t>(at);
  if (unit >= kZero) unit = kNone;
  return 0;
}

int VdiImage::setUnit(std::uint64_t block, std::uint32_t unit) {
  std::byte* at = nullptr;
  std::uint64_t piece = 0;
  if (int error = entry(block, at, piece); error != 0) return error;
  bool had = loadLe<std::uint32_t>(at) < kZero, has = unit != kNone;
  storeLe<std::uint32_t>(at, has ? unit : kFree);
  tables_->setDirty(piece);
  header_.allocatedBlocks = header_.allocatedBlocks + (has ? 1 : 0) - (had ? 1 : 0);
  return 0;
}

void VdiImage::addState(std::vector<TableCache::Copy>& copies) {
  auto bytes = bytesOf(header_);
  copies.push_back({0, {bytes.begin(), bytes.end()}});
}

Result<ImageInfo> VdiImage::info() {
  ImageInfo info;
  info.format = "vdi";
  info.virtualBytes = virtualBytes_;
  info.allocatedBytes = file_->allocatedBytes();
  info.clusterBytes = shape_.blockBytes;
  info.backingName = parentName_;
  if (child_) info.backingFormat = "vdi";
  static constexpr std::string_view kTypes[] = {"", "dynamic", "fixed", "undo", "differencing"};
  info.details = {{"subformat", std::string(kTypes[header_.type])},
                  {"uuid", formatUuid(header_.created, true)},
                  {"allocated blocks", std::uint64_t{header_.allocatedBlocks}}};
  if (child_) info.details.emplace_back("parent uuid", formatUuid(header_.parent, true));
  return info;
}

Result<CheckResult> VdiImage::check(Repair repair) {
  CheckResult result;
  std::uint32_t counted = header_.allocatedBlocks;
  if (int error = checkBlocks(*this, *file_, repair, result, progress()); error != 0) {
    return Error::fromErrno(error, "check " + inQuotes(file_->name()));
  }
  std::uint64_t end = header_.dataOffset + result.imageEnd;
  result.imageEnd = end;
  bool counts = counted != result.allocatedClusters;
  if (counts) result.note(fmt::format("the header counts {} blocks, {} are in use", counted, result.allocatedClusters));
  if (repair == Repair::none) {
    result.leaks += counts ? 1 : 0;
    return result;
  }
  header_.allocatedBlocks = static_cast<std::uint32_t>(result.allocatedClusters);
  int error = file_->flush();
  if (error == 0) error = flush();
  if (error == 0 && counts) error = file_->write(0, &header_, sizeof header_);
  if (error == 0 && end < file_->size()) error = file_->truncate(end);
  if (error == 0) error = file_->flush();
  if (error != 0) return Error::fromErrno(error, "repair " + inQuotes(file_->name()));
  result.leaksFixed += counts ? 1 : 0;
  end_ = file_->size();
  return result;
}

/// Copies the blocks that lie first in the file to its end.
int VdiImage::moveBlocksBelow(std::uint32_t end) {
  std::vector<std::byte> bytes(std::min<std::uint64_t>(shape_.blockBytes, 1_MiB));
  for (std::uint64_t block = 0; block < header_.blocks; ++block) {
    std::uint32_t unit = 0;
    if (int error = unitOf(block, unit); error != 0) return error;
    if (unit >= end) continue;
    std::uint64_t length = shape_.blockBytes, host = 0, from = header_.dataOffset + unit * shape_.blockBytes;
    if (int error = reserve(block * shape_.blockBytes, length, host); error != 0) return error;
    for (std::uint64_t at = 0; at < shape_.blockBytes; at += bytes.size()) {
      if (int error = file_->read(from + at, bytes.data(), bytes.size()); error != 0) return error;
      if (int error = file_->write(host + at, bytes.data(), bytes.size()); error != 0) return error;
    }
    auto number = static_cast<std::uint32_t>((host - header_.dataOffset) / shape_.blockBytes);
    if (int error = setUnit(block, number); error != 0) return error;
  }
  return flush();
}

/// A larger table in the place of the first blocks, which go to the end of the file. Each step is on the disk before
/// the next begins: the old table leads to the moved blocks, then the new one is there, then the header leads to it.
int VdiImage::enlargeTable(std::uint64_t blocks) {
  std::uint64_t block = shape_.blockBytes, shift = (blocks * 4 + block - 1) / block;
  std::uint64_t dataOffset = header_.dataOffset + shift * block;
  if (dataOffset > 0xffffffff) return EFBIG;
  // Nothing new comes to lie where the table goes.
  end_ = std::max(end_, dataOffset);
  if (int error = moveBlocksBelow(static_cast<std::uint32_t>(shift)); error != 0) return error;
  std::uint64_t table = header_.dataOffset;
  std::vector<std::byte> part;
  for (std::uint64_t first = 0; first < blocks; first += part.size() / 4) {
    part.assign(std::min<std::uint64_t>(16384, blocks - first) * 4, std::byte{0xff});
    for (std::uint64_t i = 0; i < part.size() / 4 && first + i < header_.blocks; ++i) {
      std::byte* at = nullptr;
      std::uint64_t piece = 0;
      if (int error = entry(first + i, at, piece); error != 0) return error;
      auto value = loadLe<std::uint32_t>(at);
      storeLe<std::uint32_t>(part.data() + i * 4, value < kZero ? value - static_cast<std::uint32_t>(shift) : value);
    }
    if (int error = file_->write(table + first * 4, part.data(), part.size()); error != 0) return error;
  }
  if (int error = file_->flush(); error != 0) return error;
  header_.tableOffset = static_cast<std::uint32_t>(table);
  header_.dataOffset = static_cast<std::uint32_t>(dataOffset);
  if (int error = file_->write(0, &header_, sizeof header_); error != 0) return error;
  setShapeOf(virtualBytes_);
  return file_->flush();
}

Status VdiImage::resize(std::uint64_t newBytes, Preallocation) {
  std::uint64_t block = shape_.blockBytes, blocks = (newBytes + block - 1) / block, old = header_.blocks;
  auto failed = [&](int error) { return Error::fromErrno(error, "resize " + inQuotes(file_->name())); };
  if (newBytes == 0 || blocks > kMostBlocks) return failed(EFBIG);
  if (header_.type == kFixed && blocks != old) {
    return Error(ErrorKind::unsupported, fmt::format("resize {}: it is of the fixed kind", inQuotes(file_->name())))
        .withHint("convert it");
  }
  // Content beyond the new end is dropped first: growing again must give zeroes.
  if (newBytes < virtualBytes_) {
    for (std::uint64_t b = blocks; b < old; ++b) {
      if (int error = setUnit(b, kNone); error != 0) return failed(error);
    }
    std::uint64_t rest = std::min(virtualBytes_, blocks * block) - newBytes;
    if (int error = rest == 0 ? 0 : writeZeroes(newBytes, rest, true); error != 0) return failed(error);
  }
  if (blocks > (header_.dataOffset - header_.tableOffset) / 4) {
    if (int error = enlargeTable(blocks); error != 0) return failed(error);
  }
  if (int error = flush(); error != 0) return failed(error);
  std::vector<std::byte> free(4096, std::byte{0xff});
  for (std::uint64_t b = old; b < blocks; b += free.size() / 4) {
    std::uint64_t n = std::min<std::uint64_t>(free.size() / 4, blocks - b);
    if (int error = file_->write(header_.tableOffset + b * 4, free.data(), n * 4); error != 0) return failed(error);
  }
  header_.blocks = static_cast<std::uint32_t>(blocks);
  header_.diskBytes = newBytes;
  int error = file_->flush();
  if (error == 0) error = file_->write(0, &header_, sizeof header_);
  if (error == 0) error = file_->flush();
  if (error != 0) return failed(error);
  setShapeOf(newBytes);
  return {};
}

}  // namespace lodge::image::vdi
