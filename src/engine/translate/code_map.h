// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/translate/large_pages.h"
#include "engine/translate/return_cache.h"
#include "engine/translate/translation.h"

namespace lodge::translate {

/// Modes of execution that differ in what a linear address means as a branch target.
enum class ExecMode : std::uint8_t {
  kernel,    ///< CPL 0, 64-bit code, AC = 0 or no SMAP
  kernelAc,  ///< CPL 0, 64-bit code, SMAP off by AC = 1: has no map, its indirect branches look up in C++
  user64,    ///< CPL 3, 64-bit code
  user32,    ///< CPL 3, 32-bit code
};

/// Distance of two entries in a page unit's entry table. Five, so that LEA r,[r+r*4] scales a branch target, and
/// because 5 is odd: a wrong high bit of the target can never vanish modulo 2^64.
inline constexpr std::uint64_t kEntryStride = 5;
inline constexpr std::uint64_t kEntryTableBytes = kEntryStride * 4096;  // 5 host pages

/// Where code is: for one mode of one address space, an 8-byte word for every linear page, in an array of address space
/// that is accessible only where it was needed. It holds table - kEntryStride * page, where `table` is the entry table
/// of the page's unit: 32-bit host addresses, kEntryStride apart. An indirect branch to r13 is therefore
///     r14 = word of r13's page;  r12d = [r14 + 5 * r13];  jmp r12
/// with no comparison and no flags. It is exact: the page's index is cut to the array's size, but all 64 bits of r13
/// enter the second load, so a target that is not the page's canonical address makes it fault. Words of pages without a
/// unit name a table whose entries all lead to the miss thunk; words that were never needed are inaccessible, and
/// fault.
///
/// The array grows downwards: the word of page index i lies at top[-1 - i] (one NOT in translated code), because the
/// space above the base register belongs to the soft TLB. Used by the vCPU's thread only.
class CodeMap {
 public:
  /// `top`: end of the array; `indexBits`: 20, 35 or 36; `log`: kLogBytes of memory. `returns`:
  /// of this mode and address space; emptied whenever a page that holds code goes.
  void attach(std::uint64_t* top, unsigned indexBits, std::uint64_t* log, ReturnCache& returns,
              std::uint64_t missTable);

  /// Whether the array has a word of the address's own: user code in the upper half and what is not canonical share
  /// theirs with other pages.
  bool covers(std::uint64_t linear) const { return pageOf(indexOf(linear)) == (linear & ~std::uint64_t{4095}); }
  /// The word of the page, or 0 if it names no unit.
  std::uint64_t find(std::uint64_t linear) const;
  /// The entry table that a word from find() names.
  static std::uint64_t tableOf(std::uint64_t word, std::uint64_t linear) {
    return word + kEntryStride * (linear & ~std::uint64_t{4095});
  }
  /// `linear` is covered. False: the host refused memory.
  bool insert(std::uint64_t linear, std::uint64_t entryTable, bool global, std::uint64_t pageSize = 4096);
  /// The mapping of the guest's page that `linear` is in may have changed. Returns whether there was a unit.
  bool dropPage(std::uint64_t linear);
  /// With global pages, memory for many chunks goes back to the host, too: the next process has its code elsewhere.
  void dropAll(bool globalToo);
  /// Everything, and all memory.
  void release();
  /// Translated code was dropped.
  void dropReturns();

  static constexpr std::uint64_t kLogCapacity = 8192;
  static constexpr std::uint64_t kLogBytes = kLogCapacity * 8;

 private:
  static constexpr std::uint64_t kChunkBytes =
      16384;  ///< made accessible at once: 2048 words, 8 MiB of linear addresses
  static constexpr unsigned kChunkSlots = 512;
  static constexpr unsigned kMaxChunks = 256;
  static constexpr unsigned kKeptChunks = 32;  ///< that dropAll() leaves accessible: more than most processes need

  std::uint64_t indexOf(std::uint64_t linear) const { return linear >> 12 & ((std::uint64_t{1} << indexBits_) - 1); }
  std::uint64_t& wordAt(std::uint64_t index) const { return top_[-1 - static_cast<std::int64_t>(index)]; }
  std::uint64_t pageOf(std::uint64_t index) const;
  std::uint64_t missWord(std::uint64_t index) const;
  bool isAccessible(std::uint64_t index) const;
  bool makeAccessible(std::uint64_t index);
  bool dropOne(std::uint64_t linear);
  LargePages large_;

  std::uint64_t* top_ = nullptr;
  unsigned indexBits_ = 0;
  std::uint64_t missTable_ = 0;
  ReturnCache* returns_ = nullptr;
  std::uint64_t* log_ = nullptr;  ///< linear pages with a unit (bit 0: global), perhaps stale or twice
  std::uint64_t logCount_ = 0;
  unsigned chunkCount_ = 0;
  std::uint32_t chunks_[kChunkSlots] = {};  ///< open hash of accessible chunks: number + 1
};

}  // namespace lodge::translate
