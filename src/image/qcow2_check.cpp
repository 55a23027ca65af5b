// SPDX-License-Identifier: Apache-2.0
// Counts what the tables lead to, and compares that with the refcounts that the image keeps.
#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/bytes.h"
#include "base/text.h"
#include "image/qcow2_counts.h"
#include "image/qcow2_image.h"

namespace lodge::image::qcow2 {

class Checker {
 public:
  Checker(Qcow2Image& image, Repair repair) : image_(image), header_(image.header_), repair_(repair) {}

  Result<CheckResult> run() {
    fileBytes_ = image_.file_->size();
    // Entries that are looked at, of what the file can hold: each of them many times over, for snapshots that share
    // tables and for very large images; tables that lie in holes of the file, or are led to again and again, end it.
    std::uint64_t allocated = std::min(fileBytes_, image_.file_->allocatedBytes());
    sparse_ = allocated < fileBytes_;
    workLeft_ = kLeastWork + allocated / 8 * kWorkPerEntry;
    steps_ = image_.l1_.size() * 2;  // their tables are looked at twice; more often if the image is very large
    unsigned refcountErrors = 0;
    std::uint64_t flags = 0;
    // Of a very large image one part of the file after the other; each time all tables are walked.
    forWindows([&](bool first) {
      quiet_ = !first;
      countReferences();
      countRefcountTables(refcountErrors);
      quiet_ = false;
      compare(refcountErrors);
      flags += checkCopied(false);
      return 0;
    });
    if (cancelled_) return Error(ErrorKind::interrupted, "interrupted");
    if (exhausted()) return tooMuch();
    steps_ = 0;  // what comes goes on to its end
    result_.corruptions += flags;
    result_.leaks += idleFlags_;
    result_.totalClusters = (image_.size() + image_.cluster() - 1) / image_.cluster();
    result_.imageEnd = counts_.end() * image_.cluster();
    quiet_ = true;                  // from here on the tables are walked to repair
    workLeft_ = ~std::uint64_t{0};  // and always to the end
    if (repair_ != Repair::none) {
      if (Status fixed = fix(refcountErrors, flags); !fixed) return std::move(fixed).error();
    }
    return std::move(result_);
  }
  /// There was more to repair than is remembered at a time.
  bool unfinished() const { return moreBad_; }

 private:
  static constexpr std::size_t kMostBad = 1u << 20;
  static constexpr std::uint64_t kLeastWork = 200'000'000, kWorkPerEntry = 64;

  bool exhausted() const { return workLeft_ == 0 || cancelled_; }
  /// A table more was looked at.
  void step() {
    if (steps_ == 0 || !image_.progress()) return;
    done_ = std::min(done_ + 1, steps_);
    std::uint64_t bytes = header_.bytesPerL2() / 2;  // of the disk, each step
    cancelled_ = cancelled_ || !image_.progress()(done_ * bytes, steps_ * bytes);
  }
  void spend(std::uint64_t entries) { workLeft_ -= std::min(workLeft_, entries); }
  /// Whether a table lies in a hole of the file: it is empty, and need not be read.
  bool inHole(std::uint64_t table) {
    std::uint64_t end = table + image_.cluster();
    if (table >= holeFrom_ && end <= holeTo_) return true;
    if (!sparse_ || table >= fileBytes_) return false;
    BlockFile::Extent extent = image_.file_->extent(table, fileBytes_ - table);
    if (!extent.hole) return false;
    holeFrom_ = table;
    holeTo_ = table + extent.length;
    return end <= holeTo_;
  }
  static Error tooMuch() {
    return Error(ErrorKind::corrupt, "the tables lead to far more than the file holds: the check is given up");
  }

  template <class Work>
  int forWindows(Work work) {
    std::uint64_t from = 0;
    for (bool first = true; from != Counts::kAll; first = false) {
      counts_.begin(from);
      if (int error = work(first); error != 0) return error;
      if (exhausted()) return EFBIG;
      from = counts_.to();
    }
    return 0;
  }

  void corruption(const std::string& text) {
    if (quiet_) return;
    ++result_.corruptions;
    result_.note("ERROR " + text);
  }
  void unreadable(const std::string& what) {
    if (quiet_) return;
    ++result_.checkErrors;
    result_.note("ERROR " + what + " cannot be read");
  }
  template <class T>
  void remember(std::vector<T>& bad, T which) {
    if (quiet_) return;
    if (bad.size() < kMostBad)
      bad.push_back(which);
    else
      moreBad_ = true;
  }

