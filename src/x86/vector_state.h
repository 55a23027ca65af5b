// SPDX-License-Identifier: Apache-2.0
// The guest's vector and x87 registers in the host's: what Cpu::parkFpu() and unparkFpu() are made of.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lodge::x86 {

/// State components that are kept for a guest: x87, SSE, AVX, AVX-512, as far as the host's XCR0 has them. Protection
/// keys are the host process's own, AMX state is not offered.
std::uint64_t vectorComponents();

/// Stores the host's registers at `area` (64-byte aligned, 4096 bytes) in the standard XSAVE format, 64-bit pointers.
/// Components in their initial configuration are stored too.
void saveVectorState(std::byte* area);
/// Makes the header and MXCSR valid, so that no content of `area` can fault when it is loaded.
void sanitizeVectorState(std::byte* area);
/// Loads them. The header and MXCSR are made valid first, so that no content of `area` can fault.
void loadVectorState(std::byte* area);
/// Initial x87 and SSE state, upper halves clear: what compiled code expects.
void cleanVectorState();

}  // namespace lodge::x86
