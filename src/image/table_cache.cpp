// SPDX-License-Identifier: Apache-2.0
#include "image/table_cache.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace lodge::image {

int TableCache::get(std::uint64_t offset, std::uint32_t length, std::byte*& bytes) {
  if (!order_.empty() && order_.front()->offset == offset && order_.front()->length == length) {
    bytes = order_.front()->bytes.get();
    return 0;
  }
  if (auto found = pieces_.find(offset); found != pieces_.end()) {
    Piece& piece = *found->second;
    if (piece.length != length) return EIO;  // two tables in one place: a damaged image
    order_.splice(order_.begin(), order_, piece.place);
    bytes = piece.bytes.get();
    return 0;
  }
  auto loaded = std::make_unique<std::byte[]>(length);
  if (int error = file_->read(offset, loaded.get(), length); error != 0) return error;
  Piece& piece = insert(offset, length);
  piece.bytes = std::move(loaded);
  bytes = piece.bytes.get();
  return 0;
}

std::byte* TableCache::fresh(std::uint64_t offset, std::uint32_t length) {
  auto found = pieces_.find(offset);
  if (found != pieces_.end() && found->second->length != length) {
    // What was there before the space was taken anew.
    bytes_ -= found->second->length;
    if (found->second->dirty) dirtyBytes_ -= found->second->length;
    order_.erase(found->second->place);
    pieces_.erase(found);
    found = pieces_.end();
  }
  Piece& piece = found == pieces_.end() ? insert(offset, length) : *found->second;
  if (!piece.bytes) piece.bytes = std::make_unique<std::byte[]>(length);
  std::memset(piece.bytes.get(), 0, length);
  setDirty(offset);
  return piece.bytes.get();
}

TableCache::Piece& TableCache::insert(std::uint64_t offset, std::uint32_t length) {
  bytes_ += length;
  makeRoom();
  auto piece = std::make_unique<Piece>();
  piece->offset = offset;
  piece->length = length;
  order_.push_front(piece.get());
  piece->place = order_.begin();
  return *(pieces_[offset] = std::move(piece));
}

void TableCache::makeRoom() {
  if (bytes_ <= limit_ + dirtyBytes_) return;
  for (auto it = order_.end(); it != order_.begin() && bytes_ > limit_ + dirtyBytes_;) {
    Piece& piece = **--it;
    if (piece.dirty || piece.writers != 0) continue;
    bytes_ -= piece.length;
    it = order_.erase(it);
    pieces_.erase(piece.offset);
  }
}

void TableCache::setDirty(std::uint64_t offset) {
  Piece& piece = *pieces_.at(offset);
  if (piece.dirty) return;
  piece.dirty = true;
  dirtyBytes_ += piece.length;
}

std::vector<TableCache::Copy> TableCache::takeDirty() {
  std::vector<Copy> copies;
  if (dirtyBytes_ == 0) return copies;
  for (auto& [offset, piece] : pieces_) {
    if (!piece->dirty) continue;
    piece->dirty = false;
    ++piece->writers;
    copies.push_back({offset, {piece->bytes.get(), piece->bytes.get() + piece->length}});
  }
  dirtyBytes_ = 0;
  std::sort(copies.begin(), copies.end(), [](const Copy& a, const Copy& b) { return a.offset < b.offset; });
  return copies;
}

void TableCache::written(const std::vector<Copy>& copies, bool failed) {
  for (const Copy& copy : copies) {
    auto found = pieces_.find(copy.offset);
    if (found == pieces_.end()) continue;
    --found->second->writers;
    if (failed) setDirty(copy.offset);
  }
}

int writeCopies(BlockFile& file, const std::vector<TableCache::Copy>& copies) {
  constexpr std::size_t kMost = 256;
  for (std::size_t i = 0; i < copies.size();) {
    std::uint64_t start = copies[i].offset, end = start;
    std::vector<iovec> vectors;
    for (; i < copies.size() && copies[i].offset == end && vectors.size() < kMost; ++i) {
      vectors.push_back({const_cast<std::byte*>(copies[i].bytes.data()), copies[i].bytes.size()});
      end += copies[i].bytes.size();
    }
    if (int error = file.writev(start, vectors); error != 0) return error;
  }
  return 0;
}

}  // namespace lodge::image
