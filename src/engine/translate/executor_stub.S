// SPDX-License-Identifier: Apache-2.0
// The part of an executor that is not guest code: what leaves guest code and enters it. Copied to EXECUTOR_CODE of each
// executor; executor_stub.cpp is the rest of it. No relocation, no data.
#include "engine/translate/executor_layout.h"

#define SEEN_FROM(offset) __start_lodge_executor - EXECUTOR_CODE + offset
// A word of ExecutorState.
#define STATE(offset) __start_lodge_executor - EXECUTOR_CODE + EXECUTOR_STATE + offset(%rip)

  .section lodge_executor, "ax", @progbits
  .hidden __start_lodge_executor

// From translated code: all registers are the guest's; reason, exitRip and info are set.
  .globl executorExit
  .balign 16
executorExit:
  mov %rax, STATE(EXECUTOR_GPR)
  mov %rcx, STATE(EXECUTOR_GPR+8)
  mov %rdx, STATE(EXECUTOR_GPR+16)
  mov %rbx, STATE(EXECUTOR_GPR+24)
  mov %rsp, STATE(EXECUTOR_GPR+32)
  mov %rbp, STATE(EXECUTOR_GPR+40)
  mov %rsi, STATE(EXECUTOR_GPR+48)
  mov %rdi, STATE(EXECUTOR_GPR+56)
  mov %r8, STATE(EXECUTOR_GPR+64)
  mov %r9, STATE(EXECUTOR_GPR+72)
  mov %r10, STATE(EXECUTOR_GPR+80)
  mov %r11, STATE(EXECUTOR_GPR+88)
  mov %r12, STATE(EXECUTOR_GPR+96)
  mov %r13, STATE(EXECUTOR_GPR+104)
  mov %r14, STATE(EXECUTOR_GPR+112)
  mov %r15, STATE(EXECUTOR_GPR+120)
  lea SEEN_FROM(EXECUTOR_STACK + EXECUTOR_STACK_BYTES)(%rip), %rsp
  pushfq
  popq STATE(EXECUTOR_FLAGS)
  cld
  rdfsbase %rax
  mov %rax, STATE(EXECUTOR_FS_BASE)
  rdgsbase %rax
  mov %rax, STATE(EXECUTOR_GS_BASE)
  mov %ds, STATE(EXECUTOR_SELECTORS)
  mov %es, STATE(EXECUTOR_SELECTORS+2)
  mov %fs, STATE(EXECUTOR_SELECTORS+4)
  mov %gs, STATE(EXECUTOR_SELECTORS+6)
  mov %cs, STATE(EXECUTOR_CODE_SELECTOR)
  lea SEEN_FROM(EXECUTOR_STATE)(%rip), %rdi
  mov STATE(EXECUTOR_COMPONENTS), %eax
  xor %edx, %edx
  xsave64 EXECUTOR_XSAVE(%rdi)
// The stop: the filter asks the machine, which answers when this is to go on. Nothing that is in a register or on a
// stack counts from then on, as guest code may have come here by itself.
  .globl executorStop
executorStop:
  mov $EXECUTOR_STOP_CALL, %eax
  syscall
  .globl executorStopped
executorStopped:
  cmp $EXECUTOR_GO_ON, %eax  // not that a kick ended the wait
  jne executorStop
  lea SEEN_FROM(EXECUTOR_STACK + EXECUTOR_STACK_BYTES)(%rip), %rsp
  pushq $2                 // no flag of guest code's: IRETQ faults with NT
  popfq
  lea SEEN_FROM(EXECUTOR_COMMANDS + EXECUTOR_SIGNAL_STACK_SET)(%rip), %rdi
  xor %esi, %esi
  mov $131, %eax           // sigaltstack
  syscall
  .globl executorStackSet
executorStackSet:
// The machine's commands, with no signal to see the cookie without which the filter refuses them.
  mov SEEN_FROM(EXECUTOR_COMMANDS + EXECUTOR_COMMAND_COUNT)(%rip), %rbx
  test %rbx, %rbx
  jz 6f
  lea SEEN_FROM(EXECUTOR_COMMANDS + EXECUTOR_ALL_BLOCKED)(%rip), %rsi
  mov $2, %edi             // SIG_SETMASK
  xor %edx, %edx
  mov $8, %r10d
  mov $14, %eax            // rt_sigprocmask
  syscall
  .globl executorBlocked
executorBlocked:
  mov STATE(EXECUTOR_COOKIE), %r14
  movq $0, STATE(EXECUTOR_COOKIE)
  lea SEEN_FROM(EXECUTOR_COMMANDS + EXECUTOR_FIRST_COMMAND)(%rip), %r12
  xor %r13d, %r13d
  movabs $0xffffffff00000000, %r15
1:
  mov (%r12), %rdi
  mov 8(%r12), %rsi
  mov 16(%r12), %r9
  cmp $-1, %r9
  je 2f
  mov 24(%r12), %rdx
  mov %r14, %r8
  and %r15, %r8
  mov SEEN_FROM(EXECUTOR_COMMANDS + EXECUTOR_RAM_FILE)(%rip), %r10d
  or %r10, %r8             // the file, and a half of the cookie above it
  mov %r14, %r10
  shl $32, %r10
  or $EXECUTOR_MAP_FLAGS, %r10
  mov $9, %eax             // mmap
  syscall
  .globl executorMapped
