// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "firmware/memory_map.h"

namespace lodge::firmware {

/// Which usable RAM is still free while a loader places images and tables in it. Used by one loader on one thread.
class Placement {
 public:
  explicit Placement(const std::vector<MemoryRange>& map);

  /// Takes [base, base + length); false if some of it is taken already or no usable RAM. A length of 0 is always free.
  [[nodiscard]] bool claim(std::uint64_t base, std::uint64_t length);
  /// Takes the lowest free place of `length` bytes within [from, limit); `alignment` is a power of two.
  std::optional<std::uint64_t> takeLowest(std::uint64_t length, std::uint64_t alignment, std::uint64_t from,
                                          std::uint64_t limit);
  /// The same, the highest place.
  std::optional<std::uint64_t> takeHighest(std::uint64_t length, std::uint64_t alignment, std::uint64_t from,
                                           std::uint64_t limit);
  /// Bytes of the largest free piece within [from, limit).
  std::uint64_t largestFree(std::uint64_t from, std::uint64_t limit) const;

 private:
  struct Piece {
    std::uint64_t start, end;
  };
  std::vector<Piece> free_;  // sorted, disjoint
};

}  // namespace lodge::firmware
