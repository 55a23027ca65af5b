// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/code_map.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine/translate/host_call.h"

namespace lodge::translate {

namespace {
constexpr std::uint64_t kGlobal = 1;
}

void CodeMap::attach(std::uint64_t* top, unsigned indexBits, std::uint64_t* log, ReturnCache& returns,
                     std::uint64_t missTable) {
  top_ = top;
  indexBits_ = indexBits;
  log_ = log;
  missTable_ = missTable;
  returns_ = &returns;
  dropReturns();
}

void CodeMap::dropReturns() {
  returns_->clear(*reinterpret_cast<const std::uint32_t*>(missTable_));
}

std::uint64_t CodeMap::pageOf(std::uint64_t index) const {
  std::uint64_t page = index << 12;
  if (indexBits_ == 36 && (index >> 35) != 0) page |= ~std::uint64_t{0} << 48;  // canonical form of the upper half
  return page;
}

std::uint64_t CodeMap::missWord(std::uint64_t index) const {
  return missTable_ - kEntryStride * pageOf(index);
}

bool CodeMap::isAccessible(std::uint64_t index) const {
  auto chunk = static_cast<std::uint32_t>(index / (kChunkBytes / 8)) + 1;
  for (unsigned at = chunk * 0x9e3779b1u >> 23;; ++at) {
    std::uint32_t found = chunks_[at % kChunkSlots];
    if (found == 0) return false;
    if (found == chunk) return true;
  }
}

bool CodeMap::makeAccessible(std::uint64_t index) {
  if (isAccessible(index)) return true;
  if (chunkCount_ == kMaxChunks) release();
  constexpr std::uint64_t words = kChunkBytes / 8;
  std::uint64_t first = index / words * words;
  std::uint64_t* low = &wordAt(first + words - 1);
  if (hostCall(SYS_mprotect, reinterpret_cast<std::uint64_t>(low), kChunkBytes, PROT_READ | PROT_WRITE) != 0)
    return false;
  for (std::uint64_t i = 0; i < words; ++i) wordAt(first + i) = missWord(first + i);
  auto chunk = static_cast<std::uint32_t>(index / words) + 1;
  unsigned at = chunk * 0x9e3779b1u >> 23;
  while (chunks_[at % kChunkSlots] != 0) ++at;
  chunks_[at % kChunkSlots] = chunk;
  ++chunkCount_;
  return true;
}

std::uint64_t CodeMap::find(std::uint64_t linear) const {
  std::uint64_t index = indexOf(linear);
  if (!covers(linear) || !isAccessible(index)) return 0;
  std::uint64_t word = wordAt(index);
  return word == missWord(index) ? 0 : word;
}

bool CodeMap::insert(std::uint64_t linear, std::uint64_t entryTable, bool global, std::uint64_t pageSize) {
  if (logCount_ == kLogCapacity) release();
  std::uint64_t index = indexOf(linear);
  if (!makeAccessible(index)) return false;
  large_.note(linear, pageSize);
  log_[logCount_++] = (linear & ~std::uint64_t{4095}) | (global ? kGlobal : 0);
  wordAt(index) = entryTable - kEntryStride * (linear & ~std::uint64_t{4095});
  return true;
}

bool CodeMap::dropPage(std::uint64_t linear) {
  unsigned shift = !large_.any() ? 12 : large_.isHuge(linear) ? 30 : large_.isLarge(linear) ? 22 : 12;
  bool had = false;
  if (shift == 12) {
    had = dropOne(linear);
  } else {
    for (std::uint64_t i = 0; i < logCount_; ++i) {
      if (((log_[i] ^ linear) >> shift) == 0) had |= dropOne(log_[i]);
    }
  }
  if (had) dropReturns();
  return had;
}

bool CodeMap::dropOne(std::uint64_t linear) {
  std::uint64_t index = indexOf(linear);
  if (!isAccessible(index)) return false;
  std::uint64_t& word = wordAt(index);
  bool had = word != missWord(index);
  word = missWord(index);
  return had;
}

void CodeMap::dropAll(bool globalToo) {
  if (globalToo && chunkCount_ > kKeptChunks) return release();
  if (logCount_ != 0) dropReturns();
  std::uint64_t kept = 0;
  for (std::uint64_t i = 0; i < logCount_; ++i) {
    if ((log_[i] & kGlobal) != 0 && !globalToo) {
      log_[kept++] = log_[i];
    } else {
      dropOne(log_[i]);
    }
  }
  logCount_ = kept;
  if (kept == 0) large_.clear();
}

void CodeMap::release() {
  dropReturns();
  if (chunkCount_ == 0) return;
  std::uint64_t bytes = std::uint64_t{8} << indexBits_;
  hostCall(SYS_mmap, reinterpret_cast<std::uint64_t>(top_) - bytes, bytes, PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, static_cast<std::uint64_t>(-1), 0);
  for (auto& chunk : chunks_) chunk = 0;
  chunkCount_ = 0;
  logCount_ = 0;
  large_.clear();
}

}  // namespace lodge::translate
