// SPDX-License-Identifier: Apache-2.0
// Cases: short snippets that run in a given mode and privilege and must end with a given exception or interrupt. A kernel is a
// list of them between its sections; the runner (cases64.S, cases32.S) gives each a fresh machine state and prints one line.
//
//   case u64, "mov ds refuses a kernel segment", vector=V_GP, error=KDATA
//     mov $KDATA, %eax
//   9: mov %eax, %ds         // 9: is where the saved RIP must point
//     done
//
// A case without `vector` passes if it comes to `done` with AX = BX. With a vector, error code and saved RIP must be right and
// the saved stack pointer `sp` bytes below its start; where cr2 or dr6 are given, these too. `setup` is a kernel routine that runs
// before; it may leave a reason in SI to skip the case (otherwise 0).
#pragma once

#include "kernel.h"

// Segments; the same numbers in the 64-bit and the 32-bit runner. System descriptors take two slots.
#define KCODE32 0x18      // DPL 0 32-bit code
#define UCODE32 0x20
#define UDATA 0x28
#define UCODE64 0x30
#define TSS 0x38
#define LDT 0x48
#define NPDATA 0x58       // not present
#define CONF32 0x60       // conforming, DPL 0
#define CALLGATE 0x68     // DPL 3, to gate_target
#define CALLGATE0 0x78    // DPL 0
#define RODATA 0x88
#define XOCODE32 0x90     // execute-only
#define NPCODE32 0x98     // not present
#define SMALLDATA 0xa0    // limit 0xfff
#define EXPDOWN 0xa8      // expand-down, limit 0xffffff
#define NPGATE 0xb0       // a call gate that is not present
#define CONF64 0xc0       // conforming, DPL 0
#define TSS2 0xc8         // an available TSS
#define INTGATE 0xd8      // an interrupt gate, which has no business in a GDT
#define RING1GATE 0xe8    // 32-bit runner: a call gate to ring 1
#define RING1CODE 0xf8
#define CODE16 0x100      // 32-bit runner: 16-bit segments at BASE16
#define DATA16 0x108
#define PARAMGATE 0x110   // 32-bit runner: a call gate, DPL 3, that copies two parameters
#define GDT_BYTES 0x120
#define LDT_UDATA 0x04    // in the LDT
#define LDT_KDATA 0x0c
#define LDT_BYTES 0x10
#define LDT_LIMIT 0xf
#define NOSEGMENT 0x1000  // beyond the limit

// Vectors with gates of their own; all others have DPL 0 interrupt gates to the runner.
#define DONE 0x80         // DPL 3
#define INT_USER 0x81     // DPL 3
#define INT_KERNEL 0x82   // DPL 0
#define INT_ABSENT 0x83   // DPL 3, not present
#define INT_IRET 0x84     // DPL 3, to a handler that returns at once
#define INT_TRAP 0x85     // DPL 3, a trap gate
#define INT_IST 0x86      // 64-bit runner: stack from IST2
#define IDT_VECTORS 0x90
#define INT_NONE 0xf0     // beyond the limit
#define IDT_ERROR(n) ((n) * 8 + 2)

#define V_DE 0
#define V_DB 1
#define V_NMI 2
#define V_BP 3
#define V_OF 4
#define V_BR 5
#define V_UD 6
#define V_NM 7
#define V_DF 8
#define V_TS 10
#define V_NP 11
#define V_SS 12
#define V_GP 13
#define V_PF 14
#define V_MF 16
#define V_AC 17
#define V_XM 19

// A region whose 4 KiB pages a case's setup maps: nothing is there at a case's start.
#define TEST_VA 0x70000000
#define TEST_PA 0x01000000   // RAM behind it
#define UNCHECKED 0xdeadbeef

// Case records: name, environment, start, vector, error, RIP, SP, setup, CR2, DR6.
#define CASE_NAME 0
#define CASE_ENV 4
#define CASE_START 8
#define CASE_VECTOR 12
#define CASE_ERROR 16
#define CASE_RIP 20
#define CASE_SP 24
#define CASE_SETUP 28
#define CASE_CR2 32
#define CASE_DR6 36
#define CASE_BYTES 40

// Environments: name, kind, CS, SS and data segments, flags, stack pointer, bits of AX and BX that count.
#define ENV_NAME 0
#define ENV_KIND 4
#define ENV_CS 8
#define ENV_DATA 12
#define ENV_FLAGS 16
#define ENV_SP 20
#define ENV_MASK 24
#define KIND_PROTECTED 0   // or 64-bit, compatibility mode
#define KIND_V86 1
#define KIND_REAL 2

// 16-bit cases (real mode, virtual-8086 mode) lie in .text16, which is linked at 0 and copied to BASE16; they have BUFFER16 in
// their segment for data.
#define BASE16 0x10000
#define SEGMENT16 0x1000
#define BUFFER16 0xe000
#define STACK16 0xfff0
#define LOW_CODE 0x7000      // room for a few bytes of code that 16-bit offsets reach

#ifdef __ASSEMBLER__
.macro case env, name, vector=DONE, error=0, sp=0, setup=0, cr2=UNCHECKED, dr6=UNCHECKED, rip=9f
  .pushsection .rodata
  .Lcase\@: .asciz "\name"
  .popsection
  .pushsection .cases, "a"
  .long .Lcase\@, env_\env, 8f, \vector, \error, \rip, \sp, \setup, \cr2, \dr6
  .popsection
8:
.endm

// The snippet's end.
.macro done
  int $DONE
9:
.endm
// The same in 16-bit cases: INT n is not for everybody in virtual-8086 mode.
.macro done16
  int3
9:
.endm
#endif
