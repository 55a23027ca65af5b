// SPDX-License-Identifier: Apache-2.0
// The order in which metadata reaches the disk: see the class's comment.
#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "image/qcow2_image.h"

namespace lodge::image::qcow2 {

namespace {

using Sectors = std::map<std::uint64_t, std::vector<std::uint8_t>>;

/// The 512-byte pieces of a table that have the given entries, by file offset.
Sectors piecesOf(const std::vector<std::uint64_t>& table, std::uint64_t tableOffset,
                 const std::set<std::uint64_t>& dirty) {
  constexpr std::uint64_t kEntries = 64;
  Sectors pieces;
  for (std::uint64_t index : dirty) {
    std::uint64_t first = index / kEntries * kEntries;
    auto [it, fresh] = pieces.try_emplace(tableOffset + first * 8);
    if (!fresh) continue;
    std::uint64_t n = std::min<std::uint64_t>(kEntries, table.size() - first);
    it->second.resize(n * 8);
    for (std::uint64_t i = 0; i < n; ++i) storeLe(it->second.data() + i * 8, __builtin_bswap64(table[first + i]));
  }
  return pieces;
}

int writePieces(BlockFile& file, const Sectors& pieces) {
  for (const auto& [offset, bytes] : pieces) {
    if (int error = file.write(offset, bytes.data(), bytes.size()); error != 0) return error;
  }
  return 0;
}

int writeCopies(BlockFile& file, const std::vector<SliceCache::Copy>& copies, TableKind kind) {
  std::vector<iovec> row;
  std::uint64_t start = 0, end = 0;
  auto writeRow = [&] {
    int error = row.empty() ? 0 : file.writev(start, row);
    row.clear();
    return error;
  };
  for (const auto& copy : copies) {
    if (copy.kind != kind) continue;
    if (copy.offset != end || row.size() >= 256) {
      if (int error = writeRow(); error != 0) return error;
    }
    if (row.empty()) start = copy.offset;
    row.push_back({const_cast<std::uint8_t*>(copy.bytes.data()), copy.bytes.size()});
    end = copy.offset + copy.bytes.size();
  }
  return writeRow();
}

}  // namespace

int Qcow2Image::writeStages(const std::vector<SliceCache::Copy>& copies, const Sectors& refTable, const Sectors& l1) {
  bool references = !l1.empty() || std::any_of(copies.begin(), copies.end(),
                                               [](const SliceCache::Copy& c) { return c.kind == TableKind::mapping; });
  if (int error = writeCopies(*file_, copies, TableKind::refcounts); error != 0) return error;
  if (int error = dataFile_ ? dataFile_->flush() : 0; error != 0) return error;
  if (int error = file_->flush(); error != 0) return error;
  if (!refTable.empty()) {
    if (int error = writePieces(*file_, refTable); error != 0) return error;
    if (int error = file_->flush(); error != 0) return error;
  }
  if (!references) return 0;
  if (int error = writeCopies(*file_, copies, TableKind::mapping); error != 0) return error;
  if (int error = writePieces(*file_, l1); error != 0) return error;
  return file_->flush();
}

/// With lazy refcounts they may be out of date on the disk, as long as the header says so.
int Qcow2Image::markLazy() {
  if (lazyDirty_) return 0;
  header_.incompatible |= incompatible::dirty;
  if (!storeHeader()) return EIO;
  lazyDirty_ = true;
  return file_->flush();
}

int Qcow2Image::flushMetadata(bool lazily) {
  std::lock_guard flushing(flushMutex_);
  std::vector<SliceCache::Copy> copies;
  Sectors refTable, l1;
  std::set<std::uint64_t> dirtyL1, dirtyRefTable;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> freed;
  unsigned before = 0;
  {
    std::unique_lock lock(mutex_);
    lazily = lazily && (header_.compatible & compatible::lazyRefcounts) != 0 &&
             cache_.dirtyCount(TableKind::refcounts) < SliceCache::kMaxSlices / 8;
    if (lazily && cache_.dirtyCount() != 0) {
      if (int error = markLazy(); error != 0) return error;
    }
    copies = cache_.takeDirty(!lazily);
    dirtyL1.swap(dirtyL1_);
    if (!lazily) dirtyRefTable.swap(dirtyRefTable_);
    l1 = piecesOf(l1_, header_.l1Offset, dirtyL1);
    refTable = piecesOf(refTable_, header_.refTableOffset, dirtyRefTable);
    freed.swap(freed_);
    if (!freed.empty()) before = epoch_.fetch_add(1) & 1;
  }
  int error = writeStages(copies, refTable, l1);
  {
    std::unique_lock lock(mutex_);
    cache_.endWriting(copies, error != 0);
    if (error != 0) {
      dirtyL1_.merge(dirtyL1);
      dirtyRefTable_.merge(dirtyRefTable);
      freed_.insert(freed_.end(), freed.begin(), freed.end());
    }
  }
  if (error != 0 || freed.empty()) return error;
  for (unsigned users = users_[before].load(); users != 0; users = users_[before].load()) users_[before].wait(users);
  return applyFrees(std::move(freed));
}

int Qcow2Image::relieve() {
  {
    std::shared_lock lock(mutex_);
    if (cache_.dirtyCount() < SliceCache::kMaxSlices / 4 && freed_.size() < 16384) return 0;
  }
  return flushMetadata(true);
}

int Qcow2Image::flush() {
  return readOnly_ ? 0 : flushMetadata(true);
}

/// Twice: what the first one freed is counted down by the second.
int Qcow2Image::flushAll() {
  int error = flushMetadata();
  return error == 0 ? flushMetadata() : error;
}

int Qcow2Image::endLazy() {
  std::unique_lock lock(mutex_);
  if (!lazyDirty_) return 0;
  header_.incompatible &= ~incompatible::dirty;
  if (!storeHeader()) return EIO;
  lazyDirty_ = false;  // the next change says it again
  return file_->flush();
}

int Qcow2Image::settle() {
  if (readOnly_) return 0;
  int error = bitmaps_ ? bitmaps_->store() : 0;
  if (int unwritten = flushAll(); error == 0) error = unwritten;
  return error == 0 ? endLazy() : error;
}

Status Qcow2Image::storeHeader() {
  header_.size = size();
  return writeHeader(*file_, header_);
}

}  // namespace lodge::image::qcow2
