// SPDX-License-Identifier: Apache-2.0
// Giving clusters back, and making them zero without writing zeroes.
#include <algorithm>
#include <cerrno>

#include "image/qcow2_image.h"
#include "image/vectors.h"

namespace lodge::image::qcow2 {

int Qcow2Image::writeZeroBytes(std::uint64_t offset, std::uint64_t length) {
  static const std::array<std::byte, 65536> zeroes{};
  while (length != 0) {
    // What is zero already stays as it is.
    BlockStatus status;
    if (int error = chainStatus(*this, offset, length, status); error != 0) return error;
    if (status.kind == BlockStatus::Kind::zero) {
      offset += status.length;
      length -= status.length;
      continue;
    }
    iovec v{const_cast<std::byte*>(zeroes.data()), std::min<std::uint64_t>({length, status.length, zeroes.size()})};
    if (int error = write(offset, {&v, 1}); error != 0) return error;
    offset += v.iov_len;
    length -= v.iov_len;
  }
  return 0;
}

/// One whole cluster, under the exclusive lock; its L2 table belongs to the disk alone.
int Qcow2Image::dropCluster(std::uint64_t offset, Drop how) {
  L2Entry old;
  if (int error = loadEntry(offset, old); error != 0) return error;
  bool covered = backing_ && offset < backing_->size();
  bool nothing = old.word == 0 && old.bitmap == 0;
  if (nothing && !covered) return 0;
  L2Entry e;
  bool keep = how == Drop::zeroKeep && hasHost(old) && (old.word & entry::copied) != 0;
  if (keep) e.word = old.word & ~entry::zero;
  // Without a backing image nothing at all reads as zero, but a format without zero clusters must not show the backing.
  if (keep || covered) {
    if (header_.extendedL2())
      e.bitmap = 0xffffffffull << 32;
    else
      e.word |= entry::zero;
  }
  if (dataFile_ && hasHost(old)) {
    // Its clusters have their place for ever.
    e.word |= old.word;
    if (header_.extendedL2())
      e.bitmap = 0xffffffffull << 32;
    else
      e.word |= entry::zero;
  } else if (!keep) {
    freeEntry(old);
  }
  return setEntry(offset, e);
}

/// [begin, end): whole clusters.
int Qcow2Image::dropRange(std::uint64_t begin, std::uint64_t end, Drop how) {
  std::uint64_t table = cluster() << l2Bits_;
  while (begin < end) {
    std::uint64_t part = std::min({end, begin + 1024 * cluster(), (begin / table + 1) * table});
    int error = 0;
    {
      std::unique_lock lock(mutex_);
      waitPending(lock, begin, part);
      bool covered = backing_ && begin < backing_->size();
      bool noTable = (l1_[l1Index(begin)] & entry::offsetMask) == 0;
      if (noTable && !covered) {
        begin = std::min(end, (begin / table + 1) * table);
        continue;
      }
      error = ownL2(begin);
      for (std::uint64_t at = begin; at < part && error == 0; at += cluster()) error = dropCluster(at, how);
    }
    if (error == EAGAIN) {
      error = flushMetadata();
      part = begin;
    }
    if (error == 0) error = relieve();
    if (error != 0) return error;
    begin = part;
  }
  return 0;
}

int Qcow2Image::discard(std::uint64_t offset, std::uint64_t length) {
  if (readOnly_) return EROFS;
  if (header_.hasDataFile() && header_.rawDataFile()) {
    int error = noteChange(offset, length);
    return error != 0 ? error : dataFile().discard(offset, length);
  }
  if (header_.version < 3 && backing_) return 0;  // it would show the backing image's content
  std::uint64_t begin = clusterUp(offset),
                end = offset + length == size() ? clusterUp(size()) : clusterDown(offset + length);
  if (begin >= end) return 0;
  if (int error = noteChange(begin, std::min(end, size()) - begin); error != 0) return error;
  return dropRange(begin, end, Drop::discard);
}

int Qcow2Image::writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) {
  if (readOnly_) return EROFS;
  if (length == 0) return 0;
  if (int error = noteChange(offset, length); error != 0) return error;
  if (header_.hasDataFile() && header_.rawDataFile()) {
    // Outside readers see the data file alone.
    return writeZeroBytes(offset, length);
  }
  bool flags = header_.version >= 3;
  std::uint64_t begin = clusterUp(offset),
                end = offset + length == size() ? clusterUp(size()) : clusterDown(offset + length);
  if (begin >= end || (!flags && backing_) || (!flags && !mayUnmap)) return writeZeroBytes(offset, length);
  if (int error = begin > offset ? writeZeroBytes(offset, begin - offset) : 0; error != 0) return error;
  if (int error = end < offset + length ? writeZeroBytes(end, offset + length - end) : 0; error != 0) return error;
  return dropRange(begin, end, mayUnmap ? Drop::zeroUnmap : Drop::zeroKeep);
}

}  // namespace lodge::image::qcow2
