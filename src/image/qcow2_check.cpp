// SPDX-License-Identifier: Apache-2.0
// Counts what the tables lead to, and compares that with the refcounts that the image keeps.
#include <algorithm>
#include <array>
#include <cerrno>
#include <unordered_map>
#include <unordered_set>

#include "base/bytes.h"
#include "base/text.h"
#include "image/qcow2_image.h"

namespace lodge::image::qcow2 {

/// How often each cluster is led to; memory in proportion to what is.
class Counts {
 public:
  static constexpr std::uint64_t kPage = 512;
  using Page = std::array<std::uint8_t, kPage>;

  void add(std::uint64_t index) {
    auto& page = pages_[index / kPage];
    if (!page) page = std::make_unique<Page>();
    std::uint8_t& count = (*page)[index % kPage];
    if (count < 0xff)
      ++count;
    else
      ++many_[index];
    end_ = std::max(end_, index + 1);
  }
  std::uint64_t at(std::uint64_t index) const {
    auto it = pages_.find(index / kPage);
    if (it == pages_.end()) return 0;
    std::uint64_t count = (*it->second)[index % kPage];
    if (count < 0xff) return count;
    auto more = many_.find(index);
    return more == many_.end() ? count : count + more->second;
  }
  std::uint64_t end() const { return end_; }
  Counts() = default;
  Counts(const Counts& other) : many_(other.many_), end_(other.end_) {
    for (const auto& [key, page] : other.pages_) pages_[key] = std::make_unique<Page>(*page);
  }
  Counts& operator=(Counts&& other) = default;
  Counts(Counts&& other) = default;
  std::vector<std::uint64_t> pages() const {
    std::vector<std::uint64_t> all;
    for (const auto& [page, content] : pages_) all.push_back(page);
    std::sort(all.begin(), all.end());
    return all;
  }

 private:
  std::unordered_map<std::uint64_t, std::unique_ptr<Page>> pages_;
  std::unordered_map<std::uint64_t, std::uint64_t> many_;
  std::uint64_t end_ = 0;
};

class Checker {
 public:
  Checker(Qcow2Image& image, Repair repair) : image_(image), header_(image.header_), repair_(repair) {}

  Result<CheckResult> run() {
    fileBytes_ = image_.file_->size();
    add(0, image_.cluster(), "header");
    walkL1(image_.l1_, header_.l1Offset, "active L1 table", true);
    walkSnapshots();
    countBitmaps();
    unsigned refcountErrors = 0;
    countRefcountTables(refcountErrors);
    compare(refcountErrors);
    std::uint64_t flags = checkCopied(false);
    result_.corruptions += flags;
    result_.leaks += idleFlags_;
    result_.totalClusters = (image_.size() + image_.cluster() - 1) / image_.cluster();
    result_.imageEnd = counts_.end() * image_.cluster();
    if (repair_ != Repair::none) {
      if (Status fixed = fix(refcountErrors, flags); !fixed) return std::move(fixed).error();
    }
    return std::move(result_);
  }

 private:
  void corruption(std::string text) {
    ++result_.corruptions;
    result_.note("ERROR " + std::move(text));
  }

  /// False: the place cannot be.
  bool add(std::uint64_t offset, std::uint64_t bytes, std::string_view what) {
    if (bytes == 0) return true;
    std::uint64_t cluster = image_.cluster();
    // The last cluster of the file need not be there as a whole.
    if (offset + bytes < offset || offset + bytes > fileBytes_ + cluster) {
      corruption(fmt::format("{} at 0x{:x} lies beyond the end of the file", what, offset));
      return false;
    }
    for (std::uint64_t i = offset / cluster; i <= (offset + bytes - 1) / cluster; ++i) counts_.add(i);
    return true;
  }

