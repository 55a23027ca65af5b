// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lodge::translate {

/// Remembers where 4 KiB entries were cut out of larger guest pages: INVLPG of any address in such a page concerns all
/// of them (SDM vol. 3, 4.10.4.1). May say yes where it need not; never no where it must say yes.
class LargePages {
 public:
  void note(std::uint64_t linear, std::uint64_t pageSize) {
    if (pageSize <= 4096) return;
    if (pageSize <= std::uint64_t{1} << 22) {  // 2 MiB, or 4 MiB noted as its two halves
      setBit(linear);
      setBit(linear ^ std::uint64_t{1} << 21);
    } else if (!isHuge(linear)) {
      if (hugeCount_ < kHuge) huge_[hugeCount_] = linear >> 30;
      ++hugeCount_;
    }
  }
  bool any() const { return anyLarge_ || hugeCount_ != 0; }
  bool isLarge(std::uint64_t linear) const {
    return anyLarge_ && (bits_[hash(linear) >> 6] >> (hash(linear) & 63) & 1) != 0;
  }
  bool isHuge(std::uint64_t linear) const {
    if (hugeCount_ > kHuge) return true;
    for (unsigned i = 0; i < hugeCount_; ++i) {
      if (huge_[i] == linear >> 30) return true;
    }
    return false;
  }
  void clear() {
    for (auto& word : bits_) word = 0;
    anyLarge_ = false;
    hugeCount_ = 0;
  }

 private:
  static unsigned hash(std::uint64_t linear) {
    return static_cast<unsigned>((linear >> 21) * 0x9e3779b97f4a7c15u >> 54);
  }
  void setBit(std::uint64_t linear) {
    bits_[hash(linear) >> 6] |= std::uint64_t{1} << (hash(linear) & 63);
    anyLarge_ = true;
  }

  static constexpr unsigned kHuge = 32;
  std::uint64_t bits_[16] = {};  ///< 1024, hashed by 2 MiB region
  std::uint64_t huge_[kHuge] = {};
  unsigned hugeCount_ = 0;  ///< more than kHuge: not all are known
  bool anyLarge_ = false;
};

}  // namespace lodge::translate
