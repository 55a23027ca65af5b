// SPDX-License-Identifier: Apache-2.0
// Exceptions of 32-bit protected mode with 32-bit paging, with exact error codes, saved EIP and ESP, CR2 and DR6; segment limits,
// rings and tasks that 64-bit mode does not have.
#include "lib/cases.h"

.text
.globl main
main:                         // 4 MiB pages one to one for kernel and user, but for the test pages
  mov $directory, %edi
  mov $0x87, %eax
1:
  mov %eax, (%edi)
  add $4, %edi
  add $0x400000, %eax
  jnc 1b
  movl $test_table + 7, directory + (TEST_VA >> 22) * 4
  mov %cr4, %eax
  or $0x10, %eax              // PSE
  mov %eax, %cr4
  mov $directory, %eax
  mov %eax, %cr3
  mov %cr0, %eax
  or $0x80010020, %eax        // PG, WP, NE
  mov %eax, %cr0
  jmp run_cases

#include "lib/features.inc"
#include "exceptions32_traps.inc"
#include "exceptions32_segments.inc"
#include "exceptions32_pages.inc"

.data
.balign 64
buffer: .skip 64

.bss
.balign 4096
directory: .skip 4096
