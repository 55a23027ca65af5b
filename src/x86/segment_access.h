// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "x86/state.h"

namespace lodge::x86 {

/// Limit check of [offset, offset+size), expand-down segments included (SDM vol. 3, 5.3). Not for 64-bit mode.
bool withinLimit(const SegmentRegister& segment, std::uint64_t offset, unsigned size);

}  // namespace lodge::x86
