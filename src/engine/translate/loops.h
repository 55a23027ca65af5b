// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "engine/translate/block.h"

namespace lodge::translate {

/// The innermost loops of a block that run without soft TLB probes, as long as each of their streams stays in its page.
///
/// A stream is what the accesses of one iteration off one origin (a register, or a sum of two) cover; from iteration to
/// iteration it moves by a constant. Before the copy of the loop that has no probes, code computes for how many
/// iterations all streams stay in the pages where they are, and looks those up. See docs/translator.md, Memory.
struct LoopPlan {
  static constexpr unsigned kMaxLoops = 4, kMaxStreams = 2;
  static constexpr std::uint8_t kNoStream = 0xff;

  /// Which part of an operand's address is in the stream's host register, besides the page's addend.
  enum class Fold : std::uint8_t { nothing, base, index };
  struct Stream {
    std::uint8_t base, index, scale;  ///< guest registers; index x86::kNoRegister where there is none
    Fold fold;
    std::int32_t low;     ///< of the lowest byte, from the registers' sum at the head
    std::uint32_t span;   ///< bytes from the lowest to the highest
    std::int32_t stride;  ///< bytes that an iteration moves it by
  };
  struct Loop {
    std::uint8_t head, tail;  ///< indices in the block; the tail is the branch to the head
    std::uint8_t streamCount = 0;
    std::array<Stream, kMaxStreams> streams;
  };
  unsigned count = 0;
  std::array<Loop, kMaxLoops> loops;
  /// Of each instruction's memory operand in its loop.
  std::array<std::uint8_t, Block::kMaxInstructions> streamOf;

  const Loop* endingAt(unsigned index) const {
    for (unsigned n = 0; n < count; ++n) {
      if (loops[n].tail == index) return &loops[n];
    }
    return nullptr;
  }
};

/// Before the groups are planned: what follows a loop becomes a label.
void planLoops(Block& block, LoopPlan& plan);

}  // namespace lodge::translate
