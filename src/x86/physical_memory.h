// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "x86/cpu.h"

namespace lodge::x86 {

/// Small structures that the paravirtual interface shares with the guest, by guest-physical address. False: not RAM.
bool readRam(Cpu& cpu, std::uint64_t gpa, void* to, unsigned size);
bool writeRam(Cpu& cpu, std::uint64_t gpa, const void* from, unsigned size);

}  // namespace lodge::x86