  /// False: the place cannot be. `what` is made into words only where there is something to say.
  template <class What>
  bool add(std::uint64_t offset, std::uint64_t bytes, What what) {
    if (bytes == 0) return true;
    std::uint64_t cluster = image_.cluster();
    // The last cluster of the file need not be there as a whole.
    if (offset + bytes < offset || offset + bytes > fileBytes_ + cluster) {
      if (!quiet_) corruption(fmt::format("{} at 0x{:x} lies beyond the end of the file", what(), offset));
      return false;
    }
    std::uint64_t first = offset / cluster, last = (offset + bytes - 1) / cluster;
    spend(last - first + 1);
    for (std::uint64_t i = first; i <= last && !exhausted(); ++i) counts_.add(i);
    return true;
  }

  void countReferences() {
    add(0, image_.cluster(), [] { return "header"; });
    walkL1(image_.l1_, header_.l1Offset, "active L1 table", true);
    walkSnapshots();
    countBitmaps();
  }

  /// Places that a table has more than once, ascending.
  std::vector<std::uint64_t> repeated(const std::vector<std::uint64_t>& table) const {
    std::vector<std::uint64_t> all;
    all.reserve(table.size());
    for (std::uint64_t word : table) {
      if ((word & entry::offsetMask) != 0) all.push_back(word & entry::offsetMask);
    }
    std::sort(all.begin(), all.end());
    auto end = all.begin();
    for (std::size_t i = 1; i < all.size(); ++i) {
      if (all[i] == all[i - 1] && (end == all.begin() || *std::prev(end) != all[i])) *end++ = all[i];
    }
    all.erase(end, all.end());
    return all;
  }
  /// Whether the place is one of those, and was seen before.
  static bool seenBefore(const std::vector<std::uint64_t>& places, std::vector<bool>& seen, std::uint64_t place) {
    auto it = std::lower_bound(places.begin(), places.end(), place);
    if (it == places.end() || *it != place) return false;
    seen.resize(places.size());
    auto index = static_cast<std::size_t>(it - places.begin());
    bool before = seen[index];
    seen[index] = true;
    return before;
  }

  void walkL1(const std::vector<std::uint64_t>& l1, std::uint64_t offset, const std::string& name, bool active) {
    if (!l1.empty() && !add(offset, l1.size() * 8, [&] { return name; })) return;
    spend(l1.size());
    std::vector<std::uint64_t> twice = repeated(l1);
    std::vector<bool> seen;
    for (std::size_t i = 0; i < l1.size() && !exhausted(); ++i) {
      if (active) step();
      std::uint64_t table = l1[i] & entry::offsetMask;
      if (table == 0) continue;
      auto what = [&] { return fmt::format("L2 table {} of the {}", i, name); };
      bool good = true;
      if (table % image_.cluster() != 0) {
        corruption(fmt::format("{} is not on a cluster: 0x{:x}", what(), table));
        good = false;
      } else if (seenBefore(twice, seen, table)) {
        corruption(fmt::format("{} is another one, too: 0x{:x}", what(), table));
      } else if (add(table, image_.cluster(), what)) {
        walkL2(table, i, what, active);
        continue;
      } else {
        good = false;
      }
      if (!good && active) remember(badL1_, i);
    }
  }

  template <class What>
  void walkL2(std::uint64_t table, std::uint64_t l1Index, What what, bool active) {
    spend(image_.cluster() / header_.l2EntryBytes());
    if (inHole(table)) return;
    table_.resize(image_.cluster());
    if (image_.file_->read(table, table_.data(), table_.size()) != 0) return unreadable(what());
    std::uint64_t next = 0;
    for (std::size_t at = 0; at < table_.size(); at += header_.l2EntryBytes()) {
      L2Entry e{loadBe<std::uint64_t>(table_.data() + at), 0};
      if (header_.extendedL2()) e.bitmap = loadBe<std::uint64_t>(table_.data() + at + 8);
      if (e.word == 0 && e.bitmap == 0) continue;
      std::uint64_t number = at / header_.l2EntryBytes();
      bool good = countEntry(
          e, [&] { return fmt::format("cluster {} of {}", number, what()); }, active, next);
      if (!good && active) remember(badL2_, (l1Index << image_.l2Bits_ | number) << header_.clusterBits);
    }
  }

