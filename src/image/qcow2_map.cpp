// SPDX-License-Identifier: Apache-2.0
// From places on the disk to clusters in the file, and reading.
#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "image/qcow2_image.h"
#include "image/vectors.h"

namespace lodge::image::qcow2 {

L2Entry Qcow2Image::entryIn(const Slice& slice, std::uint64_t offset, bool extended) {
  const std::uint8_t* p = slice.bytes.data() + (offset - slice.offset);
  return {loadBe<std::uint64_t>(p), extended ? loadBe<std::uint64_t>(p + 8) : 0};
}

bool Qcow2Image::hasHost(const L2Entry& e) const {
  if ((e.word & entry::compressed) != 0) return false;
  // In a data file, offset 0 is as good as any; the flag tells.
  return hostOf(e) != 0 || (dataFile_ && (e.word & entry::copied) != 0);
}

Run::Kind Qcow2Image::kindOf(const L2Entry& e, unsigned subcluster) const {
  if ((e.word & entry::compressed) != 0) return Run::Kind::compressed;
  if (header_.extendedL2()) {
    if ((e.bitmap >> (32 + subcluster) & 1) != 0) return Run::Kind::zero;
    return (e.bitmap >> subcluster & 1) != 0 && hasHost(e) ? Run::Kind::data : Run::Kind::unallocated;
  }
  if (header_.version >= 3 && (e.word & entry::zero) != 0) return Run::Kind::zero;
  return hasHost(e) ? Run::Kind::data : Run::Kind::unallocated;
}

void Qcow2Image::describeCompressed(const L2Entry& e, Run& run) const {
  // "Compressed Clusters Descriptor": the offset takes x bits, the number of further sectors the rest.
  unsigned offsetBits = 62 - (header_.clusterBits - 8);
  run.host = e.word & ((std::uint64_t{1} << offsetBits) - 1);
  std::uint64_t sectors = (e.word & (entry::compressed - 1)) >> offsetBits;
  run.storedBytes = static_cast<std::uint32_t>((sectors + 1) * 512 - run.host % 512);
}

Run Qcow2Image::runOf(const L2Entry& e, std::uint64_t offset, std::uint64_t length) const {
  Run run;
  std::uint64_t inside = offset & (clusterBytes_ - 1), sub = subclusterBytes();
  run.kind = kindOf(e, static_cast<unsigned>(inside / sub));
  run.length = std::min(length, clusterBytes_ - inside);
  if (run.kind == Run::Kind::compressed) {
    describeCompressed(e, run);
    return run;
  }
  run.copied = (e.word & entry::copied) != 0;
  run.hasHost = hasHost(e);
  run.host = run.hasHost ? hostOf(e) + inside : 0;
  if (header_.extendedL2()) {
    std::uint64_t end = inside / sub + 1;
    while (end < kSubclusters && kindOf(e, static_cast<unsigned>(end)) == run.kind) ++end;
    run.length = std::min(run.length, end * sub - inside);
  }
  return run;
}

int Qcow2Image::findEntry(std::uint64_t offset, L2Entry& e) {
  std::uint64_t table = l1_[l1Index(offset)] & entry::offsetMask;
  e = {};
  if (table == 0) return 0;
  std::uint64_t at = table + l2Index(offset) * header_.l2EntryBytes();
  Slice* slice = cache_.find(at);
  if (!slice) return kNotCached;
  e = entryIn(*slice, at, header_.extendedL2());
  return 0;
}

int Qcow2Image::loadEntry(std::uint64_t offset, L2Entry& e) {
  std::uint64_t table = l1_[l1Index(offset)] & entry::offsetMask;
  e = {};
  if (table == 0) return 0;
  if ((table & (clusterBytes_ - 1)) != 0 || hitsMetadata(table, cluster())) {
    corrupted("L2 table out of place");
    return EIO;
  }
  Slice* slice = nullptr;
  std::uint64_t at = table + l2Index(offset) * header_.l2EntryBytes();
  if (int error = cache_.load(at, TableKind::mapping, slice); error != 0) return error;
  e = entryIn(*slice, at, header_.extendedL2());
  return 0;
}

int Qcow2Image::findRun(std::uint64_t offset, std::uint64_t length, Run& run) {
  std::uint64_t l1 = l1Index(offset);
  if (l1 >= l1_.size() || (l1_[l1] & entry::offsetMask) == 0) {
    std::uint64_t span = clusterBytes_ << l2Bits_;
    run = {.length = std::min(length, span - (offset & (span - 1)))};
    return 0;
  }
  L2Entry e;
  if (int error = findEntry(offset, e); error != 0) return error;
  run = runOf(e, offset, length);
  if (run.kind == Run::Kind::compressed) return 0;
  if (run.hasHost && (hostOf(e) & (clusterBytes_ - 1)) != 0) {
    corrupted("cluster out of place");
    return EIO;
  }
  // What follows in the file as on the disk belongs to the run. A table that is not in memory ends it.
  while (run.length < length) {
    std::uint64_t next = offset + run.length;
    if ((next & (clusterBytes_ - 1)) != 0 || l1Index(next) != l1 || findEntry(next, e) != 0) break;
    Run more = runOf(e, next, length - run.length);
    if (more.kind != run.kind || more.copied != run.copied || more.hasHost != run.hasHost) break;
    if (run.hasHost && more.host != run.host + run.length) break;
    run.length += more.length;
  }
  return 0;
}

int Qcow2Image::map(std::uint64_t offset, std::uint64_t length, Run& run, unsigned* ticket, bool forWriting) {
  for (;;) {
    {
      std::shared_lock lock(mutex_);
      int error = findRun(offset, length, run);
      if (error == 0 && forWriting && run.hasHost && !dataFile_ && hitsMetadata(run.host, run.length)) {
        corrupted("a cluster of the disk lies on the image's own tables");
        return EIO;
      }
      if (error == 0 && ticket) *ticket = enter();
      if (error != kNotCached) return error;
    }
    std::unique_lock lock(mutex_);
    L2Entry e;
    int error = loadEntry(offset, e);
    lock.unlock();
    if (error == EAGAIN) error = flushMetadata();
    if (error != 0) return error;
  }
}

int Qcow2Image::readCompressed(const Run& run, std::uint64_t offset, std::span<std::byte> to) {
  std::uint64_t inside = offset & (clusterBytes_ - 1);
  {
    std::lock_guard lock(decodedMutex_);
    if (decodedOffset_ == run.host && decoded_) {
      std::memcpy(to.data(), decoded_->data() + inside, to.size());
      return 0;
    }
  }
  thread_local std::vector<std::byte> stored;
  stored.resize(run.storedBytes);
  if (int error = file_->read(run.host, stored.data(), stored.size()); error != 0) return error;
  if (to.size() == clusterBytes_) {
    int error = decompress(header_.compression, stored, to);
    if (error == EIO) corrupted("compressed cluster that cannot be decoded");
    return error;
  }
  auto whole = std::make_shared<std::vector<std::byte>>(clusterBytes_);
  if (int error = decompress(header_.compression, stored, *whole); error != 0) {
    if (error == EIO) corrupted("compressed cluster that cannot be decoded");
    return error;
  }
  std::memcpy(to.data(), whole->data() + inside, to.size());
  std::lock_guard lock(decodedMutex_);
  decodedOffset_ = run.host;
  decoded_ = std::move(whole);
  return 0;
}

int Qcow2Image::readBacking(std::uint64_t offset, VectorCursor& to, std::uint64_t length) {
  std::uint64_t there = backing_ && offset < backing_->size() ? std::min(length, backing_->size() - offset) : 0;
  if (there != 0) {
    if (int error = backing_->read(offset, to.take(there)); error != 0) return error;
  }
  to.zero(length - there);
  return 0;
}

int Qcow2Image::readRuns(std::uint64_t offset, std::span<const iovec> to) {
  VectorCursor cursor(to);
  for (std::uint64_t left = totalBytes(to); left != 0;) {
    Run run;
    unsigned ticket = 0;
    int error = map(offset, left, run, &ticket);
    if (error != 0) return error;
    switch (run.kind) {
      case Run::Kind::unallocated:
        error = readBacking(offset, cursor, run.length);
        break;
      case Run::Kind::zero:
        cursor.zero(run.length);
        break;
      case Run::Kind::data:
        error = dataFile().readv(run.host, cursor.take(run.length));
        break;
      case Run::Kind::compressed: {
        std::span<const iovec> piece = cursor.take(run.length);
        if (piece.size() == 1) {
          error = readCompressed(run, offset, {static_cast<std::byte*>(piece[0].iov_base), piece[0].iov_len});
          break;
        }
        std::vector<std::byte> whole(run.length);
        error = readCompressed(run, offset, whole);
        VectorCursor(piece).copyIn(whole.data(), whole.size());
        break;
      }
    }
    leave(ticket);
    if (error != 0) return error;
    offset += run.length;
    left -= run.length;
  }
  return 0;
}

int Qcow2Image::read(std::uint64_t offset, std::span<const iovec> to) {
  return readRuns(offset, to);
}

int Qcow2Image::tryRead(std::uint64_t offset, std::span<const iovec> to) {
  std::shared_lock lock(mutex_, std::try_to_lock);
  if (!lock) return EAGAIN;
  std::uint64_t length = totalBytes(to);
  Run run;
  if (findRun(offset, length, run) != 0 || run.length < length) return EAGAIN;
  if (run.kind == Run::Kind::data) return dataFile().tryReadv(run.host, to);
  if (run.kind != Run::Kind::zero && (run.kind != Run::Kind::unallocated || backing_)) return EAGAIN;
  VectorCursor(to).zero(length);
  return 0;
}

void Qcow2Image::findHole(const Run& run, BlockStatus& status) {
  BlockFile& file = dataFile();
  std::uint64_t end = file.size();
  if (sparse_ < 0) sparse_ = file.allocatedBytes() < end - end / 10 ? 1 : 0;
  if (sparse_ == 0) return;
  bool beyond = run.host >= end;
  BlockFile::Extent extent =
      beyond ? BlockFile::Extent{run.length, true} : file.extent(run.host, std::min(run.length, end - run.host));
  status.length = extent.length;
  status.hole = extent.hole;
  if (extent.hole) status.kind = BlockStatus::Kind::zero;
}

int Qcow2Image::blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) {
  Run run;
  if (int error = map(offset, length, run, nullptr); error != 0) return error;
  // Clusters in a row need not follow each other in the file to be of one kind.
  status = {.length = run.length};
  switch (run.kind) {
    case Run::Kind::unallocated:
      status.kind = BlockStatus::Kind::unallocated;
      break;
    case Run::Kind::zero:
      status.kind = BlockStatus::Kind::zero;
      if (run.hasHost) status.hostOffset = run.host;
      status.file = &dataFile();
      break;
    case Run::Kind::data:
      status.kind = BlockStatus::Kind::data;
      status.hostOffset = run.host;
      status.file = &dataFile();
      findHole(run, status);
      break;
    case Run::Kind::compressed:
      status.kind = BlockStatus::Kind::data;
      status.compressed = true;
      break;
  }
  return 0;
}

}  // namespace lodge::image::qcow2
