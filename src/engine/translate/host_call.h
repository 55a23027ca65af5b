// SPDX-License-Identifier: Apache-2.0
// Host system calls from code that runs while guest vector registers are live: the kernel preserves them, libc's
// wrappers need not.
#pragma once

#include <cstdint>

namespace lodge::translate {

/// The kernel's answer: a value, or -errno.
inline long hostCall(long number, std::uint64_t a = 0, std::uint64_t b = 0, std::uint64_t c = 0, std::uint64_t d = 0,
                     std::uint64_t e = 0, std::uint64_t f = 0) {
  long result;
  register std::uint64_t r10 asm("r10") = d;
  register std::uint64_t r8 asm("r8") = e;
  register std::uint64_t r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

}  // namespace lodge::translate