  template <class What>
  bool countEntry(const L2Entry& e, What what, bool active, std::uint64_t& next) {
    active = active && !quiet_;
    if ((e.word & entry::compressed) != 0) {
      Run run;
      image_.describeCompressed(e, run);
      if (active) ++result_.allocatedClusters, ++result_.compressedClusters, ++result_.fragmentedClusters;
      if (header_.hasDataFile()) return corruption(what() + " is compressed, although there is a data file"), false;
      return add(run.host, run.storedBytes, what);
    }
    std::uint64_t host = e.word & entry::offsetMask;
    if (header_.extendedL2() && (e.bitmap & e.bitmap >> 32 & 0xffffffff) != 0)
      return corruption(what() + " has subclusters that are both zero and allocated"), false;
    if (host % image_.cluster() != 0)
      return corruption(fmt::format("{} is not on a cluster: 0x{:x}", what(), host)), false;
    if (host == 0 || header_.hasDataFile()) return true;
    if (active) {
      ++result_.allocatedClusters;
      if (next != 0 && host != next) ++result_.fragmentedClusters;
      next = host + image_.cluster();
    }
    return add(host, image_.cluster(), what);
  }

  void walkSnapshots() {
    std::uint64_t tableBytes = 0;
    auto snapshots = readSnapshots(*image_.file_, header_, tableBytes);
    if (!snapshots) return corruption(snapshots.error().message());
    if (!snapshots->empty()) add(header_.snapshotsOffset, tableBytes, [] { return "snapshot table"; });
    for (const Snapshot& s : *snapshots) {
      if (exhausted()) return;
      std::vector<std::uint64_t> l1;
      if (!image_.readTable(s.l1Offset, s.l1Entries, l1)) {
        unreadable("L1 table of snapshot " + inQuotes(s.about.name));
        continue;
      }
      walkL1(l1, s.l1Offset, "L1 table of snapshot " + inQuotes(s.about.name), false);
    }
  }

  void countBitmaps() {
    auto directory = readBitmapDirectory(*image_.file_, header_);
    if (!directory) return corruption(directory.error().message());
    if (directory->bitmaps.empty()) return;
    add(directory->offset, directory->bytes, [] { return "bitmap directory"; });
    for (const Bitmap& bitmap : directory->bitmaps) {
      std::vector<std::uint64_t> table;
      auto what = [&] { return "bitmap " + inQuotes(bitmap.name); };
      if (bitmap.tableEntries > kMaxL1Bytes / 8 ||
          !add(bitmap.tableOffset, std::uint64_t{bitmap.tableEntries} * 8, what))
        continue;
      if (!image_.readTable(bitmap.tableOffset, bitmap.tableEntries, table)) continue;
      spend(table.size());
      for (std::uint64_t word : table) {
        if (exhausted()) return;
        if (std::uint64_t host = word & entry::offsetMask) add(host, image_.cluster(), what);
      }
    }
  }

  void countRefcountTables(unsigned& errors) {
    std::uint64_t cluster = image_.cluster();
    add(header_.refTableOffset, header_.refTableClusters * cluster, [] { return "refcount table"; });
    badBlocks_.resize(image_.refTable_.size());
    std::vector<std::uint64_t> twice = repeated(image_.refTable_);
    std::vector<bool> seen;
    for (std::size_t i = 0; i < image_.refTable_.size(); ++i) {
      std::uint64_t block = image_.refTable_[i];
      if (block == 0) continue;
      auto what = [&] { return fmt::format("refcount block {}", i); };
      if (block % cluster != 0) {
        corruption(fmt::format("{} is not on a cluster: 0x{:x}", what(), block));
      } else if (seenBefore(twice, seen, block)) {
        corruption(fmt::format("{} is another one, too: 0x{:x}", what(), block));
      } else if (add(block, cluster, what)) {
        continue;
      }
      if (!quiet_) ++errors;
      badBlocks_[i] = true;
    }
  }

  /// Calls look(cluster, kept count) for what the refcount blocks count within the window.
  template <class Look>
  void forKept(Look look) {
    std::uint64_t perBlock = image_.refcountsPerBlock();
    for (std::size_t b = counts_.from() / perBlock; b < image_.refTable_.size() && b * perBlock < counts_.to(); ++b) {
      if (image_.refTable_[b] == 0 || badBlocks_[b]) continue;
      std::uint64_t end = std::min((b + 1) * perBlock, counts_.to());
      spend(perBlock);
      if (exhausted()) return;
      for (std::uint64_t i = std::max(b * perBlock, counts_.from()); i < end; ++i) {
        std::uint64_t kept = 0;
        if (image_.refcount(i, kept) != 0) {
          ++result_.checkErrors;
          break;
        }
        look(i, kept);
      }
    }
  }

