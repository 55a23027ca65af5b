// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/translate/block.h"

namespace lodge::translate {

/// Fills in liveIn and liveOut: which arithmetic flags somebody may read. `liveAtExit` is the set at every way out of
/// the block that `exitLiveness` knows nothing of; all flags where in doubt.
///
/// What may go wrong when flags count as dead: the RFLAGS image that a fault or an interrupt pushes there. Nothing that
/// returns to the interrupted code can tell. (docs/translator.md)
void solveLiveness(Block& block, const std::uint8_t* pageBytes, std::uint64_t features, bool strict);

}  // namespace lodge::translate
