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
  Check(BlockTable& table, BlockFile& file, Repair repair, CheckResult& result)
      : table_(table), file_(file), repair_(repair), result_(result) {}

  int run() {
    result_.totalClusters = table_.blocks();
    if (int error = collect(); error != 0) return error == E2BIG ? 0 : error;
    findShared();
    if (!shared_.empty()) {
      if (int error = separate(); error != 0) return error;
    }
    return findUnused();
  }

 private:
  std::uint64_t span() const { return table_.blockUnits(); }

  int collect() {
    std::uint32_t last = BlockTable::kNone;
    for (std::uint64_t block = 0; block < table_.blocks(); ++block) {
      std::uint32_t unit = BlockTable::kNone;
      if (table_.unitOf(block, unit) != 0) {
        ++result_.checkErrors;
        continue;
      }
      if (unit == BlockTable::kNone) continue;
      if (unit < table_.firstUnit() || unit + std::uint64_t{1} > table_.endUnit()) {
        result_.note(fmt::format("block {} lies outside the file (offset {:#x})", block, unit * table_.unitBytes()));
        if (repair_ != Repair::all) {
          ++result_.corruptions;
          continue;
        }
        if (int error = table_.setUnit(block, BlockTable::kNone); error != 0) return error;
        ++result_.corruptionsFixed;
        continue;
      }
      // No more blocks than there is room for, or some share theirs: a hostile table shall not take all memory.
      if (units_.size() > (table_.endUnit() - table_.firstUnit()) / span() + 4096) {
        ++result_.corruptions;
        result_.note("its table has more blocks than the file has room for; the check ends here");
        return E2BIG;
      }
      ++result_.allocatedClusters;
      if (last != BlockTable::kNone && unit != last + span()) ++result_.fragmentedClusters;
      last = unit;
      units_.push_back(unit);
    }
    std::sort(units_.begin(), units_.end());
    next_ = table_.endUnit();
    return 0;
  }

  void findShared() {
    for (std::size_t i = 1; i < units_.size() && shared_.size() < CheckResult::kMaxMessages; ++i) {
      if (units_[i] < units_[i - 1] + span()) shared_.insert(units_[i]);
    }
    for (const BlockTable::Used& used : table_.tables()) {
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
    for (std::uint64_t block = 0; block < table_.blocks(); ++block) {
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
      if (copied_ > file_.size()) {
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
    return it == units_.begin() || *std::prev(it) + span() <= unit;
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
    units_.push_back(to);
    return table_.setUnit(block, to);
  }

  int findUnused() {
    std::sort(units_.begin(), units_.end());
    std::vector<BlockTable::Used> used = table_.tables();
    std::sort(used.begin(), used.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::uint64_t at = table_.firstUnit(), end = std::max(table_.endUnit(), next_);
    auto table = used.begin();
    auto unit = units_.begin();
    while (unit != units_.end() || table != used.end()) {
      bool takeTable = unit == units_.end() || (table != used.end() && table->first <= *unit);
      std::uint64_t first = takeTable ? table->first : *unit;
      std::uint64_t after = takeTable ? table->end : *unit + span();
      if (takeTable)
        ++table;
      else
        ++unit;
      if (first > at) {
        if (int error = unused(at, std::min(first, end), false); error != 0) return error;
      }
      at = std::max(at, after);
    }
    if (at < end) {
      if (int error = unused(at, end, true); error != 0) return error;
    }
    bool cut = at < end && repair_ != Repair::none;
    result_.imageEnd = (cut || at >= end ? at : end) * table_.unitBytes();
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
  std::vector<std::uint32_t> units_;  ///< where blocks begin, ascending
  std::set<std::uint32_t> shared_, inTables_;
  std::uint64_t next_ = 0;    ///< where copies go
  std::uint64_t copied_ = 0;  ///< bytes
};

}  // namespace

int checkBlocks(BlockTable& table, BlockFile& file, Repair repair, CheckResult& result) {
  return Check(table, file, repair, result).run();
}

}  // namespace lodge::image
