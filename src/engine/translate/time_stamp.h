// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "engine/translate/assembler.h"
#include "x86/tsc_scale.h"

namespace lodge::translate {

/// RAX = RAX * ratio >> 48 (x86::TscScale), by way of RDX and `scratch`, without touching flags. The host has BMI2.
inline void scaleTimeStamp(Assembler& a, std::uint64_t ratio, std::uint8_t scratch) {
  constexpr unsigned kShlx = 1, kShrx = 3, kMulx = 3;  // VEX.pp of 0F38 F7 and F6
  constexpr unsigned kFraction = x86::TscScale::kFractionBits;
  a.mov(8, host::rdx, host::rax);
  a.movImmediate(scratch, ratio);
  a.vex(kMulx, 2, true, 0, 0xf6, host::rdx, host::rax, scratch);
  a.movImmediate(scratch, 64 - kFraction);
  a.vex(kShlx, 2, true, 0, 0xf7, host::rdx, scratch, host::rdx);
  a.movImmediate(scratch, kFraction);
  a.vex(kShrx, 2, true, 0, 0xf7, host::rax, scratch, host::rax);
  a.lea(8, host::rax, Mem{.base = host::rax, .index = host::rdx});
}

}  // namespace lodge::translate
