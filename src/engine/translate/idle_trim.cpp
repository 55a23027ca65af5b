// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/idle_trim.h"

namespace lodge::translate {

bool IdleTrim::isIdle(std::uint64_t now, std::uint64_t processorTime) {
  std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock || (start_ != 0 && now - start_ < kWindow)) return false;
  bool idle = start_ != 0 && processorTime - used_ < (now - start_) / kBusyPart;
  start_ = now;
  used_ = processorTime;
  return idle;
}

}  // namespace lodge::translate
