// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "x86/state.h"

namespace lodge::translate {
/// What a call-out may have in place of the address at which it comes back: it never does; or neither, because the
/// instruction goes on in the next page.
inline constexpr std::uint64_t kNowhere = std::uint64_t{1} << 63, kNextPage = kNowhere | 1;
}  // namespace lodge::translate

extern "C" {
/// Runs translated code from `code` on with the state's registers until it comes back; returns a translate::ExitReason.
std::uint32_t lodgeEnterCache(lodge::x86::CpuState* state, const void* code);

// Entered from translated code only; see trampolines.S.
void lodgeMissRead();
void lodgeMissWrite();
void lodgeExitLink();
void lodgeExitStep();
void lodgeExitMisaligned();
void lodgeMayCross2();
void lodgeMayCross4();
void lodgeMayCross8();
void lodgeExitDispatch();
void lodgeExitFault();
void lodgeExitAttention();
void lodgeCallStep();
void lodgeIndirectMiss();
void lodgeSyscall();
void lodgeSysret();

// Windows between the test of Frame::attention and the jump into translated code, and where a signal handler sends a
// thread that it finds there.
extern const char lodgeEnterWindow[], lodgeEnterWindowEnd[];
extern const char lodgeCrossWindow[], lodgeCrossWindowEnd[];
extern const char lodgeMissWindow[], lodgeMissWindowEnd[];
extern const char lodgeIndirectWindow[], lodgeIndirectWindowEnd[];
extern const char lodgeStepWindow[], lodgeStepWindowEnd[];
extern const char lodgeSyscallWindow[], lodgeSyscallWindowEnd[];
void lodgeAbortEnter();
void lodgeAbortCross();
void lodgeAbortMiss();
void lodgeAbortIndirect();
void lodgeAbortStep();
void lodgeAbortSyscall();

// Called by trampolines.S, with guest vector registers live (slow_path.cpp).
std::uint32_t lodgeTlbMiss(lodge::x86::CpuState* state, std::uint64_t linear, std::uint32_t write);
std::uint64_t lodgeLookupIndirect(lodge::x86::CpuState* state, std::uint64_t target);
std::uint64_t lodgeStep(lodge::x86::CpuState* state, std::uint64_t rip, std::uint64_t next);
}
