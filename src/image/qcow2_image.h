// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <shared_mutex>

#include "image/format.h"
#include "image/qcow2_bitmap_store.h"
#include "image/qcow2_bitmaps.h"
#include "image/qcow2_cache.h"
#include "image/qcow2_codec.h"
#include "image/qcow2_header.h"
#include "image/qcow2_snapshot_table.h"
#include "image/vectors.h"

namespace lodge::image::qcow2 {

/// What a piece of the disk is made of in this image.
struct Run {
  enum class Kind : std::uint8_t { unallocated, zero, data, compressed };
  Kind kind = Kind::unallocated;
  bool copied = false;            ///< the host clusters belong to this place alone: they may be written
  bool hasHost = false;           ///< clusters are reserved at `host` (a zero run may have some)
  std::uint64_t length = 0;       ///< bytes, at most what was asked for
  std::uint64_t host = 0;         ///< of the run's first byte; of a compressed cluster's first byte
  std::uint32_t storedBytes = 0;  ///< of a compressed cluster, at most
};

/// One L2 entry; `bitmap` is that of extended entries (low half: allocated, high half: zero).
struct L2Entry {
  std::uint64_t word = 0, bitmap = 0;
};

/// An open qcow2 image.
///
/// Locks: `mutex_` guards all metadata in memory, shared for looking, exclusive for changing. No file access but
/// loading a slice happens under it. Data is read and written outside, under a ticket (see Tickets), or by a pending
/// write.
///
/// Order of writes, which makes every instant safe to be killed at (flushMetadata): refcounts and cleared or copied
/// tables; sync; new entries of the refcount table; sync; L2 and L1 entries; sync; only then clusters that were dropped
/// are counted down and can be used again. So references never lead to clusters that the disk does not count, and at
/// worst clusters leak.
class Qcow2Image final : public Image {
 public:
  static Result<std::unique_ptr<Image>> open(const OpenContext& context);
  ~Qcow2Image() override;

  std::uint64_t size() const override { return size_.load(std::memory_order_relaxed); }
  bool readOnly() const override { return readOnly_; }
  Image* backing() const override { return backing_.get(); }
  int read(std::uint64_t offset, std::span<const iovec> to) override;
  int write(std::uint64_t offset, std::span<const iovec> from) override;
  int flush() override;
  int settle() override;
  int discard(std::uint64_t offset, std::uint64_t length) override;
  int writeZeroes(std::uint64_t offset, std::uint64_t length, bool mayUnmap) override;
  int blockStatus(std::uint64_t offset, std::uint64_t length, BlockStatus& status) override;
  int tryRead(std::uint64_t offset, std::span<const iovec> to) override;
  int tryWrite(std::uint64_t offset, std::span<const iovec> from) override;
  bool lend(std::uint64_t offset, std::span<const iovec> vectors, bool writing, Loan& loan) override;
  void giveBack(const Loan& loan) override { leave(loan.ticket); }

  Result<ImageInfo> info() override;
  Status resize(std::uint64_t newBytes, Preallocation preallocation) override;
  Result<CheckResult> check(Repair repair) override;
  BitmapStore* bitmaps() override { return &bitmapStore_; }
  Status createSnapshot(const std::string& name) override;
  Status applySnapshot(const std::string& idOrName) override;
  Status deleteSnapshot(const std::string& idOrName) override;
  Status changeBacking(const std::string& name, const std::string& format) override;
  Status makeEmpty() override;
  Result<std::unique_ptr<StreamWriter>> streamWriter() override;

 private:
  friend class BitmapKeeper;
  friend class Checker;
  friend class Qcow2BitmapStore;
  friend class Qcow2StreamWriter;

  Qcow2Image(std::shared_ptr<BlockFile> file, Header header, const OpenContext& context);
  Status load(const OpenContext& context);
  Status loadL1(std::uint64_t offset, std::uint32_t entries);
  Status prepareWriting();
  /// The range's content may change: dirty bitmaps get to know.
  int noteChange(std::uint64_t offset, std::uint64_t length) { return bitmaps_ ? bitmaps_->mark(offset, length) : 0; }
  void corrupted(const std::string& what);

  // --- geometry
  std::uint64_t cluster() const { return clusterBytes_; }
  std::uint64_t clusterDown(std::uint64_t n) const { return n & ~(clusterBytes_ - 1); }
  std::uint64_t clusterUp(std::uint64_t n) const { return (n + clusterBytes_ - 1) & ~(clusterBytes_ - 1); }
  std::uint64_t subclusterBytes() const { return header_.extendedL2() ? clusterBytes_ / kSubclusters : clusterBytes_; }
  std::uint64_t l1Index(std::uint64_t offset) const { return offset >> (header_.clusterBits + l2Bits_); }
  std::uint64_t l2Index(std::uint64_t offset) const {
    return offset >> header_.clusterBits & ((std::uint64_t{1} << l2Bits_) - 1);
  }
  BlockFile& dataFile() const { return dataFile_ ? *dataFile_ : *file_; }

