// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>

namespace lodge {

/// 256 bits, one a vector, that any thread may change: IRR, ISR and TMR.
class VectorSet {
 public:
  /// Returns whether it was set before. Sequentially consistent: ordered with the signal to the CPU that follows.
  bool set(std::uint8_t vector) { return (words_[vector >> 6].fetch_or(bit(vector)) & bit(vector)) != 0; }
  /// Returns whether it was set.
  bool clear(std::uint8_t vector) { return (words_[vector >> 6].fetch_and(~bit(vector)) & bit(vector)) != 0; }
  bool test(std::uint8_t vector) const {
    return (words_[vector >> 6].load(std::memory_order_relaxed) & bit(vector)) != 0;
  }
  /// The highest vector in the set; -1 if it is empty.
  int highest() const {
    for (int word = 3; word >= 0; --word) {
      std::uint64_t bits = words_[word].load(std::memory_order_relaxed);
      if (bits != 0) return word * 64 + 63 - std::countl_zero(bits);
    }
    return -1;
  }
  /// Vectors 32 * `index` to 32 * `index` + 31, as the registers show them. `index` 0..7.
  std::uint32_t word(unsigned index) const {
    return static_cast<std::uint32_t>(words_[index >> 1].load(std::memory_order_relaxed) >> (32 * (index & 1)));
  }
  void setWord(unsigned index, std::uint32_t value) {
    std::uint64_t keep = index & 1 ? 0xffff'ffffull : ~0xffff'ffffull;
    std::uint64_t bits = words_[index >> 1].load(std::memory_order_relaxed) & keep;
    words_[index >> 1].store(bits | std::uint64_t{value} << (32 * (index & 1)));
  }
  void clearAll() {
    for (auto& word : words_) word.store(0);
  }

 private:
  static constexpr std::uint64_t bit(std::uint8_t vector) { return std::uint64_t{1} << (vector & 63); }
  std::atomic<std::uint64_t> words_[4]{};
};

}  // namespace lodge
