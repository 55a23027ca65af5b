// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lodge {

/// Where local APICs are kept, of an engine that leaves a choice.
enum class Irqchip : std::uint8_t {
  best,   ///< as it is faster here
  user,   ///< all interrupt controllers are the board's
  split,  ///< local APICs are the engine's, the others the board's
};

}  // namespace lodge
