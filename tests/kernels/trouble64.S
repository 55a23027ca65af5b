// SPDX-License-Identifier: Apache-2.0
// The classic trouble list in 64-bit mode: instructions that look at or change the processor's tables, segments, flags and
// privilege without all of them trapping in user mode. One case each at kernel (k64) and user (u64) privilege; u64io has IOPL 3.
// Expectations are those of the Intel SDM, volume 2, for each instruction.
#include "lib/cases.h"

#define K k64
#define U u64
.text
.globl main
main:
  jmp run_cases

#include "lib/features.inc"

#include "trouble64_tables.inc"
#include "trouble64_flags.inc"
#include "trouble64_segments.inc"
#include "trouble64_transfers.inc"
#include "trouble64_interrupts.inc"
#include "umip.inc"

.data
.balign 8
.globl buffer
buffer: .skip 64
