// SPDX-License-Identifier: Apache-2.0
// System management mode, with the save area of AMD64 processors (APM vol. 2, 10.2), which firmware for virtual
// machines expects of every 64-bit CPU.
#pragma once

#include "x86/cpu.h"

namespace lodge::x86 {

/// Takes a system management interrupt: saves the CPU's state at SMBASE + 0xfe00 and goes on at SMBASE + 0x8000. The
/// CPU is running or halted, and not in system management mode. Vector state stays as it is.
void enterSmm(Cpu& cpu);
/// RSM: the state that the save area has now. False: #UD (not in system management mode) is in cpu.exception.
bool resumeFromSmm(Cpu& cpu);

}  // namespace lodge::x86
