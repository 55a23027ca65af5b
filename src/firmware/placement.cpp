// SPDX-License-Identifier: Apache-2.0
#include "firmware/placement.h"

#include <algorithm>

namespace lodge::firmware {

Placement::Placement(const std::vector<MemoryRange>& map) {
  for (const MemoryRange& range : map) {
    if (range.kind == MemoryKind::usable) free_.push_back({range.base, range.end()});
  }
}

bool Placement::claim(std::uint64_t base, std::uint64_t length) {
  if (length == 0) return true;
  for (std::size_t i = 0; i < free_.size(); ++i) {
    Piece piece = free_[i];
    if (base < piece.start || base >= piece.end) continue;
    if (length > piece.end - base) return false;
    free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
    auto at = free_.begin() + static_cast<std::ptrdiff_t>(i);
    if (base + length < piece.end) at = free_.insert(at, {base + length, piece.end});
    if (piece.start < base) free_.insert(at, {piece.start, base});
    return true;
  }
  return false;
}

std::optional<std::uint64_t> Placement::takeLowest(std::uint64_t length, std::uint64_t alignment, std::uint64_t from,
                                                   std::uint64_t limit) {
  for (const Piece& piece : free_) {
    std::uint64_t start = std::max(piece.start, from);
    std::uint64_t end = std::min(piece.end, limit);
    if (start >= end) continue;
    std::uint64_t base = alignUp(start, alignment);
    if (base < start || base >= end || length > end - base) continue;
    if (claim(base, length)) return base;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> Placement::takeHighest(std::uint64_t length, std::uint64_t alignment, std::uint64_t from,
                                                    std::uint64_t limit) {
  for (auto piece = free_.rbegin(); piece != free_.rend(); ++piece) {
    std::uint64_t start = std::max(piece->start, from);
    std::uint64_t end = std::min(piece->end, limit);
    if (start >= end || length > end - start) continue;
    std::uint64_t base = alignDown(end - length, alignment);
    if (base < start) continue;
    if (claim(base, length)) return base;
  }
  return std::nullopt;
}

std::uint64_t Placement::largestFree(std::uint64_t from, std::uint64_t limit) const {
  std::uint64_t best = 0;
  for (const Piece& piece : free_) {
    std::uint64_t start = std::max(piece.start, from);
    std::uint64_t end = std::min(piece.end, limit);
    if (start < end) best = std::max(best, end - start);
  }
  return best;
}

}  // namespace lodge::firmware
