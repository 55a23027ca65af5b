// SPDX-License-Identifier: Apache-2.0
// Internal snapshots. These calls have the image to themselves. Each takes effect by one write of the header, before
// which the new state is counted and on the disk, and after which the old one is counted down.
#include <algorithm>
#include <cerrno>
#include <ctime>

#include "base/bytes.h"
#include "base/text.h"
#include "image/qcow2_image.h"

namespace lodge::image::qcow2 {

namespace {

Status failed(int error, const std::string& what) {
  if (error == 0) return {};
  if (error == EOVERFLOW)
    return Error(ErrorKind::unsupported, what + ": the refcounts are too narrow for another snapshot")
        .withHint("convert the image with a larger refcount_bits");
  return Error::fromErrno(error, what);
}

}  // namespace

/// Names come first where it is about deleting, ids otherwise: as QEMU does.
std::size_t Qcow2Image::findSnapshot(const std::string& idOrName, bool nameFirst) const {
  auto by = [&](auto field) {
    return static_cast<std::size_t>(std::find_if(snapshots_.begin(), snapshots_.end(), field) - snapshots_.begin());
  };
  std::size_t id = by([&](const Snapshot& s) { return s.about.id == idOrName; });
  std::size_t name = by([&](const Snapshot& s) { return s.about.name == idOrName; });
  if (nameFirst) std::swap(id, name);
  return id != snapshots_.size() ? id : name;
}

/// Counts all that a tree of tables leads to up, or down later.
int Qcow2Image::changeTree(const std::vector<std::uint64_t>& l1, int change) {
  for (std::size_t i = 0; i < l1.size(); ++i) {
    std::uint64_t table = l1[i] & entry::offsetMask;
    if (table == 0) continue;
    {
      std::unique_lock lock(mutex_);
      for (std::uint64_t at = 0; at < cluster(); at += header_.l2EntryBytes()) {
        Slice* slice = nullptr;
        if (int error = cache_.load(table + at, TableKind::mapping, slice); error != 0) return error;
        L2Entry e = entryIn(*slice, table + at, header_.extendedL2());
        if (change < 0) {
          freeEntry(e);
          continue;
        }
        Run run;
        if ((e.word & entry::compressed) != 0)
          describeCompressed(e, run);
        else if (hasHost(e))
          run.host = hostOf(e), run.storedBytes = static_cast<std::uint32_t>(cluster());
        if (int error = addRefcount(run.host, run.storedBytes, change); error != 0) return error;
      }
      if (change < 0) {
        freeLater(table, cluster());
      } else if (int error = addRefcount(table, cluster(), change); error != 0) {
        return error;
      }
    }
    if (int error = relieve(); error != 0) return error;
  }
  return 0;
}

/// The flags of the active tables that say whether a cluster is used by them alone.
int Qcow2Image::refreshCopied() {
  for (std::size_t i = 0; i < l1_.size(); ++i) {
    {
      std::unique_lock lock(mutex_);
      std::uint64_t table = l1_[i] & entry::offsetMask, count = 0;
      if (table == 0) continue;
      if (int error = refcount(table / cluster(), count); error != 0) return error;
      std::uint64_t word = table | (count == 1 ? entry::copied : 0);
      if (word != l1_[i]) setL1(i, word);
      for (std::uint64_t at = 0; at < cluster(); at += header_.l2EntryBytes()) {
        Slice* slice = nullptr;
        if (int error = cache_.load(table + at, TableKind::mapping, slice); error != 0) return error;
        L2Entry e = entryIn(*slice, table + at, header_.extendedL2());
        if (!hasHost(e)) continue;
        if (int error = refcount(hostOf(e) / cluster(), count); error != 0) return error;
        std::uint64_t wanted = (e.word & ~entry::copied) | (count == 1 ? entry::copied : 0);
        if (wanted == e.word) continue;
        // Looking at the refcount may have moved the slice out of memory.
        if (int error = cache_.load(table + at, TableKind::mapping, slice); error != 0) return error;
        storeLe(slice->bytes.data() + (table + at - slice->offset), __builtin_bswap64(wanted));
        cache_.markDirty(*slice);
      }
    }
    if (int error = relieve(); error != 0) return error;
  }
  return flushMetadata();
}

Status Qcow2Image::storeSnapshots(std::vector<Snapshot> snapshots) {
  std::vector<std::byte> table = packSnapshots(snapshots);
  std::uint64_t host = 0, oldOffset = header_.snapshotsOffset, oldBytes = packSnapshots(snapshots_).size();
  if (!table.empty()) {
    std::unique_lock lock(mutex_);
    int error = allocateRow(clusterUp(table.size()) / cluster(), host);
    if (error == 0) error = file_->write(host, table.data(), table.size());
    if (error != 0) return failed(error, "write the snapshot table");
  }
  if (int error = flushMetadata(); error != 0) return failed(error, "write the snapshot table");
  header_.snapshotsOffset = host;
  header_.snapshotCount = static_cast<std::uint32_t>(snapshots.size());
  if (Status stored = storeHeader(); !stored) return stored;
  if (int error = file_->flush(); error != 0) return failed(error, "write the header");
  std::unique_lock lock(mutex_);
  if (!snapshots_.empty()) freeLater(oldOffset, clusterUp(oldBytes));
  snapshots_ = std::move(snapshots);
  return {};
}

Status Qcow2Image::createSnapshot(const std::string& name) {
  std::string what = "snapshot " + inQuotes(name);
  if (readOnly_) return Error(ErrorKind::permissionDenied, what + ": the image is open read-only");
  if (dataFile_) return Error(ErrorKind::unsupported, what + ": images with an external data file have none");
  if (snapshots_.size() >= kMaxSnapshots) return Error(ErrorKind::unsupported, what + ": there are too many");
  if (name.size() > 0xffff) return Error(ErrorKind::invalidArgument, what + ": the name is too long");
  std::uint64_t id = 0;
  for (const Snapshot& s : snapshots_) {
    if (s.about.name == name)
      return Error(ErrorKind::alreadyExists, what + " exists").withHint("delete it first, or take another name");
    if (auto number = parseNumber(s.about.id)) id = std::max(id, *number);
  }
  if (int error = flushAll(); error != 0) return failed(error, what);
  Snapshot s;
  s.about = {.id = std::to_string(id + 1), .name = name, .diskBytes = size()};
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  s.about.unixSeconds = static_cast<std::uint64_t>(now.tv_sec);
  s.about.nanoseconds = static_cast<std::uint32_t>(now.tv_nsec);
  s.l1Entries = header_.l1Entries;
  std::vector<std::uint64_t> l1 = l1_;
  for (std::uint64_t& word : l1) word &= entry::offsetMask;
  {
    std::unique_lock lock(mutex_);
    if (int error = l1.empty() ? 0 : allocateRow(clusterUp(l1.size() * 8) / cluster(), s.l1Offset); error != 0)
      return failed(error, what);
  }
  // Counts first, then the flags that go with them: a write in place could otherwise reach into the snapshot.
  int error = changeTree(l1, 1);
  if (error == 0) error = flushMetadata();
  if (error == 0) error = refreshCopied();
  if (error == 0 && !l1.empty()) error = writeTable(s.l1Offset, l1);
  if (error == 0) error = file_->flush();
  if (error != 0) return failed(error, what);
  std::vector<Snapshot> all = snapshots_;
  all.push_back(std::move(s));
  Status stored = storeSnapshots(std::move(all));
  if (!stored) return std::move(stored).error().context(what);
  return failed(flushAll(), what);
}

Status Qcow2Image::deleteSnapshot(const std::string& idOrName) {
  std::string what = "delete snapshot " + inQuotes(idOrName);
  if (readOnly_) return Error(ErrorKind::permissionDenied, what + ": the image is open read-only");
  std::size_t index = findSnapshot(idOrName, true);
  if (index == snapshots_.size()) return Error(ErrorKind::notFound, what + ": there is none");
  if (int error = flushAll(); error != 0) return failed(error, what);
  Snapshot gone = snapshots_[index];
  std::vector<std::uint64_t> l1;
  if (Status read = readTable(gone.l1Offset, gone.l1Entries, l1); !read) return std::move(read).error().context(what);
  std::vector<Snapshot> rest = snapshots_;
  rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(index));
  if (Status stored = storeSnapshots(std::move(rest)); !stored) return std::move(stored).error().context(what);
  int error = changeTree(l1, -1);
  {
    std::unique_lock lock(mutex_);
    freeLater(gone.l1Offset, clusterUp(std::uint64_t{gone.l1Entries} * 8));
  }
  if (error == 0) error = flushAll();
  if (error == 0) error = refreshCopied();
  return failed(error, what);
}

