// SPDX-License-Identifier: Apache-2.0
// The borders between C++ and translated code. In translated code RSP is the CpuState, guest RSP is in R15, guest R12-R15
// are in CpuState::gpr, R12-R14 are scratch, everything else is the guest's. Vector registers are never touched here.
#include "engine/translate/frame_layout.h"

.text

// Guest registers that C++ may clobber -> CpuState. `base` is what to add to RSP to get the CpuState.
.macro saveCallerRegisters base
  mov %rax, (\base+0*8)(%rsp)
  mov %rcx, (\base+1*8)(%rsp)
  mov %rdx, (\base+2*8)(%rsp)
  mov %rsi, (\base+6*8)(%rsp)
  mov %rdi, (\base+7*8)(%rsp)
  mov %r8, (\base+8*8)(%rsp)
  mov %r9, (\base+9*8)(%rsp)
  mov %r10, (\base+10*8)(%rsp)
  mov %r11, (\base+11*8)(%rsp)
.endm

// The rest (C++ preserves them), and the scratch registers for rebuilding the state.
.macro saveCalleeRegisters base
  mov %rbx, (\base+3*8)(%rsp)
  mov %r15, (\base+4*8)(%rsp)
  mov %rbp, (\base+5*8)(%rsp)
  mov %r12, (\base+FRAME_SCRATCH12)(%rsp)
  mov %r13, (\base+FRAME_SCRATCH13)(%rsp)
  mov %r14, (\base+FRAME_SCRATCH14)(%rsp)
.endm

// RAX must have been saved. Keeps the arithmetic flags as LAHF/SETO bytes: AH, AL.
.macro saveFlags base
  lahf
  seto %al
  mov %eax, (\base+FRAME_SAVED_FLAGS)(%rsp)
.endm

// The saved bytes into state.rflags; clobbers RAX and RCX, which must have been saved.
.macro mergeFlags base
  mov (\base+FRAME_SAVED_FLAGS)(%rsp), %eax
  movzbl %al, %ecx
  shl $11, %ecx
  movzbl %ah, %eax
  and $(HOST_FLAGS & 0xff), %eax
  or %ecx, %eax
  mov (\base+STATE_RFLAGS)(%rsp), %rcx
  and $~HOST_FLAGS, %rcx
  or %rax, %rcx
  mov %rcx, (\base+STATE_RFLAGS)(%rsp)
.endm

.macro restoreFlags base
  mov (\base+FRAME_SAVED_FLAGS)(%rsp), %eax
  add $0x7f, %al
  sahf
.endm

.macro restoreCallerRegisters base
  mov (\base+1*8)(%rsp), %rcx
  mov (\base+2*8)(%rsp), %rdx
  mov (\base+6*8)(%rsp), %rsi
  mov (\base+7*8)(%rsp), %rdi
  mov (\base+8*8)(%rsp), %r8
  mov (\base+9*8)(%rsp), %r9
  mov (\base+10*8)(%rsp), %r10
  mov (\base+11*8)(%rsp), %r11
  mov (\base+0*8)(%rsp), %rax
.endm

.macro function name
  .globl \name
  .hidden \name
  .type \name, @function
  .p2align 4
\name:
.endm

// std::uint32_t lodgeEnterCache(CpuState* state, const void* code): runs translated code; returns the ExitReason.
function lodgeEnterCache
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  sub $8, %rsp
  mov %rsp, FRAME_HOST_STACK(%rdi)
  mov %rdi, %rsp
  // A signal that arrives between this test and the jump sends the thread to lodgeAbortEnter: nothing is lost.
  .globl lodgeEnterWindow
  .hidden lodgeEnterWindow
lodgeEnterWindow:
  cmpl $0, FRAME_ATTENTION(%rsp)
  jne lodgeAbortEnter
  mov %rsi, FRAME_EXIT_ADDRESS(%rsp)
  mov STATE_RFLAGS(%rsp), %rax
  mov %eax, %ecx
  shr $11, %ecx
  and $1, %ecx
  mov %al, %ah
  mov %cl, %al
  add $0x7f, %al
  sahf
  mov (3*8)(%rsp), %rbx
  mov (4*8)(%rsp), %r15
  mov (5*8)(%rsp), %rbp
  restoreCallerRegisters 0
  jmp *FRAME_EXIT_ADDRESS(%rsp)
  .globl lodgeEnterWindowEnd
  .hidden lodgeEnterWindowEnd
lodgeEnterWindowEnd:

// The handler sets RSP to the CpuState before it sends a thread here.
function lodgeAbortEnter
  mov $EXIT_ATTENTION, %eax
  jmp leave

// Common end: RSP is the CpuState, EAX the reason.
leave:
  mov FRAME_HOST_STACK(%rsp), %rsp
  add $8, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret

// All guest registers and flags are in the host; RSP is the CpuState. EXIT_ADDRESS and RIP are set or not needed.
.macro leaveWith reason
  saveCallerRegisters 0
  saveCalleeRegisters 0
  saveFlags 0
  mergeFlags 0
  mov $\reason, %eax
  jmp leave
.endm

// CALLed by the cold stub of a direct branch that is not linked yet.
function lodgeExitLink
  pop FRAME_EXIT_ADDRESS(%rsp)
  leaveWith EXIT_LINK

