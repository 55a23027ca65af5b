// SPDX-License-Identifier: Apache-2.0
// Just enough ACPI for test kernels: find a table, turn the machine off. 64-bit code.
#include "kernel.h"

#define AREA_START 0xe0000
#define AREA_END 0x100000

.text

// RSI = address of the table whose signature is EAX, or 0. Clobbers all but RBP, RSP.
.globl acpi_find
acpi_find:
  mov %eax, %r8d
  mov $AREA_START, %esi
  movabs $0x2052545020445352, %rax   // "RSD PTR "
1:
  cmp %rax, (%rsi)
  je 2f
  add $16, %esi
  cmp $AREA_END, %esi
  jb 1b
  xor %esi, %esi
  ret
2:
  mov $4, %ecx                // size of an entry: 4 in the RSDT, 8 in the XSDT
  mov 16(%rsi), %ebx
  cmpb $2, 15(%rsi)
  jb 3f
  mov $8, %ecx
  mov 24(%rsi), %rbx
3:
  mov 4(%rbx), %edi           // length
  add %rbx, %rdi
  add $36, %rbx
4:
  xor %esi, %esi
  cmp %rdi, %rbx
  jae 6f
  mov (%rbx), %esi
  cmp $4, %ecx
  je 5f
  mov (%rbx), %rsi
5:
  add %rcx, %rbx
  cmp %r8d, (%rsi)
  jne 4b
6:
  ret

// Soft-off: SLP_TYP from the DSDT's \_S5, to the FADT's PM1a control block. Returns if there is no such thing. Clobbers all.
.globl acpi_power_off
acpi_power_off:
  mov $0x50434146, %eax       // "FACP"
  call acpi_find
  test %rsi, %rsi
  jz 9f
  mov 64(%rsi), %r9d          // PM1a_CNT_BLK
  mov 40(%rsi), %ebx          // DSDT
  test %r9d, %r9d
  jz 9f
  mov 4(%rbx), %ecx
  sub $8, %ecx
1:                            // "_S5_", package op, length of one byte, count, then SLP_TYP with or without a byte prefix
  cmpl $0x5f35535f, (%rbx)
  je 2f
  inc %rbx
  dec %ecx
  jnz 1b
9:
  ret
2:
  cmpb $0x12, 4(%rbx)
  jne 9b
  movzbl 7(%rbx), %eax
  cmp $0x0a, %al
  jne 3f
  movzbl 8(%rbx), %eax
3:
  shl $10, %eax
  or $0x2000, %eax            // SLP_EN
  mov %r9d, %edx
  out %ax, %dx
  mov $100000000, %ecx
4:
  pause
  dec %ecx
  jnz 4b
  ret
