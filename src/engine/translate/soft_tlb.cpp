// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/soft_tlb.h"

#include <initializer_list>

namespace lodge::translate {

void TlbTable::attach(std::uint64_t* entries, std::uint64_t* log, void (*replace)(void*), void* context) {
  entries_ = entries;
  log_ = log;
  replace_ = replace;
  context_ = context;
}

bool TlbTable::dropLarge(std::uint64_t linear) {
  if (large_.isHuge(linear)) {
    dropAll(true);
    return true;
  }
  if (!large_.isLarge(linear)) return false;
  constexpr std::uint64_t perRegion = 512;  // 2 MiB
  std::uint64_t first = indexOf(linear) & ~(perRegion - 1);
  // A 4 MiB page's other half has its bit set, too, but is another call's business only if it was touched: drop both.
  for (std::uint64_t region : {first, first ^ perRegion}) {
    if (region != first && !large_.isLarge(linear ^ std::uint64_t{1} << 21)) continue;
    for (std::uint64_t i = 0; i < perRegion; ++i) entries_[region + i] = 0;
  }
  return true;
}

void TlbTable::dropAll(bool globalToo) {
  constexpr std::uint64_t half = kLogCapacity / 2;
  bool logLost = localCount_ > half || (globalToo && globalCount_ > half);
  bool tooMuch = seenCount_ > kReleaseAt && (globalToo || globalCount_ == 0);
  if (logLost || tooMuch) {
    release();  // global entries, too: they only cost misses
    return;
  }
  for (std::uint64_t i = 0; i < localCount_; ++i) entries_[log_[i]] = 0;
  localCount_ = 0;
  if (globalCount_ == 0 || globalToo) large_.clear();
  if (!globalToo) return;
  for (std::uint64_t i = 0; i < globalCount_; ++i) entries_[log_[kLogCapacity - 1 - i]] = 0;
  globalCount_ = 0;
}

void TlbTable::release() {
  replace_(context_);
  large_.clear();
  localCount_ = globalCount_ = 0;
  seenCount_ = 0;
  for (auto& word : seen_) word = 0;
}

}  // namespace lodge::translate