  void compare(unsigned& errors) {
    std::uint64_t perBlock = image_.refcountsPerBlock();
    auto look = [&](std::uint64_t index, std::uint64_t kept) {
      std::uint64_t counted = counts_.at(index);
      if (kept == counted) return;
      std::string text = fmt::format("cluster {}: refcount {}, {} references", index, kept, counted);
      if (kept < counted) {
        ++errors;
        corruption(text);
      } else {
        ++result_.leaks;
        ++leaks_;
        result_.note("Leaked " + text);
      }
    };
    std::unique_lock lock(image_.mutex_);
    forKept(look);
    for (std::uint64_t page : counts_.pages()) {
      spend(Counts::kPage);
      if (exhausted()) return;
      for (std::uint64_t i = page * Counts::kPage; i < (page + 1) * Counts::kPage; ++i) {
        std::uint64_t b = i / perBlock;
        bool notCounted = b >= image_.refTable_.size() || image_.refTable_[b] == 0 || badBlocks_[b];
        if (notCounted && counts_.has(i)) look(i, 0);
      }
    }
  }

  /// Flags of sole use where a cluster is shared: the next write would reach too far. The other way round costs but a
  /// copy, as a leak does: a crash while a snapshot is made leaves that. `repair`: sets them right.
  std::uint64_t checkCopied(bool repair) {
    std::uint64_t wrong = 0;
    std::unique_lock lock(image_.mutex_);
    for (std::size_t i = 0; i < image_.l1_.size() && !exhausted(); ++i) {
      if (!repair) step();
      std::uint64_t table = image_.l1_[i] & entry::offsetMask;
      if (table == 0 || table % image_.cluster() != 0 || table >= fileBytes_) continue;
      bool alone = counts_.at(table / image_.cluster()) == 1;
      if (((image_.l1_[i] & entry::copied) != 0) != alone && counts_.has(table / image_.cluster())) {
        ++(alone ? idleFlags_ : wrong);
        result_.note(fmt::format("{} L1 entry {}: the flag of sole use is wrong", alone ? "Leaked" : "ERROR", i));
        if (repair) image_.setL1(i, table | (alone ? entry::copied : 0));
      }
      if (!header_.hasDataFile()) wrong += checkCopiedIn(table, repair);
      if (image_.cache_.dirtyCount() < SliceCache::kMaxSlices / 4) continue;
      lock.unlock();
      if (image_.flushMetadata() != 0) ++result_.checkErrors;
      lock.lock();
    }
    return wrong;
  }

  std::uint64_t checkCopiedIn(std::uint64_t table, bool repair) {
    std::uint64_t wrong = 0;
    spend(image_.cluster() / header_.l2EntryBytes());
    if (inHole(table)) return wrong;
    for (std::uint64_t at = table; at < table + image_.cluster(); at += header_.l2EntryBytes()) {
      Slice* slice = nullptr;
      if (image_.cache_.load(at, TableKind::mapping, slice) != 0) return wrong;
      L2Entry e = Qcow2Image::entryIn(*slice, at, header_.extendedL2());
      std::uint64_t host = e.word & entry::offsetMask;
      if ((e.word & entry::compressed) != 0 || host == 0 || !counts_.has(host / image_.cluster())) continue;
      bool alone = counts_.at(host / image_.cluster()) == 1;
      if (((e.word & entry::copied) != 0) == alone) continue;
      ++(alone ? idleFlags_ : wrong);
      result_.note(
          fmt::format("{} cluster at 0x{:x}: the flag of sole use is wrong", alone ? "Leaked" : "ERROR", host));
      if (!repair) continue;
      storeLe(slice->bytes.data() + (at - slice->offset), __builtin_bswap64(e.word ^ entry::copied));
      image_.cache_.markDirty(*slice);
    }
    return wrong;
  }

