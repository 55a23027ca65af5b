// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>

#include "base/text.h"
#include "image/qcow2_image.h"

namespace lodge::image::qcow2 {

int Qcow2Image::growL1(std::uint64_t entries) {
  if (entries > kMaxL1Bytes / 8) return EFBIG;
  if (int error = flushMetadata(); error != 0) return error;
  std::unique_lock lock(mutex_);
  std::vector<std::uint64_t> table = l1_;
  table.resize(entries);
  std::uint64_t clusters = clusterUp(entries * 8) / cluster(), host = 0;
  if (int error = allocateRow(clusters, host); error != 0) return error;
  if (int error = writeTable(host, table); error != 0) return error;
  lock.unlock();
  // Counted and written before the header leads there.
  if (int error = flushMetadata(); error != 0) return error;
  lock.lock();
  std::uint64_t oldOffset = header_.l1Offset, oldBytes = std::uint64_t{header_.l1Entries} * 8;
  l1_ = std::move(table);
  header_.l1Offset = host;
  header_.l1Entries = static_cast<std::uint32_t>(entries);
  if (!storeHeader()) return EIO;
  if (int error = file_->flush(); error != 0) return error;
  freeLater(oldOffset, clusterUp(oldBytes));
  return 0;
}

int Qcow2Image::preallocatePart(std::uint64_t begin, std::uint64_t end, Preallocation preallocation,
                                std::uint64_t& done) {
  std::unique_lock lock(mutex_);
  Plan p;
  if (int error = plan(lock, begin, end - begin, p); error != 0) return error;
  done = p.bytes != 0 ? p.bytes : cluster();
  if (p.bytes == 0 || p.way != Way::fresh) {
    if (p.bytes != 0) endPending(p.begin);
    if (p.bytes != 0 && p.way == Way::copy) undo(p);
    return 0;
  }
  int error = 0;
  // A raw data file ends where the disk does.
  std::uint64_t bytes = header_.rawDataFile() ? std::min(p.bytes, size() - p.begin) : p.bytes;
  if (preallocation >= Preallocation::falloc)
    error = dataFile().writeZeroes(p.host, bytes, false);
  else if (!p.blank)
    error = dataFile().writeZeroes(p.host, bytes, true);
  else if (file_->size() < p.host + p.bytes)
    error = file_->truncate(p.host + p.bytes);
  if (error == 0) error = link(p, {p.begin, p.begin + p.bytes});
  if (error != 0) undo(p);
  endPending(p.begin);
  return error;
}

int Qcow2Image::preallocate(std::uint64_t begin, std::uint64_t end, Preallocation preallocation) {
  std::uint64_t first = begin;
  while (begin < end) {
    if (progress() && !progress()(begin - first, end - first)) return EINTR;
    std::uint64_t done = 0;
    int error = preallocatePart(begin, end, preallocation, done);
    if (error == EAGAIN) {
      error = flushMetadata();
      done = 0;
    }
    if (error == 0) error = relieve();
    if (error != 0) return error;
    begin += done;
  }
  return 0;
}

Status Qcow2Image::shrink(std::uint64_t newBytes) {
  if (!snapshots_.empty())
    return Error(ErrorKind::unsupported, "an image with snapshots cannot be made smaller")
        .withHint("delete them first");
  if (int error = dropRange(clusterUp(newBytes), clusterUp(size()), Drop::discard); error != 0)
    return Error::fromErrno(error, "free what lies beyond");
  // The size first: a table entry that is gone must not be needed any more.
  size_ = newBytes;
  if (Status stored = storeHeader(); !stored) return stored;
  if (int error = file_->flush(); error != 0) return Error::fromErrno(error, "write the header");
  std::unique_lock lock(mutex_);
  for (std::uint64_t i = (newBytes + header_.bytesPerL2() - 1) / header_.bytesPerL2(); i < l1_.size(); ++i) {
    std::uint64_t table = l1_[i] & entry::offsetMask;
    if (table == 0) continue;
    setL1(i, 0);
    freeLater(table, cluster());
  }
  return {};
}

Status Qcow2Image::grow(std::uint64_t newBytes, Preallocation preallocation) {
  std::uint64_t old = size(), entries = (newBytes + header_.bytesPerL2() - 1) / header_.bytesPerL2();
  int error = entries > l1_.size() ? growL1(entries) : 0;
  if (error == 0 && header_.rawDataFile() && dataFile_->size() < newBytes) error = dataFile_->truncate(newBytes);
  if (error != 0) return Error::fromErrno(error, "make room for it");
  size_ = newBytes;
  // What the last cluster or the backing image has there must not come to light.
  std::uint64_t hidden = std::min(newBytes, std::max(clusterUp(old), backing_ ? backing_->size() : 0));
  if (hidden > old) error = writeZeroes(old, hidden - old, true);
  if (error == 0 && preallocation != Preallocation::off) error = preallocate(clusterDown(old), newBytes, preallocation);
  if (error == 0) error = flushMetadata();
  if (error != 0) {
    size_ = old;
    return Error::fromErrno(error, "make room for it");
  }
  return storeHeader();
}

Status Qcow2Image::resize(std::uint64_t newBytes, Preallocation preallocation) {
  std::uint64_t old = size();
  std::string what = "resize " + inQuotes(file_->name());
  if (readOnly_) return Error(ErrorKind::permissionDenied, what + ": open read-only");
  if (newBytes == old) return {};
  if (header_.version == 2 && !snapshots_.empty())
    return Error(ErrorKind::unsupported, what + ": version 2 keeps no size with its snapshots")
        .withHint("delete them first");
  std::uint64_t entries = (newBytes + header_.bytesPerL2() - 1) / header_.bytesPerL2();
  if (entries > kMaxL1Bytes / 8)
    return Error(ErrorKind::invalidArgument, what + ": too large for clusters of " + formatSize(cluster()));
  if (Status begun = bitmapStore_.beginResize(); !begun) return std::move(begun).error().context(what);
  Status done = newBytes < old ? shrink(newBytes) : grow(newBytes, preallocation);
  Status ended = bitmapStore_.endResize(old);
  if (!done) return std::move(done).error().context(what);
  if (!ended) return std::move(ended).error().context(what);
  if (int error = flushAll(); error != 0) return Error::fromErrno(error, what);
  return {};
}

}  // namespace lodge::image::qcow2