  // --- mapping (qcow2_map.cpp); the lock is held
  static constexpr int kNotCached = -1;
  static L2Entry entryIn(const Slice& slice, std::uint64_t offset, bool extended);
  Run::Kind kindOf(const L2Entry& entry, unsigned subcluster) const;
  std::uint64_t hostOf(const L2Entry& entry) const { return entry.word & entry::offsetMask; }
  bool hasHost(const L2Entry& entry) const;
  int findEntry(std::uint64_t offset, L2Entry& entry);  // kNotCached
  int loadEntry(std::uint64_t offset, L2Entry& entry);  // exclusive
  int findRun(std::uint64_t offset, std::uint64_t length, Run& run);
  Run runOf(const L2Entry& entry, std::uint64_t offset, std::uint64_t length) const;
  void describeCompressed(const L2Entry& entry, Run& run) const;
  /// Takes the lock itself, reads tables where needed; counts the caller in as a user of the run's clusters.
  int map(std::uint64_t offset, std::uint64_t length, Run& run, unsigned* ticket, bool forWriting = false);
  int readCompressed(const Run& run, std::uint64_t offset, std::span<std::byte> to);
  int readBacking(std::uint64_t offset, VectorCursor& to, std::uint64_t length);
  int readRuns(std::uint64_t offset, std::span<const iovec> to);
  /// Of a run of data: the file's holes are worth knowing where it has many (clusters reserved in advance).
  void findHole(const Run& run, BlockStatus& status);

  // --- users of clusters outside the lock: a cluster is used again only when those that knew it before are gone
  unsigned enter() { return users_[epoch_ & 1].fetch_add(1), epoch_ & 1; }
  void leave(unsigned ticket) {
    if (users_[ticket].fetch_sub(1) == 1) users_[ticket].notify_all();
  }

  // --- writing (qcow2_write.cpp)
  struct Pending {
    std::uint64_t begin, end;  // of the disk, whole clusters
  };
  /// How the clusters that a write needs come about; one plan has one way.
  enum class Way : std::uint8_t {
    reserved,  ///< they are there, but not (all) in use: zero clusters, subclusters
    fresh,     ///< new ones; of the old content nothing is in this image
    copy,      ///< new ones, and the old content of this image comes along as far as it is not overwritten
  };
  struct Plan {
    Way way = Way::fresh;
    std::uint64_t begin = 0, bytes = 0;  ///< the disk's whole clusters
    std::uint64_t host = 0;
    bool blank = false;  ///< beyond what the file ever held: reads as zero
    std::vector<L2Entry> old;
  };
  struct Range {
    std::uint64_t begin, end;
  };
  int writeNew(std::uint64_t offset, VectorCursor& from, std::uint64_t length, std::uint64_t& done);
  int plan(std::unique_lock<std::shared_mutex>& lock, std::uint64_t offset, std::uint64_t length, Plan& plan);
  Way wayOf(const L2Entry& entry) const;
  /// What is written: the data, widened to whole clusters or subclusters where the rest is not in use yet.
  Range widened(const Plan& plan, std::uint64_t offset, std::uint64_t length) const;
  int fill(const Plan& plan, std::uint64_t offset, std::span<const iovec> data, std::uint64_t length);
  int readEdge(const L2Entry& old, std::uint64_t offset, std::uint64_t length, bool blank,
               std::vector<std::byte>& edge);
  int link(const Plan& plan, Range written);
  void undo(const Plan& plan);
  void waitPending(std::unique_lock<std::shared_mutex>& lock, std::uint64_t begin, std::uint64_t end);
  void endPending(std::uint64_t begin);
  /// The table that maps the offset, alone in its use; made or copied where needed. Exclusive lock.
  int ownL2(std::uint64_t offset);
  int setEntry(std::uint64_t offset, const L2Entry& entry);
  void setL1(std::uint64_t index, std::uint64_t word);
  bool hitsMetadata(std::uint64_t host, std::uint64_t length) const;
  void freeEntry(const L2Entry& entry);

  // --- discard and zeroes (qcow2_discard.cpp)
  enum class Drop : std::uint8_t { discard, zeroUnmap, zeroKeep };
  int dropRange(std::uint64_t begin, std::uint64_t end, Drop how);
  int dropCluster(std::uint64_t offset, Drop how);
  int writeZeroBytes(std::uint64_t offset, std::uint64_t length);

