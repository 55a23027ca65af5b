// SPDX-License-Identifier: Apache-2.0
// Where the test guest has what it is made of.
#pragma once

#include <cstdint>

namespace lodge::differential {

// Guest-physical layout.
inline constexpr std::uint64_t kTables = 0x1000, kKernel = 0x100000, kCode = 0x400000, kData = 0x800000,
                               kReadOnly = 0x810000, kPatch = 0x820000, kMmio = 0xfe00'0000;
// What lies in the kernel's pages.
inline constexpr std::uint64_t kGdt = 0x0, kTss = 0x200, kIdt = 0x1000, kStubs = 0x2000, kStackTop = 0x8000,
                               kInterruptStackTop = 0x9000, kLdt = 0xa000;
// Page-table entry bits.
inline constexpr std::uint64_t kPresent = 1, kWrite = 2, kUser = 4, kAccessedDirty = 0x60, kNoExecute = 1ull << 63;

}  // namespace lodge::differential
