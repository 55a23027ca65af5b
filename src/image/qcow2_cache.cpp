// SPDX-License-Identifier: Apache-2.0
#include "image/qcow2_cache.h"

#include <algorithm>
#include <cerrno>

namespace lodge::image::qcow2 {

int SliceCache::load(std::uint64_t offset, TableKind kind, Slice*& slice) {
  slice = find(offset);
  if (slice) return 0;
  if (slices_.size() >= kMaxSlices && !evictOne()) return EAGAIN;
  auto fresh = std::make_unique<Slice>();
  fresh->offset = offset / sliceBytes_ * sliceBytes_;
  fresh->kind = kind;
  fresh->bytes.resize(sliceBytes_);
  if (int error = file_->read(fresh->offset, fresh->bytes.data(), sliceBytes_); error != 0) return error;
  slice = fresh.get();
  std::uint64_t key = offset / sliceBytes_;
  slices_[key] = std::move(fresh);
  clock_.push_back(key);
  return 0;
}

bool SliceCache::evictOne() {
  // Two rounds: the first clears the marks of use.
  for (std::size_t looked = 0; looked < 2 * clock_.size() + 1 && !clock_.empty(); ++looked) {
    if (hand_ >= clock_.size()) hand_ = 0;
    auto it = slices_.find(clock_[hand_]);
    bool gone = it == slices_.end();
    if (!gone && (it->second->dirty || it->second->writing || it->second->used.exchange(false))) {
      ++hand_;
      continue;
    }
    if (!gone) slices_.erase(it);
    clock_[hand_] = clock_.back();
    clock_.pop_back();
    if (!gone) return true;
  }
  return false;
}

void SliceCache::drop(std::uint64_t offset, std::uint64_t bytes) {
  for (std::uint64_t key = offset / sliceBytes_; key < (offset + bytes) / sliceBytes_; ++key) {
    auto it = slices_.find(key);
    if (it == slices_.end()) continue;
    if (it->second->dirty) --dirty(it->second->kind);
    slices_.erase(it);
  }
}

void SliceCache::dropClean() {
  for (auto it = slices_.begin(); it != slices_.end();)
    it = it->second->dirty || it->second->writing ? ++it : slices_.erase(it);
  std::erase_if(clock_, [&](std::uint64_t key) { return slices_.count(key) == 0; });
}

std::vector<SliceCache::Copy> SliceCache::takeDirty(bool refcounts) {
  std::vector<Copy> copies;
  copies.reserve(dirtyCount());
  for (auto& [key, slice] : slices_) {
    if (!slice->dirty || (slice->kind == TableKind::refcounts && !refcounts)) continue;
    --dirty(slice->kind);
    slice->dirty = false;
    slice->writing = true;
    copies.push_back({slice->offset, slice->kind, slice->bytes});
  }
  std::sort(copies.begin(), copies.end(), [](const Copy& a, const Copy& b) { return a.offset < b.offset; });
  return copies;
}

void SliceCache::endWriting(const std::vector<Copy>& copies, bool failed) {
  for (const Copy& copy : copies) {
    auto it = slices_.find(copy.offset / sliceBytes_);
    if (it == slices_.end()) continue;
    it->second->writing = false;
    if (failed) markDirty(*it->second);
  }
}

}  // namespace lodge::image::qcow2
