// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cerrno>

#include "base/text.h"
#include "image/vhdx_image.h"

namespace lodge::image::vhdx {

std::vector<std::byte> makeRegions(const Contents& c) {
  std::vector<std::byte> bytes(kRegionTableBytes);
  RegionTable table{};
  std::memcpy(table.signature.data(), "regi", 4);
  table.entries = 2;
  const Region regions[] = {{kBatRegion, c.batOffset, static_cast<std::uint32_t>(c.batBytes), 1},
                            {kMetadataRegion, c.metadataOffset, static_cast<std::uint32_t>(c.metadataBytes), 1}};
  std::memcpy(bytes.data(), &table, sizeof table);
  std::memcpy(bytes.data() + sizeof table, regions, sizeof regions);
  storeLe<std::uint32_t>(bytes.data() + 4, checksumOf(bytes));
  return bytes;
}

Result<ImageInfo> VhdxImage::info() {
  ImageInfo info;
  info.format = "vhdx";
  info.virtualBytes = virtualBytes_;
  info.allocatedBytes = file_->allocatedBytes();
  info.clusterBytes = shape_.blockBytes;
  info.backingName = parentName_;
  if (contents_.hasParent()) info.backingFormat = "vhdx";
  info.dirty = hadLog_ && readOnly();
  bool fixed = (contents_.flags & kLeaveBlocksAllocated) != 0;
  info.details = {{"subformat", std::string(contents_.hasParent() ? "differencing"
                                            : fixed               ? "fixed"
                                                                  : "dynamic")},
                  {"disk id", formatUuid(contents_.diskId, true)},
                  {"logical sector size", std::uint64_t{contents_.sectorBytes}},
                  {"physical sector size", std::uint64_t{contents_.physicalSectorBytes}},
                  {"log size", std::uint64_t{contents_.header.logBytes}},
                  {"log to replay", info.dirty}};
  return info;
}

std::vector<BlockTable::Used> VhdxImage::tables() {
  auto units = [](std::uint64_t offset, std::uint64_t bytes) {
    return Used{offset / 1_MiB, (offset + bytes + 1_MiB - 1) / 1_MiB};
  };
  std::vector<Used> used = {units(contents_.header.logOffset, contents_.header.logBytes),
                            units(contents_.batOffset, contents_.batBytes),
                            units(contents_.metadataOffset, contents_.metadataBytes)};
  if (!contents_.hasParent()) return used;
  for (std::uint64_t block = 0; block < contents_.blocks(); block += contents_.chunkRatio()) {
    std::uint64_t value = 0;
    if (entry(bitmapIndexOf(block), value) != 0 || stateOf(value) != kBitmapPresent) continue;
    if (offsetOf(value) < end_) used.push_back(units(offsetOf(value), 1_MiB));
  }
  return used;
}

Result<CheckResult> VhdxImage::check(Repair repair) {
  CheckResult result;
  auto failed = [&](int error) { return Error::fromErrno(error, "check " + inQuotes(file_->name())); };
  if (repair != Repair::none) {
    // An empty write marks the image as in use, so that the log is there for what is repaired.
    std::unique_lock held = lock();
    if (!log_) {
      if (int error = begin(); error != 0) return failed(error);
    }
  }
  if (int error = checkBlocks(*this, *file_, repair, result, progress()); error != 0) return failed(error);
  if (repair == Repair::none) return result;
  end_ = std::max(end_, alignUp(result.imageEnd, 1_MiB));
  int error = file_->flush();
  if (error == 0) error = flush();
  if (error == 0 && result.imageEnd < file_->size()) error = file_->truncate(alignUp(result.imageEnd, 1_MiB));
  if (error == 0) error = file_->flush();
  if (error != 0) return failed(error);
  end_ = file_->size();
  return result;
}

int VhdxImage::putBytes(std::uint64_t offset, std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::byte* at = nullptr;
    if (int error = page(offset + i, at); error != 0) return error;
    *at = bytes[i];
    tables_->setDirty(alignDown(offset + i, 4_KiB));
  }
  return 0;
}

int VhdxImage::moveTable(std::uint64_t bytes) {
  // The new table is whole before the region tables lead to it, one after the other: either is good.
  std::uint64_t old = contents_.batOffset, at = takeSpace(bytes, 1_MiB);
  std::vector<std::byte> part(1_MiB);
  int error = file_->truncate(end_);
  for (std::uint64_t done = 0; done < contents_.batBytes && error == 0; done += part.size()) {
    error = file_->read(old + done, part.data(), part.size());
    if (error == 0) error = file_->write(at + done, part.data(), part.size());
  }
  if (error == 0) error = file_->flush();
  if (error != 0) return error;
  contents_.batOffset = at;
  contents_.batBytes = bytes;
  std::vector<std::byte> regions = makeRegions(contents_);
  for (std::uint64_t table : kRegionTableOffsets) {
    error = file_->write(table, regions.data(), regions.size());
    if (error == 0) error = file_->flush();
    if (error != 0) return error;
  }
  return 0;
}

