// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "image/block_file.h"

namespace lodge::image::qcow2 {

enum class TableKind : std::uint8_t { refcounts, mapping };

/// A part of a table in memory. `used` is set by whoever looks at it, so that the eviction spares it.
struct Slice {
  static constexpr std::uint32_t kMaxBytes = 4096;
  std::uint64_t offset = 0;  ///< in the file
  TableKind kind = TableKind::mapping;
  bool dirty = false;    ///< must be written
  bool writing = false;  ///< a flush is writing a copy of it: it must not be evicted
  mutable std::atomic<bool> used{true};
  std::vector<std::uint8_t> bytes;
};

/// Slices of L2 tables and refcount blocks, as many as fit into a fixed amount of memory. Locked by the image: find()
/// in shared mode, the rest in exclusive mode.
class SliceCache {
 public:
  static constexpr std::size_t kMaxSlices = 8192;  ///< 32 MiB: 256 GiB of disk at clusters of 64 KiB

  SliceCache(std::shared_ptr<BlockFile> file, std::uint64_t clusterBytes)
      : file_(std::move(file)),
        sliceBytes_(static_cast<std::uint32_t>(std::min<std::uint64_t>(clusterBytes, Slice::kMaxBytes))) {}

  std::uint32_t sliceBytes() const { return sliceBytes_; }

  /// The slice that has this file offset, or nullptr if it is not in memory.
  Slice* find(std::uint64_t offset) const {
    auto it = slices_.find(offset / sliceBytes_);
    if (it == slices_.end()) return nullptr;
    if (!it->second->used.load(std::memory_order_relaxed)) it->second->used.store(true, std::memory_order_relaxed);
    return it->second.get();
  }
  /// As find(), and reads it where it is not in memory. EAGAIN: all slices are dirty, flush first.
  int load(std::uint64_t offset, TableKind kind, Slice*& slice);
  /// Forgets what is kept of a range that is no table any more.
  void drop(std::uint64_t offset, std::uint64_t bytes);
  void dropClean();
  void markDirty(Slice& slice) {
    if (!slice.dirty) ++dirty(slice.kind);
    slice.dirty = true;
  }
  std::size_t dirtyCount() const { return dirty_[0] + dirty_[1]; }
  std::size_t dirtyCount(TableKind kind) const { return dirty_[static_cast<std::size_t>(kind)]; }

  struct Copy {
    std::uint64_t offset;
    TableKind kind;
    std::vector<std::uint8_t> bytes;
  };
  /// Copies of all dirty slices in the order of the file; they count as clean and pinned until endWriting().
  std::vector<Copy> takeDirty() { return takeDirty(true); }
  /// `refcounts` false: those stay where they are.
  std::vector<Copy> takeDirty(bool refcounts);
  /// `failed`: they become dirty again.
  void endWriting(const std::vector<Copy>& copies, bool failed);

 private:
  bool evictOne();
  std::size_t& dirty(TableKind kind) { return dirty_[static_cast<std::size_t>(kind)]; }

  std::shared_ptr<BlockFile> file_;
  std::uint32_t sliceBytes_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Slice>> slices_;
  std::vector<std::uint64_t> clock_;  // keys, some of which may be gone
  std::size_t hand_ = 0;
  std::size_t dirty_[2] = {};  // by TableKind
};

}  // namespace lodge::image::qcow2
