// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "memory/guest_memory.h"
#include "memory/page_store.h"

namespace lodge {

class LazyMemory;

/// What an idle machine gave back: GuestMemory::load() with this gives pages of RAM back to the host that are zero, and
/// those that the store has or takes; they come again when they are touched. While no CPU and no device runs or has a
/// span() in its hands, and no engine watches memory. Where the host has no userfaultfd only zeroes go. A piece is a
/// page.
///
/// GuestMemory::isLoading() says whether some are away; then GuestMemory::finishLoading() brings all of them back.
class SharedPages : public MemorySource {
 public:
  /// What share() has done, for whoever asked for it.
  struct Report {
    std::uint64_t givenBack = 0;  ///< bytes, the last time
    std::uint64_t next = 0;       ///< where it goes on: it looks at 256 MiB at once, as the machine stands still
    std::atomic<std::uint64_t> away = 0;  ///< pages that are in the store alone
  };
  SharedPages(PageStore& store, std::shared_ptr<Report> report) : store_(store), report_(std::move(report)) {}

  std::size_t pieceBytes() const override { return kPageSize; }
  bool isZero(std::size_t piece) const override { return piece >= numbers_.size() || numbers_[piece] == 0; }
  Status load(std::size_t piece, std::span<std::byte> to) const override;

  /// Takes over pages that `before` had and `lazy` has not loaded.
  void take(const SharedPages& before, const LazyMemory& lazy);
  /// Looks at RAM, `bytes` of the file, whose contents are at `ram`. `mayShare`: not only zeroes may go. Whether pages
  /// are away.
  bool share(int fd, std::byte* ram, std::uint64_t bytes, bool mayShare);

 private:
  PageStore& store_;
  std::shared_ptr<Report> report_;
  void bringBackWhatStayed(int fd, std::byte* ram, std::uint64_t start, std::uint64_t end);

  std::vector<std::uint32_t> numbers_;  ///< by page: the store's number and 1, or 0
};

}  // namespace lodge