  void walkL1(const std::vector<std::uint64_t>& l1, std::uint64_t offset, const std::string& name, bool active) {
    if (!l1.empty() && !add(offset, l1.size() * 8, name)) return;
    std::unordered_set<std::uint64_t> seen;
    for (std::size_t i = 0; i < l1.size(); ++i) {
      std::uint64_t table = l1[i] & entry::offsetMask;
      if (table == 0) continue;
      std::string what = fmt::format("L2 table {} of the {}", i, name);
      bool good = true;
      if (table % image_.cluster() != 0) {
        corruption(fmt::format("{} is not on a cluster: 0x{:x}", what, table));
        good = false;
      } else if (!seen.insert(table).second) {
        corruption(fmt::format("{} is another one, too: 0x{:x}", what, table));
      } else if (add(table, image_.cluster(), what)) {
        walkL2(table, i, what, active);
        continue;
      } else {
        good = false;
      }
      if (!good && active) badL1_.push_back(i);
    }
  }

  void walkL2(std::uint64_t table, std::uint64_t l1Index, const std::string& what, bool active) {
    std::vector<std::uint8_t> bytes(image_.cluster());
    if (image_.file_->read(table, bytes.data(), bytes.size()) != 0) {
      ++result_.checkErrors;
      result_.note("ERROR " + what + " cannot be read");
      return;
    }
    std::uint64_t next = 0;
    for (std::size_t at = 0; at < bytes.size(); at += header_.l2EntryBytes()) {
      L2Entry e{loadBe<std::uint64_t>(bytes.data() + at), 0};
      if (header_.extendedL2()) e.bitmap = loadBe<std::uint64_t>(bytes.data() + at + 8);
      if (e.word == 0 && e.bitmap == 0) continue;
      if (!countEntry(e, fmt::format("cluster {} of {}", at / header_.l2EntryBytes(), what), active, next) && active)
        badL2_.push_back((l1Index << image_.l2Bits_ | at / header_.l2EntryBytes()) << header_.clusterBits);
    }
  }

  bool countEntry(const L2Entry& e, const std::string& what, bool active, std::uint64_t& next) {
    if ((e.word & entry::compressed) != 0) {
      Run run;
      image_.describeCompressed(e, run);
      if (active) ++result_.allocatedClusters, ++result_.compressedClusters, ++result_.fragmentedClusters;
      if (header_.hasDataFile()) return corruption(what + " is compressed, although there is a data file"), false;
      return add(run.host, run.storedBytes, what);
    }
    std::uint64_t host = e.word & entry::offsetMask;
    if (header_.extendedL2() && (e.bitmap & e.bitmap >> 32 & 0xffffffff) != 0)
      return corruption(what + " has subclusters that are both zero and allocated"), false;
    if (host % image_.cluster() != 0)
      return corruption(fmt::format("{} is not on a cluster: 0x{:x}", what, host)), false;
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
    if (!snapshots->empty()) add(header_.snapshotsOffset, tableBytes, "snapshot table");
    for (const Snapshot& s : *snapshots) {
      std::vector<std::uint64_t> l1;
      if (!image_.readTable(s.l1Offset, s.l1Entries, l1)) {
        ++result_.checkErrors;
        continue;
      }
      walkL1(l1, s.l1Offset, "L1 table of snapshot " + inQuotes(s.about.name), false);
    }
  }

  void countBitmaps() {
    auto bitmaps = readBitmaps(*image_.file_, header_);
    if (!bitmaps) return corruption(bitmaps.error().message());
    if (bitmaps->empty()) return;
    std::string data = header_.extensionText(extension::bitmaps);
    add(loadBe<std::uint64_t>(data.data() + 16), loadBe<std::uint64_t>(data.data() + 8), "bitmap directory");
    for (const Bitmap& bitmap : *bitmaps) {
      std::vector<std::uint64_t> table;
      std::string what = "bitmap " + inQuotes(bitmap.name);
      if (bitmap.tableEntries > kMaxL1Bytes / 8 ||
          !add(bitmap.tableOffset, std::uint64_t{bitmap.tableEntries} * 8, what))
        continue;
      if (!image_.readTable(bitmap.tableOffset, bitmap.tableEntries, table)) continue;
      for (std::uint64_t word : table) {
        if (std::uint64_t host = word & entry::offsetMask) add(host, image_.cluster(), what);
      }
    }
  }

