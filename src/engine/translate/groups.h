// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "engine/translate/block.h"

namespace lodge::translate {

/// Which memory accesses of a block share one soft TLB probe.
///
/// Accesses off the same base value (stack slots, pushes and pops, fields of one object, a[i] and a[i+1]) mostly lie in
/// one page. One probe by their leader checks that all of them do, and keeps the page's addend in r14 until the last
/// one. The probe may come some instructions before the first access, where flags are dead. Code cannot be entered
/// between the probe and the last member.
struct GroupPlan {
  struct Leader {
    bool present = false;
    bool write = false;                     ///< the first access is a store
    std::uint8_t base = 0;                  ///< guest register that holds the base value here
    std::uint8_t index = x86::kNoRegister;  ///< and one whose value times `scale` is added to it
    std::uint8_t scale = 1;
    std::int32_t low = 0;    ///< of the lowest byte, from that register's value
    std::uint32_t span = 0;  ///< bytes from the lowest to the highest
  };
  std::array<Leader, Block::kMaxInstructions> leader{};       ///< probe before this instruction
  std::array<bool, Block::kMaxInstructions> operandMember{};  ///< its memory operand needs no probe
  std::array<bool, Block::kMaxInstructions> stackMember{};    ///< its implicit stack access needs none
  std::array<bool, Block::kMaxInstructions> active{};         ///< r14 is taken while it executes
  std::array<bool, Block::kMaxInstructions> noEntry{};        ///< cannot be entered
};

void planGroups(const Block& block, GroupPlan& plan);

}  // namespace lodge::translate
