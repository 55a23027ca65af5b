// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "image/block_file.h"
#include "image/image.h"

namespace lodge::image {

/// How a table of equal blocks looks to the check: where each is, in units of the file.
class BlockTable {
 public:
  static constexpr std::uint32_t kNone = 0xffffffff;

  virtual ~BlockTable() = default;
  virtual std::uint64_t blocks() const = 0;
  /// Bytes of a unit, units of a block (with what stands before it), bytes of the file before the first block.
  virtual std::uint64_t unitBytes() const = 0;
  virtual std::uint32_t blockUnits() const = 0;
  /// The part of the file that has blocks, in units; what lies outside is not looked at.
  virtual std::uint64_t firstUnit() const = 0;
  virtual std::uint64_t endUnit() const = 0;
  /// The block's first unit, or kNone. Returns 0 or an errno value.
  virtual int unitOf(std::uint64_t block, std::uint32_t& unit) = 0;
  /// The first block from this one on that may have a unit: parts without a table are not looked at one by one.
  virtual std::uint64_t nextMapped(std::uint64_t block) { return block; }
  /// Changes the entry; kNone: as if never written.
  virtual int setUnit(std::uint64_t block, std::uint32_t unit) = 0;
  /// Units in the range that are tables, not blocks: [first, end).
  struct Used {
    std::uint64_t first, end;
  };
  virtual std::vector<Used> tables() { return {}; }
};

/// Looks for entries outside the file, blocks that two entries share, and space that nobody uses; repairs as asked:
/// entries outside are dropped, shared blocks copied, unused space given back (a hole, or cut off at the end: the
/// caller truncates to `result.imageEnd`). The caller flushes the tables. ECANCELED: `progress` said so.
int checkBlocks(BlockTable& table, BlockFile& file, Repair repair, CheckResult& result, const Progress& progress = {});

}  // namespace lodge::image