  void countRefcountTables(unsigned& errors) {
    plain_ = Counts(counts_);
    std::uint64_t cluster = image_.cluster();
    add(header_.refTableOffset, header_.refTableClusters * cluster, "refcount table");
    for (std::size_t i = 0; i < image_.refTable_.size(); ++i) {
      std::uint64_t block = image_.refTable_[i];
      if (block == 0) continue;
      std::string what = fmt::format("refcount block {}", i);
      if (block % cluster != 0) {
        corruption(fmt::format("{} is not on a cluster: 0x{:x}", what, block));
      } else if (!blocks_.insert(block).second) {
        corruption(fmt::format("{} is another one, too: 0x{:x}", what, block));
      } else if (add(block, cluster, what)) {
        continue;
      }
      ++errors;
      badBlocks_.insert(i);
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
        corruption(std::move(text));
      } else {
        ++result_.leaks;
        leaks_.push_back(index);
        result_.note("Leaked " + text);
      }
    };
    std::unique_lock lock(image_.mutex_);
    for (std::size_t b = 0; b < image_.refTable_.size(); ++b) {
      if (image_.refTable_[b] == 0 || badBlocks_.count(b) != 0) continue;
      for (std::uint64_t i = b * perBlock; i < (b + 1) * perBlock; ++i) {
        std::uint64_t kept = 0;
        if (image_.refcount(i, kept) != 0) {
          ++result_.checkErrors;
          break;
        }
        look(i, kept);
      }
    }
    for (std::uint64_t page : counts_.pages()) {
      for (std::uint64_t i = page * Counts::kPage; i < (page + 1) * Counts::kPage; ++i) {
        std::uint64_t b = i / perBlock;
        if (b >= image_.refTable_.size() || image_.refTable_[b] == 0 || badBlocks_.count(b) != 0) look(i, 0);
      }
    }
  }

