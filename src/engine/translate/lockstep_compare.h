// SPDX-License-Identifier: Apache-2.0
// What lockstep compares, and how it says so. Vector state is parked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/translate/frame.h"
#include "x86/state.h"

namespace lodge::translate {

struct StateDifference {
  unsigned count = 0;  ///< fields that differ
  std::string text{};  ///< them, with the interpreter's value first
};

/// `stiRip`: Frame::stiRip, where an interrupt shadow may not show.
StateDifference compareStates(const x86::CpuState& interpreter, const x86::CpuState& translator, std::uint64_t stiRip);

/// Offset of the first byte that differs in two pages, but for accessed and dirty bits of page-table entries; kPageSize
/// if none does.
std::uint64_t differenceInPage(const std::byte* a, const std::byte* b);
/// Sets in `to` the accessed and dirty bits that page-table entries have in `from`.
void addUsedBits(std::byte* to, const std::byte* from);

std::string hexText(std::uint64_t value);
const char* nameOf(ExitReason reason);
/// RIP, general registers and flags.
std::string describeState(const x86::CpuState& state);

}  // namespace lodge::translate