// CALLed where the instruction must be interpreted: the return address tells which.
function lodgeExitStep
  pop FRAME_EXIT_ADDRESS(%rsp)
  leaveWith EXIT_STEP

// Jumped to with the guest RIP in state.
function lodgeExitDispatch
  leaveWith EXIT_DISPATCH

// Where the signal handler sends a thread after it has put the precise RIP into state.
function lodgeExitFault
  leaveWith EXIT_FAULT
function lodgeExitAttention
  leaveWith EXIT_ATTENTION

// Soft TLB misses. CALLed from cold paths with the linear address in R12. Everything but R13 is preserved, flags included.
.macro missEntry name, write
function \name
  saveCallerRegisters 8
  saveFlags 8
  mov $\write, %edx
  jmp tlbMiss
.endm
missEntry lodgeMissRead, 0
missEntry lodgeMissWrite, 1

tlbMiss:
  lea 8(%rsp), %rdi
  mov %r12, %rsi
  mov FRAME_HOST_STACK(%rdi), %rsp
  push %rdi
  sub $8, %rsp
  call lodgeTlbMiss
  add $8, %rsp
  pop %rsp
  test %eax, %eax
  jz missFailed
  .globl lodgeMissWindow
  .hidden lodgeMissWindow
lodgeMissWindow:
  cmpl $0, FRAME_ATTENTION(%rsp)
  jne lodgeAbortMiss
  restoreFlags 0
  restoreCallerRegisters 0
  lea -8(%rsp), %rsp
  ret
  .globl lodgeMissWindowEnd
  .hidden lodgeMissWindowEnd
lodgeMissWindowEnd:

// Registers saved by saveCallerRegisters; the flags by saveFlags; RSP is the CpuState.
missFailed:
  saveCalleeRegisters 0
  mergeFlags 0
  mov -8(%rsp), %rax
  mov %rax, FRAME_EXIT_ADDRESS(%rsp)
  mov $EXIT_STEP, %eax
  jmp leave
function lodgeAbortMiss
  saveCalleeRegisters 0
  mergeFlags 0
  mov -8(%rsp), %rax
  mov %rax, FRAME_EXIT_ADDRESS(%rsp)
  mov $EXIT_REDO, %eax
  jmp leave

// Indirect branch whose target is not in the table. Jumped to with the target in R13 (tagged by mode).
function lodgeIndirectMiss
  saveCallerRegisters 0
  saveFlags 0
  mov %rsp, %rdi
  mov %r13, %rsi
  mov %r13, FRAME_TARGET(%rsp)
  mov FRAME_HOST_STACK(%rdi), %rsp
  push %rdi
  sub $8, %rsp
  call lodgeLookupIndirect
  add $8, %rsp
  pop %rsp
  mov %rax, FRAME_EXIT_ADDRESS(%rsp)
  test %rax, %rax
  jz lodgeAbortIndirect
  .globl lodgeIndirectWindow
  .hidden lodgeIndirectWindow
lodgeIndirectWindow:
  cmpl $0, FRAME_ATTENTION(%rsp)
  jne lodgeAbortIndirect
  restoreFlags 0
  restoreCallerRegisters 0
  jmp *FRAME_EXIT_ADDRESS(%rsp)
  .globl lodgeIndirectWindowEnd
  .hidden lodgeIndirectWindowEnd
lodgeIndirectWindowEnd:
function lodgeAbortIndirect
  saveCalleeRegisters 0
  mergeFlags 0
  mov $EXIT_INDIRECT, %eax
  jmp leave

// Interpreter call-out in the middle of a translation. CALLed with the instruction's RIP in R14 and the next one's in R13.
// Comes back if execution goes on there, else leaves with RIP in state.
function lodgeCallStep
  saveCallerRegisters 8
  saveCalleeRegisters 8
  saveFlags 8
  mergeFlags 8
  lea 8(%rsp), %rdi
  mov %r14, %rsi
  mov %r13, %rdx
  mov FRAME_HOST_STACK(%rdi), %rsp
  push %rdi
  sub $8, %rsp
  call lodgeStep
  add $8, %rsp
  pop %rsp
  test %eax, %eax
  jz leaveAfterStep
  .globl lodgeStepWindow
  .hidden lodgeStepWindow
lodgeStepWindow:
  cmpl $0, FRAME_ATTENTION(%rsp)
  jne leaveAfterStep
  mov STATE_RFLAGS(%rsp), %rax
  mov %eax, %ecx
  shr $11, %ecx
  and $1, %ecx
  mov %al, %ah
  mov %cl, %al
  add $0x7f, %al
  sahf
  mov (3*8)(%rsp), %rbx
  mov (4*8)(%rsp), %r15
  mov (5*8)(%rsp), %rbp
  restoreCallerRegisters 0
  lea -8(%rsp), %rsp
  ret
  .globl lodgeStepWindowEnd
  .hidden lodgeStepWindowEnd
lodgeStepWindowEnd:
// State is complete already, flags in state.rflags.
  .globl lodgeAbortStep
  .hidden lodgeAbortStep
lodgeAbortStep:
leaveAfterStep:
  mov $EXIT_ATTENTION, %eax
  jmp leave

.section .note.GNU-stack,"",@progbits
