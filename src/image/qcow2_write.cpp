// SPDX-License-Identifier: Apache-2.0
// Writing: in place where the clusters belong to the disk alone, else into new ones which are linked once they are
// full.
#include <algorithm>
#include <cerrno>

#include "base/bytes.h"
#include "image/qcow2_image.h"
#include "image/vectors.h"

namespace lodge::image::qcow2 {

namespace {

/// The most that one plan allocates at a time.
constexpr std::uint64_t kMaxPlanBytes = 4u << 20;

}  // namespace

bool Qcow2Image::hitsMetadata(std::uint64_t host, std::uint64_t length) const {
  auto overlaps = [&](std::uint64_t at, std::uint64_t bytes) { return host < at + bytes && at < host + length; };
  return overlaps(0, cluster()) || overlaps(header_.l1Offset, std::uint64_t{header_.l1Entries} * 8) ||
         overlaps(header_.refTableOffset, std::uint64_t{header_.refTableClusters} * cluster());
}

void Qcow2Image::waitPending(std::unique_lock<std::shared_mutex>& lock, std::uint64_t begin, std::uint64_t end) {
  pendingDone_.wait(lock, [&] {
    return std::none_of(pending_.begin(), pending_.end(),
                        [&](const Pending& p) { return p.begin < end && begin < p.end; });
  });
}

void Qcow2Image::endPending(std::uint64_t begin) {
  pending_.remove_if([&](const Pending& p) { return p.begin == begin; });
  pendingDone_.notify_all();
}

void Qcow2Image::setL1(std::uint64_t index, std::uint64_t word) {
  l1_[index] = word;
  dirtyL1_.insert(index);
}

int Qcow2Image::ownL2(std::uint64_t offset) {
  std::uint64_t index = l1Index(offset), old = l1_[index] & entry::offsetMask, host = 0, got = 0;
  if (old != 0 && (l1_[index] & entry::copied) != 0) return 0;
  bool blank = false;
  if (int error = allocate(1, host, got, &blank); error != 0) return error;
  int error = 0;
  if (old == 0) {
    if (!blank) error = clearCluster(host);
  } else {
    for (std::uint64_t at = 0; at < cluster() && error == 0; at += cache_.sliceBytes()) {
      Slice* slice = nullptr;
      error = cache_.load(old + at, TableKind::mapping, slice);
      if (error == 0) error = file_->write(host + at, slice->bytes.data(), slice->bytes.size());
    }
  }
  if (error != 0) {
    addRefcount(host, cluster(), -1);
    return error;
  }
  if (old != 0) freeLater(old, cluster());
  setL1(index, host | entry::copied);
  return 0;
}

int Qcow2Image::setEntry(std::uint64_t offset, const L2Entry& e) {
  std::uint64_t at = (l1_[l1Index(offset)] & entry::offsetMask) + l2Index(offset) * header_.l2EntryBytes();
  Slice* slice = nullptr;
  if (int error = cache_.load(at, TableKind::mapping, slice); error != 0) return error;
  std::uint8_t* p = slice->bytes.data() + (at - slice->offset);
  storeLe(p, __builtin_bswap64(e.word));
  if (header_.extendedL2()) storeLe(p + 8, __builtin_bswap64(e.bitmap));
  cache_.markDirty(*slice);
  return 0;
}

void Qcow2Image::freeEntry(const L2Entry& e) {
  if ((e.word & entry::compressed) != 0) {
    Run run;
    describeCompressed(e, run);
    freeLater(run.host, run.storedBytes);
  } else if (hasHost(e) && !dataFile_) {
    freeLater(hostOf(e), cluster());
  }
}

Qcow2Image::Way Qcow2Image::wayOf(const L2Entry& e) const {
  if ((e.word & entry::compressed) != 0) return Way::copy;
  if (hasHost(e) && (e.word & entry::copied) != 0) return Way::reserved;
  if (header_.extendedL2()) return static_cast<std::uint32_t>(e.bitmap) != 0 ? Way::copy : Way::fresh;
  return kindOf(e, 0) == Run::Kind::data ? Way::copy : Way::fresh;
}

int Qcow2Image::plan(std::unique_lock<std::shared_mutex>& lock, std::uint64_t offset, std::uint64_t length,
                     Plan& plan) {
  plan.begin = clusterDown(offset);
  std::uint64_t end = clusterUp(offset + length), table = cluster() << l2Bits_;
  end = std::min({end, plan.begin + std::max(kMaxPlanBytes, cluster()), (plan.begin / table + 1) * table});
  waitPending(lock, plan.begin, end);
  if (int error = ownL2(offset); error != 0) return error;
  std::uint64_t host = 0;
  for (std::uint64_t at = plan.begin; at < end; at += cluster()) {
    L2Entry e;
    if (int error = loadEntry(at, e); error != 0) return error;
    Way way = wayOf(e);
    if (plan.old.empty()) {
      plan.way = way;
      host = hostOf(e);
    } else if (way != plan.way || (way == Way::reserved && hostOf(e) != host + (at - plan.begin))) {
      break;
    }
    // Meanwhile somebody else may have brought about what is needed.
    if (way == Way::reserved && runOf(e, std::max(at, offset), 1).kind == Run::Kind::data && !header_.extendedL2())
      break;
    plan.old.push_back(e);
  }
  std::uint64_t clusters = plan.old.size(), got = clusters;
  if (clusters == 0) return 0;
  if (plan.way == Way::reserved) {
    plan.host = host;
    if (!dataFile_ && hitsMetadata(host, clusters * cluster())) return EIO;
  } else if (dataFile_) {
    plan.host = plan.begin;
  } else if (int error = allocate(clusters, plan.host, got, &plan.blank); error != 0) {
    return error;
  }
  plan.old.resize(got);
  plan.bytes = got * cluster();
  pending_.push_back({plan.begin, plan.begin + plan.bytes});
  return 0;
}

Qcow2Image::Range Qcow2Image::widened(const Plan& plan, std::uint64_t offset, std::uint64_t length) const {
  std::uint64_t unit = plan.way == Way::copy ? cluster() : subclusterBytes();
  Range r{offset & ~(unit - 1), (offset + length + unit - 1) & ~(unit - 1)};
  if (plan.way == Way::reserved && header_.extendedL2()) {
    // Subclusters in use may be written by others right now: no copies of theirs.
    auto inUse = [&](const L2Entry& e, std::uint64_t at) { return runOf(e, at, 1).kind == Run::Kind::data; };
    if (inUse(plan.old.front(), offset)) r.begin = offset;
    if (inUse(plan.old[(offset + length - 1 - plan.begin) / cluster()], offset + length - 1)) r.end = offset + length;
  }
  return r;
}

int Qcow2Image::readEdge(const L2Entry& old, std::uint64_t offset, std::uint64_t length, bool blank,
                         std::vector<std::byte>& edge) {
  if (length == 0) return 0;
  Run run = runOf(old, offset, length);
  bool zero = run.kind == Run::Kind::zero || (run.kind == Run::Kind::unallocated && !backing_);
  if (zero && run.length >= length) {
    if (!blank) edge.resize(length);
    return 0;
  }
  edge.resize(length);
  iovec v{edge.data(), offset < size() ? std::min(length, size() - offset) : 0};
  return v.iov_len == 0 ? 0 : readRuns(offset, {&v, 1});
}

int Qcow2Image::fill(const Plan& plan, std::uint64_t offset, std::span<const iovec> data, std::uint64_t length) {
  Range all = widened(plan, offset, length);
  std::uint64_t end = offset + length;
  // A raw data file ends where the disk does.
  if (header_.rawDataFile()) all.end = std::min(all.end, std::max(end, size()));
  std::vector<std::byte> head, tail;
  if (int error = readEdge(plan.old.front(), all.begin, offset - all.begin, plan.blank, head); error != 0) return error;
  const L2Entry& last = plan.old[(end - 1 - plan.begin) / cluster()];
  if (int error = readEdge(last, end, all.end - end, plan.blank, tail); error != 0) return error;
  std::uint64_t host = plan.host + (offset - plan.begin);
  if (head.empty() && tail.empty()) return dataFile().writev(host, data);
  std::vector<iovec> vectors;
  if (!head.empty()) vectors.push_back({head.data(), head.size()});
  vectors.insert(vectors.end(), data.begin(), data.end());
  if (!tail.empty()) vectors.push_back({tail.data(), tail.size()});
  return dataFile().writev(host - head.size(), vectors);
}

int Qcow2Image::link(const Plan& plan, Range written) {
  for (std::size_t i = 0; i < plan.old.size(); ++i) {
    std::uint64_t at = plan.begin + i * cluster();
    if (at >= written.end) break;
    L2Entry e{(plan.host + i * cluster()) | entry::copied, 0};
    if (header_.extendedL2()) {
      std::uint64_t sub = subclusterBytes();
      std::uint64_t from = (std::max(at, written.begin) - at) / sub;
      std::uint64_t to = (std::min(at + cluster(), written.end) - at + sub - 1) / sub;
      std::uint64_t bits = (to - from == kSubclusters ? 0xffffffffu : ((std::uint64_t{1} << (to - from)) - 1) << from);
      // The old bitmap still holds: whoever wants other subclusters of these clusters waits for this write.
      std::uint64_t before = (plan.old[i].word & entry::compressed) != 0 ? 0 : plan.old[i].bitmap;
      e.bitmap = (before | bits) & ~(bits << 32);
      if (plan.way == Way::copy) e.bitmap = 0xffffffff;
    }
    if (int error = setEntry(at, e); error != 0) return error;
    if (plan.way != Way::reserved) freeEntry(plan.old[i]);
  }
  return 0;
}

void Qcow2Image::undo(const Plan& plan) {
  if (plan.way != Way::reserved && !dataFile_) addRefcount(plan.host, plan.bytes, -1);
}

int Qcow2Image::writeNew(std::uint64_t offset, VectorCursor& from, std::uint64_t length, std::uint64_t& done) {
  Plan p;
  done = 0;
  {
    std::unique_lock lock(mutex_);
    int error = plan(lock, offset, length, p);
    if (error != 0) {
      lock.unlock();
      return error == EAGAIN ? flushMetadata() : error;
    }
    if (p.bytes == 0) return 0;
  }
  done = std::min(length, p.begin + p.bytes - offset);
  int error = fill(p, offset, from.take(done), done);
  std::unique_lock lock(mutex_);
  if (error == 0) error = link(p, widened(p, offset, done));
  if (error != 0) undo(p);
  endPending(p.begin);
  return error;
}

int Qcow2Image::write(std::uint64_t offset, std::span<const iovec> all) {
  if (readOnly_) return EROFS;
  VectorCursor cursor(all);
  if (int error = noteChange(offset, totalBytes(all)); error != 0) return error;
  for (std::uint64_t left = totalBytes(all); left != 0;) {
    Run run;
    unsigned ticket = 0;
    if (int error = map(offset, left, run, &ticket, true); error != 0) return error;
    std::uint64_t done = run.length;
    int error = 0;
    if (run.kind == Run::Kind::data && run.copied) {
      error = dataFile().writev(run.host, cursor.take(run.length));
      leave(ticket);
    } else {
      leave(ticket);
      error = writeNew(offset, cursor, left, done);
      if (error == 0) error = relieve();
    }
    if (error != 0) return error;
    offset += done;
    left -= done;
  }
  return 0;
}

int Qcow2Image::tryWrite(std::uint64_t offset, std::span<const iovec> from) {
  if (readOnly_ || bitmaps_) return EAGAIN;
  std::shared_lock lock(mutex_, std::try_to_lock);
  if (!lock) return EAGAIN;
  std::uint64_t length = totalBytes(from);
  Run run;
  if (findRun(offset, length, run) != 0 || run.length < length || run.kind != Run::Kind::data || !run.copied)
    return EAGAIN;
  if (!dataFile_ && hitsMetadata(run.host, run.length)) return EAGAIN;
  return dataFile().tryWritev(run.host, from);
}

bool Qcow2Image::lend(std::uint64_t offset, std::span<const iovec> vectors, bool writing, Loan& loan) {
  if (writing && (readOnly_ || bitmaps_)) return false;
  std::shared_lock lock(mutex_, std::try_to_lock);
  if (!lock) return false;
  std::uint64_t length = totalBytes(vectors);
  Run run;
  if (findRun(offset, length, run) != 0 || run.length < length || run.kind != Run::Kind::data) return false;
  if (writing && (!run.copied || (!dataFile_ && hitsMetadata(run.host, run.length)))) return false;
  loan.fd = dataFile().descriptor(run.host, vectors, loan.direct);
  loan.offset = run.host;
  if (loan.fd < 0) return false;
  loan.ticket = enter();
  return true;
}

}  // namespace lodge::image::qcow2
