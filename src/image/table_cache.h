// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

#include "image/block_file.h"

namespace lodge::image {

/// Pieces of an image's tables, read when they are needed and written back when the owner says so, in the order that
/// keeps the image good: the owner flushes data first, then writes what takeDirty() gave, then calls written().
/// Not thread-safe: the owner's lock guards it. A piece is always asked for by the same start and length.
class TableCache {
 public:
  struct Piece {
    std::uint64_t offset = 0;  ///< in the file
    std::uint32_t length = 0;
    std::unique_ptr<std::byte[]> bytes;
    bool dirty = false;
    unsigned writers = 0;  ///< copies on their way to the file: not dropped before they are there
    std::list<Piece*>::iterator place;
  };
  /// What a changed piece was when it was taken.
  struct Copy {
    std::uint64_t offset;
    std::vector<std::byte> bytes;
  };

  /// `limit`: bytes to keep, apart from changed ones.
  TableCache(std::shared_ptr<BlockFile> file, std::size_t limit) : file_(std::move(file)), limit_(limit) {}

  /// The piece's bytes, good until the next call. Returns 0 or an errno value.
  int get(std::uint64_t offset, std::uint32_t length, std::byte*& bytes);
  /// A piece that was never written: all zero, changed, nothing is read.
  std::byte* fresh(std::uint64_t offset, std::uint32_t length);
  void setDirty(std::uint64_t offset);
  std::size_t dirtyBytes() const { return dirtyBytes_; }

  /// Copies of all changed pieces by ascending offset; they count as unchanged but stay until written().
  std::vector<Copy> takeDirty();
  /// The copies are in the file; or, `failed`, they are not: the pieces are changed again.
  void written(const std::vector<Copy>& copies, bool failed);

 private:
  Piece& insert(std::uint64_t offset, std::uint32_t length);
  void makeRoom();

  std::shared_ptr<BlockFile> file_;
  std::size_t limit_, bytes_ = 0, dirtyBytes_ = 0;
  std::unordered_map<std::uint64_t, std::unique_ptr<Piece>> pieces_;
  std::list<Piece*> order_;  ///< used last first
};

/// Writes the copies where they belong, neighbours in one call. Returns 0 or an errno value.
int writeCopies(BlockFile& file, const std::vector<TableCache::Copy>& copies);

}  // namespace lodge::image
