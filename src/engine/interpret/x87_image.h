// SPDX-License-Identifier: Apache-2.0
// The last-instruction pointers (Cpu::x87) in memory images of the x87 state (SDM vol. 1, 8.1.10, figures 8-9 to 8-12).
// What the host stored there is replaced.
#pragma once

#include <cstddef>

#include "engine/interpret/context.h"

namespace lodge::interpret {

/// After FLDENV or FRSTOR of `image`.
void loadPointers(Cpu& cpu, const Decoded& d, const std::byte* image);
/// Completes what FNSTENV or FNSAVE stored at `image` in the 32-bit format; makes it the 16-bit format if that was
/// asked for.
void storePointers(Cpu& cpu, const Decoded& d, std::byte* image);
/// The same for the legacy region of an FXSAVE or XSAVE image. `wide`: the 64-bit format (REX.W).
void loadAreaPointers(Cpu& cpu, bool wide, const std::byte* area);
void storeAreaPointers(Cpu& cpu, bool wide, std::byte* area);

}  // namespace lodge::interpret