  /// Flags of sole use where a cluster is shared: the next write would reach too far. The other way round costs but a
  /// copy, as a leak does: a crash while a snapshot is made leaves that. `repair`: sets them right.
  std::uint64_t checkCopied(bool repair) {
    std::uint64_t wrong = 0;
    std::unique_lock lock(image_.mutex_);
    for (std::size_t i = 0; i < image_.l1_.size(); ++i) {
      std::uint64_t table = image_.l1_[i] & entry::offsetMask;
      if (table == 0 || table % image_.cluster() != 0 || table >= fileBytes_) continue;
      bool alone = counts_.at(table / image_.cluster()) == 1;
      if (((image_.l1_[i] & entry::copied) != 0) != alone) {
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
    for (std::uint64_t at = table; at < table + image_.cluster(); at += header_.l2EntryBytes()) {
      Slice* slice = nullptr;
      if (image_.cache_.load(at, TableKind::mapping, slice) != 0) return wrong;
      L2Entry e = Qcow2Image::entryIn(*slice, at, header_.extendedL2());
      std::uint64_t host = e.word & entry::offsetMask;
      if ((e.word & entry::compressed) != 0 || host == 0) continue;
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
      if (Status rebuilt = rebuild(); !rebuilt) return rebuilt;
      result_.corruptionsFixed += badL1_.size() + badL2_.size() + refcountErrors;
      result_.leaksFixed += leaks_.size();
    } else if (refcountErrors == 0) {
      for (std::uint64_t index : leaks_) {
        std::unique_lock lock(image_.mutex_);
        if (error == 0) error = image_.setRefcount(index, counts_.at(index));
        lock.unlock();
        if (error == 0) error = image_.relieve();
        if (error == 0) ++result_.leaksFixed;
      }
    }
    if (error == 0 && (flags == 0 ? idleFlags_ != 0 : repair_ == Repair::all)) {
      std::vector<std::string> said = result_.messages;
      std::uint64_t idle = std::exchange(idleFlags_, 0);
      checkCopied(true);
      result_.messages = std::move(said);
      result_.corruptionsFixed += flags;
      result_.leaksFixed += idle;
    }
    if (error == 0) error = image_.settle();
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
    std::uint64_t start = std::max(plain_.end(), (fileBytes_ + cluster - 1) / cluster), next = start;
    std::unordered_map<std::uint64_t, std::uint64_t> placed;
    std::vector<std::uint64_t> table;
    auto need = [&](std::uint64_t index) {
      if (placed.try_emplace(index / perBlock, 0).second) return true;
      return false;
    };
    for (std::uint64_t page : plain_.pages()) {
      for (std::uint64_t i = page * Counts::kPage; i < (page + 1) * Counts::kPage; ++i) {
        if (plain_.at(i) != 0) need(i);
      }
    }
    // The blocks and the table count themselves.
    std::uint64_t tableClusters = 1, end = 0;
    for (std::uint64_t before = ~std::uint64_t{0}; before != placed.size() + tableClusters;) {
      before = placed.size() + tableClusters;
      end = start + placed.size() + tableClusters;
      for (std::uint64_t i = start; i < end; ++i) need(i);
      std::uint64_t last = 0;
      for (const auto& [block, host] : placed) last = std::max(last, block);
      tableClusters = std::max(tableClusters, ((last + 1) * 8 + cluster - 1) / cluster);
    }
    if (tableClusters * cluster > std::max(kMaxRefTableBytes, cluster))
      return Error(ErrorKind::corrupt, "the image is too large to be counted");
    for (std::uint64_t i = start; i < end; ++i) plain_.add(i);
    table.resize(tableClusters * cluster / 8);
    for (auto& [block, host] : placed) {
      host = next++ * cluster;
      table[block] = host;
    }
    {
      std::unique_lock lock(image_.mutex_);
      if (int error = installTables(table, next, tableClusters); error != 0)
        return Error::fromErrno(error, "count anew");
    }
    counts_ = Counts(plain_);
    return {};
  }

  int installTables(const std::vector<std::uint64_t>& table, std::uint64_t tableIndex, std::uint64_t tableClusters) {
    std::uint64_t cluster = image_.cluster(), perBlock = image_.refcountsPerBlock();
    image_.refTable_ = table;
    image_.dirtyRefTable_.clear();
    image_.freed_.clear();
    for (std::size_t b = 0; b < table.size(); ++b) {
      if (table[b] == 0) continue;
      if (int error = image_.clearCluster(table[b]); error != 0) return error;
      for (std::uint64_t i = b * perBlock; i < (b + 1) * perBlock; ++i) {
        std::uint64_t count = plain_.at(i);
        if (count == 0) continue;
        if (int error = image_.setRefcount(i, count); error != 0) return error;
      }
      auto copies = image_.cache_.takeDirty();
      int error = 0;
      for (const auto& copy : copies) {
        if (error == 0) error = image_.file_->write(copy.offset, copy.bytes.data(), copy.bytes.size());
      }
      image_.cache_.endWriting(copies, error != 0);
      if (error != 0) return error;
    }
    if (int error = image_.writeTable(tableIndex * cluster, table); error != 0) return error;
    if (int error = image_.file_->flush(); error != 0) return error;
    header_.refTableOffset = tableIndex * cluster;
    header_.refTableClusters = static_cast<std::uint32_t>(tableClusters);
    image_.nextFree_ = 0;
    image_.freshFrom_ = std::max(image_.freshFrom_, (tableIndex + tableClusters) * cluster);
    if (!image_.storeHeader()) return EIO;
    return image_.file_->flush();
  }

  Qcow2Image& image_;
  Header& header_;
  Repair repair_;
  std::uint64_t fileBytes_ = 0;
  CheckResult result_;
  std::uint64_t idleFlags_ = 0;
  Counts counts_, plain_;  // plain: without the refcount tables
  std::vector<std::size_t> badL1_;
  std::vector<std::uint64_t> badL2_, leaks_;
  std::unordered_set<std::uint64_t> blocks_;
  std::unordered_set<std::size_t> badBlocks_;
};

Result<CheckResult> Qcow2Image::check(Repair repair) {
  if (repair != Repair::none && readOnly_) return Error(ErrorKind::permissionDenied, "repair: open read-only");
  if (!readOnly_) {
    if (int error = settle(); error != 0) return Error::fromErrno(error, "write metadata");
  } else if (refTable_.empty() && reloadRefcountTable() != 0) {
    return Error(ErrorKind::io, "read the refcount table");
  }
  return Checker(*this, repair).run();
}

}  // namespace lodge::image::qcow2