  // --- refcounts (qcow2_refcounts.cpp); exclusive lock
  std::uint64_t refcountsPerBlock() const { return clusterBytes_ * 8 >> header_.refcountOrder; }
  std::uint64_t maxRefcount() const {
    return header_.refcountOrder == 6 ? ~std::uint64_t{0} : (std::uint64_t{1} << (1u << header_.refcountOrder)) - 1;
  }
  int refcount(std::uint64_t index, std::uint64_t& count);
  int setRefcount(std::uint64_t index, std::uint64_t count);
  int addRefcount(std::uint64_t offset, std::uint64_t bytes, int change);
  /// EIO if one of the image's tables lies in that cluster, which counts as free: it must not be given away.
  int expectNoTable(std::uint64_t index);
  /// Up to `want` clusters in a row, at least one; counted once.
  int allocate(std::uint64_t want, std::uint64_t& host, std::uint64_t& got, bool* fresh = nullptr);
  /// One, by a caller that does not hold the lock.
  int allocateOne(std::uint64_t& host);
  /// Exactly that many in a row.
  int allocateRow(std::uint64_t clusters, std::uint64_t& host);
  int findRow(std::uint64_t clusters, std::uint64_t& start, std::vector<std::uint64_t>& missing);
  int makeRefcountBlock(std::uint64_t index);
  int growRefcountTable(std::uint64_t atLeast);
  int clearCluster(std::uint64_t host);
  /// Counts the range down once nothing on disk leads there any more.
  void freeLater(std::uint64_t host, std::uint64_t bytes);
  int applyFrees(std::vector<std::pair<std::uint64_t, std::uint64_t>> freed);
  int reloadRefcountTable();

  // --- flushing (qcow2_flush.cpp)
  /// `lazily`: refcounts may stay in memory if the image has lazy ones.
  int flushMetadata(bool lazily = false);
  int markLazy();
  int endLazy();
  int writeStages(const std::vector<SliceCache::Copy>& copies,
                  const std::map<std::uint64_t, std::vector<std::uint8_t>>& refTable,
                  const std::map<std::uint64_t, std::vector<std::uint8_t>>& l1);
  int relieve();
  Status storeHeader();

  // --- tables in a row: L1s, snapshots (qcow2_resize.cpp, qcow2_snapshots.cpp)
  int writeTable(std::uint64_t offset, const std::vector<std::uint64_t>& words);
  Status readTable(std::uint64_t offset, std::uint64_t entries, std::vector<std::uint64_t>& words) const;
  int growL1(std::uint64_t entries);
  Status shrink(std::uint64_t newBytes);
  Status grow(std::uint64_t newBytes, Preallocation preallocation);
  int preallocate(std::uint64_t begin, std::uint64_t end, Preallocation preallocation);
  int preallocatePart(std::uint64_t begin, std::uint64_t end, Preallocation preallocation, std::uint64_t& done);
  Status storeSnapshots(std::vector<Snapshot> snapshots);
  std::size_t findSnapshot(const std::string& idOrName, bool nameFirst = false) const;
  Status switchTo(const Snapshot& snapshot, const std::string& what);
  int changeTree(const std::vector<std::uint64_t>& l1, int change);
  int refreshCopied();
  int flushAll();

  std::shared_ptr<BlockFile> file_, dataFile_;
  std::unique_ptr<Image> backing_;
  std::unique_ptr<BitmapKeeper> bitmaps_;
  Qcow2BitmapStore bitmapStore_{*this};
  Header header_;
  const std::uint64_t clusterBytes_;
  const unsigned l2Bits_;
  std::atomic<std::uint64_t> size_;
  bool readOnly_;
  std::atomic<bool> failed_{false};
  std::atomic<int> sparse_{-1};  // whether the data's file has holes worth looking for; -1: not known yet

  mutable std::shared_mutex mutex_;
  SliceCache cache_;
  std::vector<std::uint64_t> l1_;  // native byte order
  std::set<std::uint64_t> dirtyL1_;
  std::vector<std::uint64_t> refTable_;
  std::set<std::uint64_t> dirtyRefTable_;
  std::uint64_t nextFree_ = 0;   // no free cluster below this index
  std::uint64_t freshFrom_ = 0;  // file offset from which nothing was ever written
  /// Sorted: where the L2 tables and refcount blocks lay when a cluster within the old file was first taken.
  std::optional<std::vector<std::uint64_t>> oldTables_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> freed_;
  std::list<Pending> pending_;
  std::condition_variable_any pendingDone_;
  std::vector<Snapshot> snapshots_;

  std::mutex flushMutex_;
  bool lazyDirty_ = false;  // the header says that refcounts are out of date, by our hand
  std::atomic<unsigned> epoch_{0};
  std::array<std::atomic<unsigned>, 2> users_{};

  // The compressed cluster that was read last, for readers of small pieces.
  std::mutex decodedMutex_;
  std::uint64_t decodedOffset_ = ~std::uint64_t{0};
  std::shared_ptr<std::vector<std::byte>> decoded_;
};

}  // namespace lodge::image::qcow2
