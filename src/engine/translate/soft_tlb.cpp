// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/soft_tlb.h"

namespace lodge::translate {

void TlbTable::attach(std::uint64_t* entries, std::uint64_t* log, void (*replace)(void*), void* context) {
  entries_ = entries;
  log_ = log;
  replace_ = replace;
  context_ = context;
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
  if (!globalToo) return;
  for (std::uint64_t i = 0; i < globalCount_; ++i) entries_[log_[kLogCapacity - 1 - i]] = 0;
  globalCount_ = 0;
}

void TlbTable::release() {
  replace_(context_);
  localCount_ = globalCount_ = 0;
  seenCount_ = 0;
  for (auto& word : seen_) word = 0;
}

}  // namespace lodge::translate
