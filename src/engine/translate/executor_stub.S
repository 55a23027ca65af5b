// SPDX-License-Identifier: Apache-2.0
// The part of an executor that is not guest code: what leaves guest code and enters it. Copied to EXECUTOR_CODE of each
// executor; executor_stub.cpp is the rest of it. No relocation, no data.
#include "engine/translate/executor_layout.h"

#define SEEN_FROM(offset) __start_lodge_executor - EXECUTOR_CODE + offset

  .section lodge_executor, "ax", @progbits
  .hidden __start_lodge_executor

// From translated code: all registers are the guest's; reason, exitRip and info are set.
  .globl executorExit
  .balign 16
executorExit:
  mov %rax, %gs:EXECUTOR_GPR
  mov %rcx, %gs:EXECUTOR_GPR+8
  mov %rdx, %gs:EXECUTOR_GPR+16
  mov %rbx, %gs:EXECUTOR_GPR+24
  mov %rsp, %gs:EXECUTOR_GPR+32
  mov %rbp, %gs:EXECUTOR_GPR+40
  mov %rsi, %gs:EXECUTOR_GPR+48
  mov %rdi, %gs:EXECUTOR_GPR+56
  mov %r8, %gs:EXECUTOR_GPR+64
  mov %r9, %gs:EXECUTOR_GPR+72
  mov %r10, %gs:EXECUTOR_GPR+80
  mov %r11, %gs:EXECUTOR_GPR+88
  mov %r12, %gs:EXECUTOR_GPR+96
  mov %r13, %gs:EXECUTOR_GPR+104
  mov %r14, %gs:EXECUTOR_GPR+112
  mov %r15, %gs:EXECUTOR_GPR+120
  lea SEEN_FROM(EXECUTOR_STACK + EXECUTOR_STACK_BYTES)(%rip), %rsp
  pushfq
  popq %gs:EXECUTOR_FLAGS
  cld
  rdtsc
  mov %eax, %gs:EXECUTOR_LEFT
  mov %edx, %gs:EXECUTOR_LEFT+4
  rdfsbase %rax
  mov %rax, %gs:EXECUTOR_FS_BASE
  lea SEEN_FROM(EXECUTOR_STATE)(%rip), %rdi
  mov %gs:EXECUTOR_COMPONENTS, %eax
  xor %edx, %edx
  xsave64 EXECUTOR_XSAVE(%rdi)
executorWait:
  lea SEEN_FROM(EXECUTOR_STATE)(%rip), %rdi
  call executorHandOver
// Goes on as the state says. RSP is the stub's or the signal stack's.
  .globl executorEnter
executorEnter:
  lea SEEN_FROM(EXECUTOR_STATE)(%rip), %rdi
  mov %gs:EXECUTOR_COMPONENTS, %eax
  xor %edx, %edx
  xrstor64 EXECUTOR_XSAVE(%rdi)
  mov %gs:EXECUTOR_FS_BASE, %rax
  wrfsbase %rax
  rdtsc
  mov %eax, %gs:EXECUTOR_ENTERED
  mov %edx, %gs:EXECUTOR_ENTERED+4
// A kick from here on finds this window and leads to executorAbort; one that came before is noted.
  .globl executorWindow
executorWindow:
  cmpl $0, %gs:EXECUTOR_KICKED
  jne executorAbort
  pushq %gs:EXECUTOR_FLAGS
  popfq
  mov %gs:EXECUTOR_GPR, %rax
  mov %gs:EXECUTOR_GPR+8, %rcx
  mov %gs:EXECUTOR_GPR+16, %rdx
  mov %gs:EXECUTOR_GPR+24, %rbx
  mov %gs:EXECUTOR_GPR+40, %rbp
  mov %gs:EXECUTOR_GPR+48, %rsi
  mov %gs:EXECUTOR_GPR+56, %rdi
  mov %gs:EXECUTOR_GPR+64, %r8
  mov %gs:EXECUTOR_GPR+72, %r9
  mov %gs:EXECUTOR_GPR+80, %r10
  mov %gs:EXECUTOR_GPR+88, %r11
  mov %gs:EXECUTOR_GPR+96, %r12
  mov %gs:EXECUTOR_GPR+104, %r13
  mov %gs:EXECUTOR_GPR+112, %r14
  mov %gs:EXECUTOR_GPR+120, %r15
  mov %gs:EXECUTOR_GPR+32, %rsp
  jmp *%gs:EXECUTOR_HOST_PC
  .globl executorWindowEnd
