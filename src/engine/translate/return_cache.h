// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace lodge::translate {

/// Where returns go: translated calls note the host code of their return point, by the stack pointer; a return that
/// finds its target there needs no entry table (whose lines are cold in large programs). A pair says nothing of the
/// stack: it holds for any return to that address, in one mode of one address space, until the address's mapping or its
/// code changes. Then all go (CodeMap). Written by translated code. A key is the guest's address, inverted; an empty
/// slot's (0) goes with the miss thunk, which is right for the address that it stands for, too.
struct ReturnCache {
  static constexpr unsigned kSlots = 1024;
  /// PEXT masks of the stack pointer: slots for words of 8 and 4 bytes.
  static constexpr std::uint64_t kMask64 = (kSlots - 1) * 8, kMask32 = (kSlots - 1) * 4;

  std::uint64_t keys[kSlots];
  std::uint32_t hosts[kSlots];

  /// `missThunk`: where slots lead from now on.
  void clear(std::uint32_t missThunk) {
    fill(keys, sizeof keys / 8, 0);
    fill(hosts, sizeof hosts / 8, std::uint64_t{missThunk} << 32 | missThunk);
  }

 private:
  // Guest vector registers are live: no memset.
  static void fill(void* to, std::size_t words, std::uint64_t value) {
    asm volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(value) : "memory");
  }
};

}  // namespace lodge::translate