executorMapped:
  jmp 3f
2:
  mov %r14, %rdx
  mov $11, %eax            // munmap
  syscall
  .globl executorUnmapped
executorUnmapped:
3:
  cmp $-4096, %rax
  jbe 4f
  inc %r13d
4:
  add $32, %r12
  dec %rbx
  jnz 1b
  xor %r14d, %r14d
  xor %r8d, %r8d
  xor %r10d, %r10d
  xor %edx, %edx
  mov %r13d, STATE(EXECUTOR_FAILED)
  test %r13d, %r13d        // no guest code with a page that it must not see
  jnz executorAbort
6:
  lea SEEN_FROM(EXECUTOR_COMMANDS + EXECUTOR_KICKS_ONLY)(%rip), %rsi
  mov $2, %edi
  xor %edx, %edx
  mov $8, %r10d
  mov $14, %eax
  syscall
  .globl executorUnblocked
executorUnblocked:
  lea SEEN_FROM(EXECUTOR_STATE)(%rip), %rdi
  mov STATE(EXECUTOR_COMPONENTS), %eax
  xor %edx, %edx
  xrstor64 EXECUTOR_XSAVE(%rdi)
  xor %eax, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  mov STATE(EXECUTOR_FS_BASE), %rax
  wrfsbase %rax
  mov STATE(EXECUTOR_GS_BASE), %rax
  wrgsbase %rax
// A kick from here on finds this window and leads to executorAbort; one that came before is noted.
  .globl executorWindow
executorWindow:
  cmpl $0, STATE(EXECUTOR_KICKED)
  jne executorAbort
  mov %ss, %eax
  push %rax
  pushq STATE(EXECUTOR_GPR+32)
  pushq STATE(EXECUTOR_FLAGS)
  mov %cs, %eax
  push %rax
  pushq STATE(EXECUTOR_HOST_PC)
  mov STATE(EXECUTOR_GPR), %rax
  mov STATE(EXECUTOR_GPR+8), %rcx
  mov STATE(EXECUTOR_GPR+16), %rdx
  mov STATE(EXECUTOR_GPR+24), %rbx
  mov STATE(EXECUTOR_GPR+40), %rbp
  mov STATE(EXECUTOR_GPR+48), %rsi
  mov STATE(EXECUTOR_GPR+56), %rdi
  mov STATE(EXECUTOR_GPR+64), %r8
  mov STATE(EXECUTOR_GPR+72), %r9
  mov STATE(EXECUTOR_GPR+80), %r10
  mov STATE(EXECUTOR_GPR+88), %r11
  mov STATE(EXECUTOR_GPR+96), %r12
  mov STATE(EXECUTOR_GPR+104), %r13
  mov STATE(EXECUTOR_GPR+112), %r14
  mov STATE(EXECUTOR_GPR+120), %r15
  iretq
  .globl executorWindowEnd
executorWindowEnd:
  .globl executorAbort
executorAbort:
  movl $EXECUTOR_REASON_ABORTED, STATE(EXECUTOR_REASON)
  jmp executorStop

// Flags, and the registers that an indirect branch uses.
.macro RESTORE_AFTER_LOOK
  mov STATE(EXECUTOR_SPILL3), %rax
  add $0x7f, %al
  sahf
  mov STATE(EXECUTOR_SPILL0), %rcx
  mov STATE(EXECUTOR_SPILL1), %rdx
  mov STATE(EXECUTOR_SPILL2), %rax
.endm

// An indirect branch whose target (RAX) is not in the first table. RCX, RDX and RAX are in the spill words; RCX is where
// to go on with the target found.
  .globl executorMiss
  .balign 16
executorMiss:
  mov %rcx, STATE(EXECUTOR_RETURN)
  mov %rax, %rdx
  mov %rax, STATE(EXECUTOR_EXIT_RIP)
  lahf
  seto %al
  mov %rax, STATE(EXECUTOR_SPILL3)
  subl $1, STATE(EXECUTOR_LOOKS)
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
  movl $EXECUTOR_REASON_INDIRECT, STATE(EXECUTOR_REASON)
  jmp executorExit
3:
  mov 8(%rax), %rdx
  mov %rdx, STATE(EXECUTOR_TARGET)
  RESTORE_AFTER_LOOK
  jmp *STATE(EXECUTOR_RETURN)

// The first thing that runs. The machine's first commands make it forget everything else.
  .globl executorBegin
  .balign 16
executorBegin:
  movl $EXECUTOR_REASON_ABORTED, STATE(EXECUTOR_REASON)
  jmp executorStop

  .globl executorHandler
  .balign 16
executorHandler:
  jmp executorSignal

  .globl executorRestorer
  .balign 16
executorRestorer:
  mov $15, %eax            // rt_sigreturn
  syscall
  .globl executorReturned
executorReturned:
  .globl executorDie
executorDie:
  mov $1, %edi
  mov $231, %eax           // exit_group
  syscall
  .globl executorDied
executorDied:
  jmp executorDie

  .section .note.GNU-stack, "", @progbits