executorWindowEnd:
  .globl executorAbort
executorAbort:
  lea SEEN_FROM(EXECUTOR_STACK + EXECUTOR_STACK_BYTES)(%rip), %rsp
  cld
  movl $EXECUTOR_REASON_ABORTED, %gs:EXECUTOR_REASON
  jmp executorWait

// Flags, and the registers that an indirect branch uses.
.macro RESTORE_AFTER_LOOK
  mov %gs:EXECUTOR_SPILL3, %rax
  add $0x7f, %al
  sahf
  mov %gs:EXECUTOR_SPILL0, %rcx
  mov %gs:EXECUTOR_SPILL1, %rdx
  mov %gs:EXECUTOR_SPILL2, %rax
.endm

// An indirect branch whose target (RAX) is not in the first table. RCX, RDX and RAX are in the spill words; RCX is where
// to go on with the target found.
  .globl executorMiss
  .balign 16
executorMiss:
  mov %rcx, %gs:EXECUTOR_RETURN
  mov %rax, %rdx
  mov %rax, %gs:EXECUTOR_EXIT_RIP
  lahf
  seto %al
  mov %rax, %gs:EXECUTOR_SPILL3
  subl $1, %gs:EXECUTOR_LOOKS
  js 2f
  movabs $EXECUTOR_HASH, %rcx
  imul %rdx, %rcx
  shr $EXECUTOR_HASH_SHIFT, %rcx
  shl $4, %rcx
  neg %rdx
  jz 2f                    // an empty entry has this key
  lea SEEN_FROM(EXECUTOR_TABLE2)(%rip), %rax
  add %rcx, %rax
  mov $EXECUTOR_HASH_WAYS, %ecx
1:
  cmp %rdx, (%rax)
  je 3f
  add $16, %rax
  dec %ecx
  jnz 1b
2:
  RESTORE_AFTER_LOOK
  movl $EXECUTOR_REASON_INDIRECT, %gs:EXECUTOR_REASON
  jmp executorExit
3:
  mov 8(%rax), %rdx
  mov %rdx, %gs:EXECUTOR_TARGET
  RESTORE_AFTER_LOOK
  jmp *%gs:EXECUTOR_RETURN

// The first thing that runs: RDI = base, RSI = end of the lower half. Forgets everything else.
  .globl executorBegin
  .balign 16
executorBegin:
  wrgsbase %rdi
  mov %rsi, %r12
  lea SEEN_FROM(EXECUTOR_STACK + EXECUTOR_STACK_BYTES)(%rip), %rsp
  mov %rdi, %rbx
  xor %ebp, %ebp
  mov %rbx, %rsi
  xor %edi, %edi
  mov $11, %eax            // munmap
  syscall
  lea EXECUTOR_BYTES(%rbx), %rdi
  mov %r12, %rsi
  sub %rdi, %rsi
  mov $11, %eax
  syscall
  movl $EXECUTOR_REASON_ABORTED, %gs:EXECUTOR_REASON
  jmp executorWait

  .globl executorHandler
  .balign 16
executorHandler:
  jmp executorSignal

  .globl executorRestorer
  .balign 16
executorRestorer:
  mov $15, %eax            // rt_sigreturn
  syscall

  .section .note.GNU-stack, "", @progbits
