// SPDX-License-Identifier: Apache-2.0
#include "image/mapped_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "base/units.h"

namespace lodge::image {

namespace {

class Check {
 public:
  Check(BlockTable& table, BlockFile& file, Repair repair, CheckResult& result, const Progress& progress)
      : table_(table), file_(file), repair_(repair), result_(result), progress_(progress) {}

  int run() {
    result_.totalClusters = table_.blocks();
    used_ = table_.tables();
    std::sort(used_.begin(), used_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    next_ = table_.endUnit();
    at_ = table_.firstUnit();
    // Of a table with very many blocks, one part of the file after the other.
    for (bool first = true; first || from_ < kAll; first = false) {
      to_ = kAll;
      units_.clear();
      shared_.clear();
      inTables_.clear();
      if (int error = collect(first); error != 0) return error == E2BIG ? 0 : error;
      findShared();
      if (!shared_.empty()) {
        if (int error = separate(); error != 0) return error;
      }
      if (int error = findUnused(); error != 0) return error;
      if (!units_.empty()) before_ = units_.back() + span();
      from_ = to_;
    }
    return 0;
  }

 private:
  static constexpr std::uint64_t kAll = std::uint64_t{1} << 32;
  static constexpr std::size_t kMostUnits = 16u << 20;  ///< 64 MiB

  std::uint64_t span() const { return table_.blockUnits(); }
  /// What has begun to repair goes on to its end.
  bool isCancelled(std::uint64_t block) {
    constexpr std::uint64_t kStep = 16384;
    if (!progress_ || block / kStep == reported_) return false;
    reported_ = block / kStep;
    std::uint64_t bytes = span() * table_.unitBytes();
    return !progress_(block * bytes, table_.blocks() * bytes) && repair_ == Repair::none;
  }

  int collect(bool first) {
    std::uint32_t last = BlockTable::kNone;
    std::uint64_t seen = 0;
    for (std::uint64_t block = table_.nextMapped(0); block < table_.blocks(); block = table_.nextMapped(block + 1)) {
      std::uint32_t unit = BlockTable::kNone;
      if (first && isCancelled(block)) return ECANCELED;
      if (table_.unitOf(block, unit) != 0) {
        if (first) ++result_.checkErrors;
        continue;
      }
      if (unit == BlockTable::kNone) continue;
      if (unit < table_.firstUnit() || unit >= std::max(table_.endUnit(), next_)) {
        if (int error = first ? outside(block, unit) : 0; error != 0) return error;
        continue;
      }
      if (first) {
        // No more blocks than there is room for, or some share theirs: a hostile table shall not take all time.
        if (seen++ > (table_.endUnit() - table_.firstUnit()) / span() + 4096) {
          ++result_.corruptions;
          result_.note("its table has more blocks than the file has room for; the check ends here");
          return E2BIG;
        }
        ++result_.allocatedClusters;
        if (last != BlockTable::kNone && unit != last + span()) ++result_.fragmentedClusters;
        last = unit;
      }
      if (unit < from_ || unit >= to_) continue;
      units_.push_back(unit);
      if (units_.size() >= kMostUnits) halve();
    }
    std::sort(units_.begin(), units_.end());
    return 0;
  }

  int outside(std::uint64_t block, std::uint32_t unit) {
    result_.note(fmt::format("block {} lies outside the file (offset {:#x})", block, unit * table_.unitBytes()));
    if (repair_ != Repair::all) {
      ++result_.corruptions;
      return 0;
    }
    ++result_.corruptionsFixed;
    return table_.setUnit(block, BlockTable::kNone);
  }

  /// Leaves what lies behind to another round. Of blocks in one place two are enough to know that they share it.
  void halve() {
    std::sort(units_.begin(), units_.end());
    std::size_t kept = 0;
    for (std::uint32_t unit : units_) {
      if (kept < 2 || units_[kept - 2] != unit) units_[kept++] = unit;
    }
    units_.resize(kept);
    if (kept < kMostUnits / 2) return;
    to_ = units_[kMostUnits / 4];
    units_.erase(std::lower_bound(units_.begin(), units_.end(), to_), units_.end());
  }

  void findShared() {
    if (!units_.empty() && units_.front() < before_) shared_.insert(units_.front());
    for (std::size_t i = 1; i < units_.size() && shared_.size() < CheckResult::kMaxMessages; ++i) {
      if (units_[i] < units_[i - 1] + span()) shared_.insert(units_[i]);
    }
    for (const BlockTable::Used& used : used_) {
      auto it = std::lower_bound(units_.begin(), units_.end(), used.first < span() ? 0 : used.first - span() + 1);
      for (; it != units_.end() && *it < used.end && shared_.size() < CheckResult::kMaxMessages; ++it) {
        inTables_.insert(*it);
        shared_.insert(*it);
      }
    }
  }

  /// Gives each later owner of a shared place a copy of its own.
  int separate() {
    std::set<std::uint32_t> owned;
    for (std::uint64_t block = table_.nextMapped(0); block < table_.blocks(); block = table_.nextMapped(block + 1)) {
      std::uint32_t unit = BlockTable::kNone;
      if (table_.unitOf(block, unit) != 0 || shared_.count(unit) == 0) continue;
      // A place that begins inside another block is never the first owner of it.
      bool first = inTables_.count(unit) == 0 && beginsClean(unit) && owned.insert(unit).second;
      if (first) continue;
      result_.note(
          fmt::format("block {} shares its place in the file (offset {:#x})", block, unit * table_.unitBytes()));
      if (repair_ != Repair::all) {
        ++result_.corruptions;
        continue;
      }
      // A few copies mend an accident; a table that shares all over is none, and shall not fill the host's disk.
      copied_ += span() * table_.unitBytes();
      if (copied_ > mostCopied_) {
        ++result_.corruptions;
        continue;
      }
      if (int error = copy(block, unit); error != 0) return error;
      ++result_.corruptionsFixed;
    }
    return 0;
  }

  bool beginsClean(std::uint32_t unit) const {
    auto it = std::lower_bound(units_.begin(), units_.end(), unit);
    return it == units_.begin() ? before_ <= unit : *std::prev(it) + span() <= unit;
  }

  int copy(std::uint64_t block, std::uint32_t from) {
    std::uint64_t bytes = span() * table_.unitBytes();
    std::vector<std::byte> buffer(std::min<std::uint64_t>(bytes, 1_MiB));
    for (std::uint64_t at = 0; at < bytes; at += buffer.size()) {
      std::size_t part = std::min<std::uint64_t>(buffer.size(), bytes - at);
      if (int error = file_.read(from * table_.unitBytes() + at, buffer.data(), part); error != 0) return error;
      if (int error = file_.write(next_ * table_.unitBytes() + at, buffer.data(), part); error != 0) return error;
    }
    if (next_ >= BlockTable::kNone) return EFBIG;
    auto to = static_cast<std::uint32_t>(next_);
    next_ += span();
    if (to < to_) units_.push_back(to);  // else another round finds it
    return table_.setUnit(block, to);
  }

  int findUnused() {
    std::sort(units_.begin(), units_.end());
    std::uint64_t end = std::max(table_.endUnit(), next_);
    auto tableIsNext = [&] { return nextUsed_ < used_.size() && used_[nextUsed_].first < to_; };
    for (auto unit = units_.begin(); unit != units_.end() || tableIsNext();) {
      bool takeTable = tableIsNext() && (unit == units_.end() || used_[nextUsed_].first <= *unit);
      std::uint64_t first = takeTable ? used_[nextUsed_].first : *unit;
      std::uint64_t after = takeTable ? used_[nextUsed_].end : *unit + span();
      if (takeTable)
        ++nextUsed_;
      else
        ++unit;
      if (first > at_) {
        if (int error = unused(at_, std::min(first, end), false); error != 0) return error;
      }
      at_ = std::max(at_, after);
    }
    if (to_ < kAll) return 0;
    if (at_ < end) {
      if (int error = unused(at_, end, true); error != 0) return error;
    }
    bool cut = at_ < end && repair_ != Repair::none;
    result_.imageEnd = (cut || at_ >= end ? at_ : end) * table_.unitBytes();
    return 0;
  }

  /// Space that no entry leads to. Holes take no room and are not spoken of, but the end of a file is cut off.
  int unused(std::uint64_t first, std::uint64_t end, bool last) {
    std::uint64_t from = first * table_.unitBytes(), to = std::min(end * table_.unitBytes(), file_.size());
    std::uint64_t bytes = 0;
    for (std::uint64_t at = from; at < to;) {
      BlockFile::Extent extent = file_.extent(at, to - at);
      if (!extent.hole) bytes += extent.length;
      at += std::max<std::uint64_t>(extent.length, 1);
    }
    std::uint64_t blockBytes = span() * table_.unitBytes();
    // Less than a block is alignment, not a leak.
    if (bytes == 0 || (to - from) < std::min<std::uint64_t>(blockBytes, 1_MiB)) return 0;
    std::uint64_t count = (bytes + blockBytes - 1) / blockBytes;
    result_.note(fmt::format("{} bytes at offset {:#x} are not used", bytes, from));
    if (repair_ == Repair::none) {
      result_.leaks += count;
      return 0;
    }
    result_.leaksFixed += count;
    return last ? 0 : file_.discard(from, to - from);
  }

  BlockTable& table_;
  BlockFile& file_;
  Repair repair_;
  CheckResult& result_;
  const Progress& progress_;
  std::uint64_t reported_ = ~std::uint64_t{0};
  std::vector<BlockTable::Used> used_;  ///< ascending
  std::size_t nextUsed_ = 0;
  std::uint64_t from_ = 0, to_ = kAll;  ///< the units that this round looks at
  std::vector<std::uint32_t> units_;    ///< where blocks of this round begin, ascending
  std::uint64_t before_ = 0;            ///< where the last block of the rounds before ends
  std::uint64_t at_ = 0;                ///< all below is in use, or was reported
  std::set<std::uint32_t> shared_, inTables_;
  std::uint64_t next_ = 0;    ///< where copies go
  std::uint64_t copied_ = 0;  ///< bytes
  /// What the file had before the copies made it larger; of a file of holes only what it takes on the disk, or a
  /// little.
  const std::uint64_t mostCopied_ = std::min(file_.size(), std::max<std::uint64_t>(file_.allocatedBytes(), 64_MiB));
};

}  // namespace

int checkBlocks(BlockTable& table, BlockFile& file, Repair repair, CheckResult& result, const Progress& progress) {
  return Check(table, file, repair, result, progress).run();
}

}  // namespace lodge::image
