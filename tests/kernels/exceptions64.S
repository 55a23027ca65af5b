// SPDX-License-Identifier: Apache-2.0
// Every exception of 64-bit mode with its exact error code, saved RIP and RSP, CR2 and DR6 (Intel SDM, volume 3, chapter 6).
#include "lib/cases.h"

.text
.globl main
main:
  jmp run_cases

#include "lib/features.inc"
#include "exceptions64_traps.inc"
#include "exceptions64_faults.inc"
#include "exceptions64_pages.inc"

.data
.balign 64
buffer: .skip 64
