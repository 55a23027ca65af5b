// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "x86/instruction.h"

namespace lodge::translate {

/// General registers (bit n: register n) that the instruction may write, explicitly or implicitly. All ones for
/// instructions that this does not know.
std::uint16_t writtenRegisters(const x86::Instruction& i);

}  // namespace lodge::translate
