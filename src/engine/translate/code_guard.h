// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/error.h"
#include "memory/guest_memory.h"

namespace lodge::translate {

/// Write protection of guest RAM pages that hold translated code, in the CPU view, for all vCPUs at once. A store to
/// such a page raises SIGBUS (userfaultfd) or SIGSEGV (mprotect) in the thread that stores.
///
/// userfaultfd's write protection splits no mapping and costs 0.65 us a page; where the host forbids it, mprotect
/// serves, with the kernel's limit of mappings (vm.max_map_count) as a bound on the number of such pages. Thread-safe;
/// callable from signal handlers. While memory is loaded from a saved machine's file, its views have another
/// userfaultfd, so that mprotect serves until then.
class CodeGuard {
 public:
  ~CodeGuard();
  CodeGuard(const CodeGuard&) = delete;
  CodeGuard& operator=(const CodeGuard&) = delete;
  static Result<std::unique_ptr<CodeGuard>> create(GuestMemory& memory, bool allowUserfaultfd = true);

  /// Whether the host did it. `ramPage`: offset in RAM >> 12.
  bool protect(std::uint64_t ramPage) const { return change(ramPage, true); }
  void unprotect(std::uint64_t ramPage) const { change(ramPage, false); }
  /// Whether a faulting host address is in guarded memory.
  bool covers(std::uint64_t hostAddress) const { return hostAddress - base_ < size_; }
  std::uint64_t ramPageOf(std::uint64_t hostAddress) const { return (hostAddress - base_) >> 12; }
  bool usesUserfaultfd() const { return usableFd() >= 0; }

 private:
  CodeGuard() = default;
  int usableFd() const { return fd_.load(std::memory_order_acquire); }
  bool change(std::uint64_t ramPage, bool protect) const;

  void open() const;

  const GuestMemory* memory_ = nullptr;
  mutable std::atomic<bool> waiting_{false};  ///< a userfaultfd is wanted once memory is loaded
  mutable std::atomic<int> fd_{-1};
  mutable std::atomic<bool> mixed_{false};    ///< some pages are protected by mprotect
  mutable std::atomic<std::int64_t> few_{0};  ///< of such pages, while a host of few mappings is feigned
  std::uint64_t base_ = 0;
  std::uint64_t size_ = 0;
};

}  // namespace lodge::translate
