// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/units.h"

namespace lodge::network {

/// So many units a second, and a burst of so many at once.
class TokenBucket {
 public:
  TokenBucket(std::uint64_t perSecond, std::uint64_t burst)
      : perSecond_(perSecond), burst_(static_cast<double>(burst)), tokens_(static_cast<double>(burst)) {}

  bool take(Nanoseconds now, std::uint64_t units) {
    tokens_ = std::min(burst_, tokens_ + static_cast<double>(now - last_) * static_cast<double>(perSecond_) / 1e9);
    last_ = now;
    if (tokens_ < static_cast<double>(units)) return false;
    tokens_ -= static_cast<double>(units);
    return true;
  }

 private:
  std::uint64_t perSecond_;
  double burst_, tokens_;
  Nanoseconds last_ = 0;
};

}  // namespace lodge::network
