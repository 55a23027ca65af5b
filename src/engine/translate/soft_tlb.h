// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/units.h"
#include "engine/translate/large_pages.h"

namespace lodge::translate {

/// Bits of linear addresses: guests have 4 levels of page tables (no CPU model offers LA57).
inline constexpr unsigned kLinearBits = 48;

/// Pages that one table covers: linear address bits 12 to 46.
inline constexpr std::uint64_t kTlbEntriesPerHalf = std::uint64_t{1} << 35;
inline constexpr std::uint64_t kTlbBytesPerHalf = kTlbEntriesPerHalf * 8;  // 256 GiB

/// Marks an entry as valid; addends are multiples of 4096.
inline constexpr std::uint64_t kTlbValid = 1;

/// One soft TLB: an 8-byte entry for every linear page of one half of the canonical address space, in an array that the
/// host backs only where it is touched. 0: not valid; else (host page - linear page) | kTlbValid, so that translated
/// code reaches linear address A at A + entry - 1.
///
/// Confinement: the index is cut to 35 bits, but the whole address is added. If the bits of A above 46 are not those of
/// this half, the sum is off by a nonzero multiple of 2^47, hence not canonical or in the host kernel's half, and the
/// host faults.
///
/// A log of filled entries makes a full flush cost in proportion to them. Used by the vCPU's thread only.
class TlbTable {
 public:
  /// `entries`: the array, zeroes; `log`: room for kLogCapacity words. `replace` gives the whole array back to the host
  /// so that it reads as zeroes again (called with the array's address).
  void attach(std::uint64_t* entries, std::uint64_t* log, void (*replace)(void* context), void* context);

  static std::uint64_t indexOf(std::uint64_t linear) { return linear >> 12 & (kTlbEntriesPerHalf - 1); }

  /// `pageSize`: of the guest's page that this 4 KiB page is part of.
  void fill(std::uint64_t linear, const void* hostPage, bool global, std::uint64_t pageSize = kPageSize) {
    std::uint64_t index = indexOf(linear);
    notePage(index);
    large_.note(linear, pageSize);
    std::uint64_t& count = global ? globalCount_ : localCount_;
    if (global) {
      if (globalCount_ < kLogCapacity / 2) log_[kLogCapacity - 1 - globalCount_] = index;
    } else {
      if (localCount_ < kLogCapacity / 2) log_[localCount_] = index;
    }
    ++count;
    entries_[index] = (reinterpret_cast<std::uint64_t>(hostPage) - (linear & ~kPageMask)) | kTlbValid;
  }
  /// The guest's page that `linear` is in, whatever its size.
  void drop(std::uint64_t linear) {
    if (large_.any() && dropLarge(linear)) return;
    entries_[indexOf(linear)] = 0;
  }
  std::uint64_t entry(std::uint64_t linear) const { return entries_[indexOf(linear)]; }

  /// Drops entries of non-global pages, or all.
  void dropAll(bool globalToo);
  /// Gives all memory back to the host.
  void release();

  std::uint64_t filled() const { return localCount_ + globalCount_; }

  static constexpr std::uint64_t kLogCapacity = 65536;  ///< half for local, half for global pages
  static constexpr std::uint64_t kLogBytes = kLogCapacity * 8;

 private:
  bool dropLarge(std::uint64_t linear);
  /// Counts (roughly) the host pages that the array takes, to bound them.
  void notePage(std::uint64_t index) {
    std::uint64_t bit = (index >> 9) * 0x9e3779b97f4a7c15u >> 52;  // 4096 of them
    std::uint64_t& word = seen_[bit >> 6];
    if ((word >> (bit & 63) & 1) == 0) {
      word |= std::uint64_t{1} << (bit & 63);
      ++seenCount_;
    }
  }

  std::uint64_t* entries_ = nullptr;
  std::uint64_t* log_ = nullptr;
  void (*replace_)(void*) = nullptr;
  void* context_ = nullptr;
  std::uint64_t localCount_ = 0, globalCount_ = 0;  ///< more than kLogCapacity / 2: not all are in the log
  std::uint64_t seen_[64] = {};
  unsigned seenCount_ = 0;
  LargePages large_;
  static constexpr unsigned kReleaseAt = 512;  ///< 4 KiB pages in use at which a full flush rather starts afresh
};

}  // namespace lodge::translate