Status Qcow2Image::applySnapshot(const std::string& idOrName) {
  std::string what = "go back to snapshot " + inQuotes(idOrName);
  if (readOnly_) return Error(ErrorKind::permissionDenied, what + ": the image is open read-only");
  std::size_t index = findSnapshot(idOrName);
  if (index == snapshots_.size()) return Error(ErrorKind::notFound, what + ": there is none");
  const Snapshot& s = snapshots_[index];
  if (header_.version == 2 && s.about.diskBytes != size())
    return Error(ErrorKind::unsupported, what + ": the disk had another size then, which version 2 does not keep");
  std::uint64_t before = size();
  bool resizes = s.about.diskBytes != before;
  if (int error = noteChange(0, before); error != 0) return failed(error, what);
  if (Status begun = resizes ? bitmapStore_.beginResize() : Status(); !begun)
    return std::move(begun).error().context(what);
  Status done = switchTo(s, what);
  if (Status ended = resizes ? bitmapStore_.endResize(before) : Status(); done && !ended)
    done = std::move(ended).error().context(what);
  if (int error = resizes ? noteChange(0, size()) : 0; done && error != 0) return failed(error, what);
  return done;
}

/// Makes a snapshot's tables the active ones.
Status Qcow2Image::switchTo(const Snapshot& s, const std::string& what) {
  if (int error = flushAll(); error != 0) return failed(error, what);
  std::vector<std::uint64_t> l1, old = l1_;
  if (Status read = readTable(s.l1Offset, s.l1Entries, l1); !read) return std::move(read).error().context(what);
  for (std::uint64_t& word : l1) word &= entry::offsetMask;
  if (l1.size() < (s.about.diskBytes + header_.bytesPerL2() - 1) / header_.bytesPerL2())
    return Error(ErrorKind::corrupt, what + ": its L1 table is too small");
  std::uint64_t host = 0;
  int error = changeTree(l1, 1);
  if (error == 0 && !l1.empty()) {
    std::unique_lock lock(mutex_);
    error = allocateRow(clusterUp(l1.size() * 8) / cluster(), host);
    if (error == 0) error = writeTable(host, l1);
  }
  if (error == 0) error = flushMetadata();
  if (error != 0) return failed(error, what);
  std::uint64_t oldOffset = header_.l1Offset, oldBytes = std::uint64_t{header_.l1Entries} * 8;
  header_.l1Offset = host;
  header_.l1Entries = static_cast<std::uint32_t>(l1.size());
  size_ = s.about.diskBytes;
  l1_ = std::move(l1);
  if (Status stored = storeHeader(); !stored) return std::move(stored).error().context(what);
  if (error = file_->flush(); error != 0) return failed(error, what);
  error = changeTree(old, -1);
  freeLater(oldOffset, clusterUp(oldBytes));
  if (error == 0) error = flushAll();
  if (error == 0) error = refreshCopied();
  return failed(error, what);
}

Status Qcow2Image::makeEmpty() {
  std::string what = "empty the image";
  if (readOnly_) return Error(ErrorKind::permissionDenied, what + ": it is open read-only");
  if (header_.rawDataFile()) return Error(ErrorKind::unsupported, what + ": it has a raw data file");
  if (int error = flushAll(); error != 0) return failed(error, what);
  std::vector<std::uint64_t> old = l1_;
  {
    std::unique_lock lock(mutex_);
    for (std::size_t i = 0; i < l1_.size(); ++i) {
      if (l1_[i] != 0) setL1(i, 0);
    }
  }
  int error = changeTree(old, -1);
  return failed(error == 0 ? flushAll() : error, what);
}

}  // namespace lodge::image::qcow2
