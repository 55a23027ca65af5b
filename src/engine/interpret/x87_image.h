// SPDX-License-Identifier: Apache-2.0
// The last-instruction pointers in memory images of the x87 state (SDM vol. 1, 8.1.10, figures 8-9 to 8-12).
//
// The host stores its own: the address of a thunk and a host address of guest memory. Images are corrected before the
// guest sees them. If the host's pointer names a thunk, the guest's is the one recorded in Context::x87; if it is what
// the guest loaded last, it stays; else some other engine's code ran the last x87 instruction, and nothing is known:
// zero.
#pragma once

#include <cstddef>

#include "engine/interpret/context.h"

namespace lodge::interpret {

/// After FLDENV or FRSTOR of `image`: what the pointers are now.
void loadPointers(Cpu& cpu, const Decoded& d, const std::byte* image, X87Pointers& to);
/// Corrects what FNSTENV or FNSAVE stored in c.area.
void storePointers(Cpu& cpu, const Decoded& d, Context& c);
/// The same for the legacy region of an FXSAVE or XSAVE image. `wide`: the 64-bit format (REX.W).
void loadAreaPointers(const std::byte* area, bool wide, X87Pointers& to);
void storeAreaPointers(const Context& c, bool wide, std::byte* area);

}  // namespace lodge::interpret