int VhdxImage::changeSize(std::uint64_t newBytes) {
  std::uint64_t block = shape_.blockBytes, blocks = (newBytes + block - 1) / block, old = contents_.blocks();
  if (newBytes < virtualBytes_) {
    for (std::uint64_t b = blocks; b < old; ++b) {
      if (int error = setEntry(indexOf(b), 0); error != 0) return error;
    }
    std::uint64_t rest = std::min(virtualBytes_, blocks * block) - newBytes;
    if (int error = rest == 0 ? 0 : writeZeroes(newBytes, rest, true); error != 0) return error;
  }
  if (int error = flush(); error != 0) return error;
  std::uint64_t needed = contents_.entries(blocks) * 8;
  if (needed > contents_.batBytes) {
    if (int error = moveTable(alignUp(needed, 1_MiB)); error != 0) return error;
  }
  for (std::uint64_t b = old; b < blocks; ++b) {
    if (int error = setEntry(indexOf(b), 0); error != 0) return error;
  }
  Le64 size = newBytes;
  if (int error = putBytes(contents_.sizeItem, bytesOf(size)); error != 0) return error;
  if (int error = flush(); error != 0) return error;
  contents_.diskBytes = newBytes;
  return 0;
}

Status VhdxImage::resize(std::uint64_t newBytes, Preallocation) {
  auto failed = [&](int error) { return Error::fromErrno(error, "resize " + inQuotes(file_->name())); };
  if (newBytes == 0 || newBytes > kMaxDiskBytes || newBytes % contents_.sectorBytes != 0) {
    return Error(ErrorKind::invalidArgument, fmt::format("resize {} to {} bytes", inQuotes(file_->name()), newBytes));
  }
  {
    std::unique_lock held = lock();
    if (int error = begin(); error != 0) return failed(error);
  }
  std::uint64_t old = virtualBytes_, end = end_;
  if (int error = changeSize(newBytes); error != 0) return failed(error);
  end = end_;
  setShapeOf();
  end_ = std::max(end, end_);
  int error = 0;
  if (backing() && newBytes > old && backing()->size() > old) {
    // What a longer parent has there must not show.
    error = writeZeroes(old, std::min(newBytes, backing()->size()) - old, true);
  }
  if (error == 0) error = flush();
  if (error != 0) return failed(error);
  return {};
}

Status VhdxImage::changeBacking(const std::string& name, const std::string&) {
  if (!contents_.hasParent() || name.empty()) {
    return Error(ErrorKind::unsupported, fmt::format("give {} another parent: only differencing VHDX images have one",
                                                     inQuotes(file_->name())));
  }
  OpenOptions options;
  options.paths = PathPolicy::anywhere;
  std::string path = name.starts_with("/") ? name : folderOf(file_->name()) + "/" + name;
  auto parent = openImage(path, "vhdx", options);
  if (!parent) return std::move(parent).error().context("parent");
  auto locator = makeLocator(static_cast<VhdxImage&>(**parent).dataWriteId(), name);
  if (!locator) return std::move(locator).error();
  auto failed = [&](int error) { return Error::fromErrno(error, "change the parent of " + inQuotes(file_->name())); };
  std::unique_lock held = lock();
  int error = begin();
  // Table entry and text go through the log together.
  MetadataEntry entry{};
  if (error == 0) error = file_->read(contents_.locatorEntry, &entry, sizeof entry);
  constexpr std::uint32_t kPlace = kMetadataTableBytes + 64_KiB;
  if (error == 0 && kPlace + locator->size() > contents_.metadataBytes) error = ENOSPC;
  entry.offset = kPlace;
  entry.bytes = static_cast<std::uint32_t>(locator->size());
  if (error == 0) error = putBytes(contents_.metadataOffset + kPlace, *locator);
  if (error == 0) error = putBytes(contents_.locatorEntry, bytesOf(entry));
  held.unlock();
  if (error == 0) error = flush();
  if (error != 0) return failed(error);
  parentName_ = name;
  return {};
}

Status VhdxImage::makeEmpty() {
  auto failed = [&](int error) { return Error::fromErrno(error, "empty " + inQuotes(file_->name())); };
  {
    std::unique_lock held = lock();
    int error = begin();
    for (std::uint64_t i = 0; i < contents_.entries(contents_.blocks()) && error == 0; ++i) error = setEntry(i, 0);
    if (error != 0) return failed(error);
  }
  if (int error = flush(); error != 0) return failed(error);
  auto cleaned = check(Repair::leaks);
  if (!cleaned) return std::move(cleaned).error();
  return {};
}

}  // namespace lodge::image::vhdx
