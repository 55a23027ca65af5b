// SPDX-License-Identifier: Apache-2.0
// What every test kernel uses. Sources are assembled for 32-bit and 64-bit code; AX..DI are native registers.
#pragma once

#ifdef __x86_64__
#define AX %rax
#define BX %rbx
#define CX %rcx
#define DX %rdx
#define SI %rsi
#define DI %rdi
#define SP %rsp
#define BP %rbp
#define WORD_BYTES 8
#else
#define AX %eax
#define BX %ebx
#define CX %ecx
#define DX %edx
#define SI %esi
#define DI %edi
#define SP %esp
#define BP %ebp
#define WORD_BYTES 4
#endif

// Selectors of the boot GDT, and of the case runners' GDTs.
#define KCODE 0x08
#define KDATA 0x10

#define SERIAL_PORT 0x3f8
#define EXIT_PORT 0xf4      // isa-debug-exit: exit status (value << 1) | 1
#define EXIT_PASS 0
#define EXIT_FAIL 1

#define FLAG_CF 0x1
#define FLAG_RESERVED1 0x2
#define FLAG_ZF 0x40
#define FLAG_TF 0x100
#define FLAG_IF 0x200
#define FLAG_DF 0x400
#define FLAG_IOPL 0x3000
#define FLAG_NT 0x4000
#define FLAG_RF 0x10000
#define FLAG_VM 0x20000
#define FLAG_AC 0x40000
#define FLAG_ID 0x200000

#ifdef __ASSEMBLER__
// Prints a literal. Clobbers AX, DX, SI.
.macro print text:vararg
  .pushsection .rodata
  .Lprint\@: .asciz \text
  .popsection
  mov $.Lprint\@, SI
  call puts
.endm
#endif