  Status fix(unsigned refcountErrors, std::uint64_t flags) {
    int error = 0;
    bool structure = !badL1_.empty() || !badL2_.empty();
    if (repair_ == Repair::all && (structure || refcountErrors != 0)) {
      dropBadEntries();
      result_.corruptionsFixed += badL1_.size() + badL2_.size();
      if (moreBad_) {
        if (error = image_.flushAll(); error != 0) return Error::fromErrno(error, "repair");
        return {};
      }
      if (Status rebuilt = rebuild(); !rebuilt) return rebuilt;
      result_.corruptionsFixed += refcountErrors;
      result_.leaksFixed += leaks_;
    } else if (refcountErrors == 0 && leaks_ != 0) {
      error = forWindows([&](bool) {
        unsigned ignored = 0;
        countReferences();
        countRefcountTables(ignored);
        return lowerCounts();
      });
    }
    if (error == 0 && (flags == 0 ? idleFlags_ != 0 : repair_ == Repair::all)) {
      std::vector<std::string> said = result_.messages;
      std::uint64_t idle = std::exchange(idleFlags_, 0);
      forWindows([&](bool) {
        countReferences();
        checkCopied(true);
        return 0;
      });
      result_.messages = std::move(said);
      result_.corruptionsFixed += flags;
      result_.leaksFixed += idle;
    }
    if (error == 0) error = image_.flushAll();
    if (error != 0) return Error::fromErrno(error, "repair");
    result_.corruptions -= std::min(result_.corruptions, result_.corruptionsFixed);
    result_.leaks -= std::min(result_.leaks, result_.leaksFixed);
    if (repair_ == Repair::all && result_.corruptions == 0 &&
        (header_.incompatible & (incompatible::dirty | incompatible::corrupt)) != 0) {
      header_.incompatible &= ~(incompatible::dirty | incompatible::corrupt);
      return image_.storeHeader();
    }
    return {};
  }

  /// What counts too much in the window is set right.
  int lowerCounts() {
    int error = 0;
    std::vector<std::uint64_t> high;
    auto lower = [&] {
      for (std::uint64_t index : high) {
        std::unique_lock lock(image_.mutex_);
        if (error == 0) error = image_.setRefcount(index, counts_.at(index));
        lock.unlock();
        if (error == 0) error = image_.relieve();
        if (error == 0) ++result_.leaksFixed;
      }
    };
    do {
      high.clear();
      {
        std::unique_lock lock(image_.mutex_);
        forKept([&](std::uint64_t index, std::uint64_t kept) {
          if (kept > counts_.at(index) && high.size() < kMostBad) high.push_back(index);
        });
      }
      lower();
    } while (error == 0 && high.size() == kMostBad);
    return error;
  }

  /// Entries that lead nowhere read as zero from now on.
  void dropBadEntries() {
    for (std::size_t i : badL1_) image_.noteChange(i * header_.bytesPerL2(), header_.bytesPerL2());
    for (std::uint64_t offset : badL2_) image_.noteChange(offset, image_.cluster());
    std::unique_lock lock(image_.mutex_);
    for (std::size_t i : badL1_) image_.setL1(i, 0);
    for (std::uint64_t offset : badL2_) {
      L2Entry zero{header_.version >= 3 && !header_.extendedL2() ? entry::zero : 0,
                   header_.extendedL2() ? std::uint64_t{0xffffffff} << 32 : 0};
      image_.setEntry(offset, zero);
    }
  }

  /// A new refcount table and new blocks, after all that is in use.
  Status rebuild() {
    std::uint64_t cluster = image_.cluster(), perBlock = image_.refcountsPerBlock();
    std::uint64_t mostEntries = std::max(kMaxRefTableBytes, cluster) / 8;
    std::vector<std::uint64_t> table;  // first: 1 for blocks that are needed
    std::size_t placed = 0;
    bool tooLarge = false;
    auto need = [&](std::uint64_t index) {
      std::uint64_t block = index / perBlock;
      if (block >= mostEntries) return void(tooLarge = true);
      if (block >= table.size()) table.resize(block + 1);
      placed += table[block] == 0 ? 1 : 0;
      table[block] = 1;
    };
    forWindows([&](bool) {
      countReferences();
      for (std::uint64_t page : counts_.pages()) {
        for (std::uint64_t i = page * Counts::kPage; i < (page + 1) * Counts::kPage && !tooLarge; ++i) {
          if (counts_.at(i) != 0) need(i);
        }
      }
      return 0;
    });
    std::uint64_t start = std::max(counts_.end(), (fileBytes_ + cluster - 1) / cluster);
    // The blocks and the table count themselves.
    std::uint64_t tableClusters = 1, end = 0;
    for (std::uint64_t before = ~std::uint64_t{0}; before != placed + tableClusters && !tooLarge;) {
      before = placed + tableClusters;
      end = start + placed + tableClusters;
      for (std::uint64_t i = start; i < end && !tooLarge; ++i) need(i);
      tableClusters = std::max(tableClusters, (table.size() * 8 + cluster - 1) / cluster);
    }
    if (tooLarge || tableClusters * cluster > std::max(kMaxRefTableBytes, cluster))
      return Error(ErrorKind::corrupt, "the image is too large to be counted");
    std::uint64_t next = start;
    table.resize(tableClusters * cluster / 8);
    for (std::uint64_t& block : table) {
      if (block != 0) block = next++ * cluster;
    }
    if (int error = installTables(table, start, next, tableClusters); error != 0)
      return Error::fromErrno(error, "count anew");
    return {};
  }

