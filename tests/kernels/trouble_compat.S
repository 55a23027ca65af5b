// SPDX-License-Identifier: Apache-2.0
// The classic trouble list in compatibility mode: 32-bit code under a 64-bit kernel, at kernel (k32) and user (u32) privilege;
// u32io has IOPL 3.
#include "lib/cases.h"

#define COMPATIBILITY 1
#define K k32
#define U u32
#define UIO u32io
.text
.globl main
main:
  jmp run_cases

#include "lib/features.inc"

.code32
#include "trouble32_tables.inc"
#include "trouble32_flags.inc"
#include "trouble32_segments.inc"
#include "trouble32_transfers.inc"
#include "trouble32_interrupts.inc"
#include "umip.inc"

.data
.balign 8
buffer: .skip 64
