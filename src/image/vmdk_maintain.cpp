// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/text.h"
#include "base/units.h"
#include "image/vmdk_extent.h"

namespace lodge::image::vmdk {

Result<ImageInfo> SparseExtent::info() {
  ImageInfo info;
  info.format = "vmdk";
  info.virtualBytes = virtualBytes_;
  info.allocatedBytes = file_->allocatedBytes();
  info.clusterBytes = sparse_.grain;
  return info;
}

std::vector<BlockTable::Used> SparseExtent::tables() {
  std::vector<Used> used = {{0, 1}};
  auto add = [&](std::uint64_t offset, std::uint64_t bytes) {
    std::uint64_t first = offset / kSector, end = (offset + bytes + kSector - 1) / kSector;
    // Tables follow each other: one range for many.
    if (used.back().end == first)
      used.back().end = end;
    else
      used.push_back({first, end});
  };
  const SparseHeader& header = sparse_.header;
  if (header.descriptorSize < 1_MiB) add(header.descriptorOffset * kSector, header.descriptorSize * kSector);
  auto addDirectory = [&](std::uint64_t at, const std::vector<std::uint64_t>& directory) {
    if (at == 0) return;
    add(at, directory.size() * 4);
    for (std::uint64_t table : directory) {
      if (table != 0) add(table, sparse_.tableBytes());
    }
  };
  addDirectory(sparse_.directory, directory_);
  addDirectory(sparse_.redundantDirectory, redundant_);
  if (readOnly() && sparse_.redundantDirectory != 0) {
    // Not loaded: it lies before the directory, with its tables.
    add(sparse_.redundantDirectory, directory_.size() * (4 + sparse_.tableBytes()));
  }
  return used;
}

std::uint64_t SparseExtent::nextMapped(std::uint64_t block) {
  std::uint64_t table = block / sparse_.entriesPerTable, had = table;
  while (table < directory_.size() && directory_[table] == 0) ++table;
  return table == had ? block : table * sparse_.entriesPerTable;
}

int SparseExtent::compareTables(Repair repair, CheckResult& result) {
  for (std::size_t i = 0; i < redundant_.size(); ++i) {
    if (directory_[i] == 0 || redundant_[i] == 0) continue;
    auto length = static_cast<std::uint32_t>(sparse_.tableBytes());
    std::byte* bytes = nullptr;
    if (int error = tables_->get(directory_[i], length, bytes); error != 0) return error;
    std::vector<std::byte> first(bytes, bytes + length);
    if (int error = tables_->get(redundant_[i], length, bytes); error != 0) return error;
    if (std::memcmp(first.data(), bytes, length) == 0) continue;
    result.note(fmt::format("grain table {} and its copy differ", i));
    if (repair == Repair::none) {
      ++result.leaks;
      continue;
    }
    ++result.leaksFixed;
    std::memcpy(bytes, first.data(), length);
    tables_->setDirty(redundant_[i]);
  }
  return 0;
}

bool SparseExtent::tablesOverlap() const {
  std::vector<std::uint64_t> tables;
  for (std::uint64_t table : directory_) {
    if (table != 0) tables.push_back(table);
  }
  std::sort(tables.begin(), tables.end());
  auto near = [&](std::uint64_t a, std::uint64_t b) { return b - a < sparse_.tableBytes(); };
  return std::adjacent_find(tables.begin(), tables.end(), near) != tables.end();
}

int SparseExtent::checkCompressed(CheckResult& result) {
  std::vector<std::byte> grain(sparse_.grain);
  result.totalClusters = blocks();
  for (std::uint64_t offset = 0; offset < virtualBytes_;) {
    Mapping mapping;
    int error = map(offset, virtualBytes_ - offset, mapping);
    std::uint64_t part = error == 0 ? mapping.length : std::min(sparse_.grain, virtualBytes_ - offset);
    if (error == 0 && mapping.kind == Mapping::Kind::compressed) {
      ++result.allocatedClusters;
      ++result.compressedClusters;
      iovec v{grain.data(), part};
      error = readCompressed(mapping, offset, {&v, 1});
    }
    if (error != 0) {
      ++result.corruptions;
      result.note(fmt::format("the grain at offset {:#x} of the disk cannot be read", offset));
    }
    offset += part;
  }
  result.imageEnd = file_->size();
  return 0;
}

Result<CheckResult> SparseExtent::check(Repair repair) {
  CheckResult result;
  auto failed = [&](int error) { return Error::fromErrno(error, "check " + inQuotes(file_->name())); };
  if (sparse_.compressed && !tablesOverlap()) {
    checkCompressed(result);
    return result;
  }
  if (sparse_.kind == SparseShape::Kind::seSparse) {
    return Error(ErrorKind::unsupported, "check an seSparse extent").withHint("convert it");
  }
  if (tablesOverlap()) {
    ++result.corruptions;
    result.note("two grain tables are in one place; the check ends here");
    return result;
  }
  if (int error = checkBlocks(*this, *file_, repair, result, progress()); error != 0) return failed(error);
  if (int error = compareTables(repair, result); error != 0) return failed(error);
  if (repair == Repair::none) return result;
  end_ = std::max(end_, result.imageEnd);
  int error = file_->flush();
  if (error == 0) error = flush();
  if (error == 0 && result.imageEnd < file_->size()) error = file_->truncate(result.imageEnd);
  if (error == 0) error = file_->flush();
  if (error != 0) return failed(error);
  end_ = file_->size();
  return result;
}

Status SparseExtent::resize(std::uint64_t newBytes, Preallocation) {
  auto failed = [&](int error) { return Error::fromErrno(error, "resize " + inQuotes(file_->name())); };
  if (newBytes < virtualBytes_ || sparse_.compressed || readOnly()) {
    return Error(ErrorKind::unsupported, fmt::format("shrink {}: sparse VMDKs only grow", inQuotes(file_->name())))
        .withHint("convert it");
  }
  SparseShape larger = sparse_;
  larger.capacity = newBytes;
  std::uint64_t entries = larger.directoryEntries();
  if (entries * 4 > 16_MiB) return failed(EFBIG);
  if (int error = flush(); error != 0) return failed(error);
  // New directories at the end of the file, with the old tables; the header then leads to them, in one sector.
  auto writeDirectory = [&](const std::vector<std::uint64_t>& tables, std::uint64_t& at) {
    std::vector<Le32> bytes(alignUp(entries * 4, kSector) / 4);
    for (std::size_t i = 0; i < tables.size(); ++i) bytes[i] = static_cast<std::uint32_t>(tables[i] / kSector);
    at = takeSpace(bytes.size() * 4, kSector);
    return file_->write(at, bytes.data(), bytes.size() * 4);
  };
  int error = writeDirectory(directory_, larger.directory);
  if (error == 0 && !redundant_.empty()) error = writeDirectory(redundant_, larger.redundantDirectory);
  if (error == 0) error = file_->flush();
  larger.header.capacity = newBytes / kSector;
  larger.header.directory = larger.directory / kSector;
  if (!redundant_.empty()) larger.header.redundantDirectory = larger.redundantDirectory / kSector;
  if (error == 0) error = file_->write(0, &larger.header, sizeof larger.header);
  if (error == 0) error = file_->flush();
  if (error != 0) return failed(error);
  sparse_ = larger;
  directory_.resize(entries);
  if (!redundant_.empty()) redundant_.resize(entries);
  std::uint64_t end = end_;
  setShape({.virtualBytes = newBytes, .blockBytes = sparse_.grain, .fillBytes = sparse_.grain});
  end_ = std::max(end, end_);
  return {};
}

Status SparseExtent::makeEmpty() {
  if (readOnly() || sparse_.compressed) {
    return Error(ErrorKind::unsupported, fmt::format("empty {}", inQuotes(file_->name())));
  }
  int error = 0;
  for (std::uint64_t block = nextMapped(0); block < blocks() && error == 0; block = nextMapped(block + 1)) {
    std::uint64_t value = 0;
    error = entry(block, value);
    if (error == 0 && value != 0) error = setEntry(block, 0);
  }
  if (error == 0) error = flush();
  if (error != 0) return Error::fromErrno(error, "empty " + inQuotes(file_->name()));
  auto cleaned = check(Repair::leaks);
  if (!cleaned) return std::move(cleaned).error();
  return {};
}

}  // namespace lodge::image::vmdk
