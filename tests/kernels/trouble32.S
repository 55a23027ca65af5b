// SPDX-License-Identifier: Apache-2.0
// The classic trouble list in 32-bit protected mode, at kernel (p32) and user (pu32) privilege; pu32io has IOPL 3. In virtual-8086
// mode (v86; v86io with IOPL 3), which has user privilege, and in real mode, which has the kernel's.
#include "lib/cases.h"

#define K p32
#define U pu32
#define UIO pu32io
.text
.globl main
main:
  jmp run_cases

#include "lib/features.inc"

#include "trouble32_tables.inc"
#include "trouble32_flags.inc"
#include "trouble32_segments.inc"
#include "trouble32_transfers.inc"
#include "trouble32_interrupts.inc"
#include "umip.inc"
#include "trouble16.inc"

.data
.balign 8
buffer: .skip 64
