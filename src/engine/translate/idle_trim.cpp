// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/idle_trim.h"

namespace lodge::translate {

bool IdleTrim::isIdle(std::uint64_t now, std::uint64_t (*processorTime)()) {
  std::uint64_t start = start_.load(std::memory_order_acquire);
  std::uint64_t trimmed = trimmed_.load(std::memory_order_acquire);
  if (trimmed != 0 && now - trimmed < kSpacing) return false;
  if ((start != 0 && now - start < kWindow) || !start_.compare_exchange_strong(start, now)) return false;
  std::uint64_t used = processorTime();
  std::uint64_t before = used_.exchange(used);
  return start != 0 && used - before < (now - start) / kBusyPart;
}

}  // namespace lodge::translate