  /// The blocks lie from `start` on, the table behind them.
  int installTables(const std::vector<std::uint64_t>& table, std::uint64_t start, std::uint64_t tableIndex,
                    std::uint64_t tableClusters) {
    std::uint64_t cluster = image_.cluster();
    std::unique_lock lock(image_.mutex_);
    image_.refTable_ = table;
    image_.dirtyRefTable_.clear();
    image_.freed_.clear();
    for (std::uint64_t block : table) {
      if (int error = block == 0 ? 0 : image_.clearCluster(block); error != 0) return error;
    }
    int error = forWindows([&](bool) {
      countReferences();
      for (std::uint64_t i = start; i < tableIndex + tableClusters; ++i) counts_.add(i);
      return storeCounts();
    });
    if (error == 0) error = image_.writeTable(tableIndex * cluster, table);
    if (error == 0) error = image_.file_->flush();
    if (error != 0) return error;
    header_.refTableOffset = tableIndex * cluster;
    header_.refTableClusters = static_cast<std::uint32_t>(tableClusters);
    image_.nextFree_ = 0;
    image_.freshFrom_ = std::max(image_.freshFrom_, (tableIndex + tableClusters) * cluster);
    if (!image_.storeHeader()) return EIO;
    return image_.file_->flush();
  }

  /// The window's counts into the new blocks; the lock is held.
  int storeCounts() {
    for (std::uint64_t page : counts_.pages()) {
      for (std::uint64_t i = page * Counts::kPage; i < (page + 1) * Counts::kPage; ++i) {
        std::uint64_t count = counts_.has(i) ? counts_.at(i) : 0;
        if (count == 0) continue;
        if (int error = image_.setRefcount(i, count); error != 0) return error;
      }
      if (image_.cache_.dirtyCount() < SliceCache::kMaxSlices / 4) continue;
      if (int error = writeSlices(); error != 0) return error;
    }
    return writeSlices();
  }
  int writeSlices() {
    auto copies = image_.cache_.takeDirty();
    int error = 0;
    for (const auto& copy : copies) {
      if (error == 0) error = image_.file_->write(copy.offset, copy.bytes.data(), copy.bytes.size());
    }
    image_.cache_.endWriting(copies, error != 0);
    return error;
  }

  Qcow2Image& image_;
  Header& header_;
  Repair repair_;
  std::uint64_t fileBytes_ = 0, workLeft_ = 0;
  std::uint64_t steps_ = 0, done_ = 0;  ///< how much there is to look at, and was; 0: progress is not told
  bool cancelled_ = false;
  bool sparse_ = false;
  std::uint64_t holeFrom_ = 0, holeTo_ = 0;  // of the file, as was seen last
  CheckResult result_;
  std::uint64_t idleFlags_ = 0, leaks_ = 0;
  bool quiet_ = false, moreBad_ = false;
  Counts counts_;
  std::vector<std::size_t> badL1_;
  std::vector<std::uint64_t> badL2_;
  std::vector<bool> badBlocks_;  // by the refcount table's entries
  std::vector<std::uint8_t> table_;
};

Result<CheckResult> Qcow2Image::check(Repair repair) {
  if (repair != Repair::none && readOnly_) return Error(ErrorKind::permissionDenied, "repair: open read-only");
  if (!readOnly_) {
    if (int error = flushAll(); error != 0) return Error::fromErrno(error, "write metadata");
  } else if (refTable_.empty() && reloadRefcountTable() != 0) {
    return Error(ErrorKind::io, "read the refcount table");
  }
  for (std::uint64_t fixed = 0;;) {
    Checker checker(*this, repair);
    auto result = checker.run();
    if (!result) return result;
    result->corruptionsFixed += std::exchange(fixed, fixed + result->corruptionsFixed);
    if (!checker.unfinished() || repair != Repair::all) return result;
  }
}

}  // namespace lodge::image::qcow2
