// SPDX-License-Identifier: Apache-2.0
// Accesses to guest-physical addresses that are not RAM, for this folder's own use.
#pragma once

#include <cstddef>

#include "x86/cpu.h"

namespace lodge::x86 {

/// Any size and alignment, split into naturally aligned accesses of 1, 2, 4 and 8 bytes in ascending order, as the bus
/// would. Parks vector state.
void readMmio(Cpu& cpu, Gpa gpa, std::byte* to, unsigned size);
void writeMmio(Cpu& cpu, Gpa gpa, const std::byte* from, unsigned size);

/// memcpy for code that may not call it; 8 bytes at a time where possible.
void copyBytes(std::byte* to, const std::byte* from, unsigned size);

}  // namespace lodge::x86
