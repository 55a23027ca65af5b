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

// CALLed where Frame::misaligned has come to 0.
function lodgeExitMisaligned
  pop FRAME_EXIT_ADDRESS(%rsp)
  leaveWith EXIT_MISALIGNED

// CALLed with the address of an access in R12 that is not aligned to its size: comes back if it stays in its page. R13 and
// flags are free.
.macro mayCross bytes
function lodgeMayCross\bytes
  lea (\bytes-1)(%r12), %r13
  jmp mayCross
.endm
mayCross 2
mayCross 4
mayCross 8

mayCross:
  xor %r12, %r13
  test $0x1000, %r13d
  jnz lodgeExitStep
  subl $1, (8+FRAME_MISALIGNED)(%rsp)
  jz lodgeExitMisaligned
  .globl lodgeCrossWindow
  .hidden lodgeCrossWindow
lodgeCrossWindow:
  cmpl $0, (8+FRAME_ATTENTION)(%rsp)
  jne crossAttention
  ret
  .globl lodgeCrossWindowEnd
  .hidden lodgeCrossWindowEnd
lodgeCrossWindowEnd:
crossAttention:
  lea 8(%rsp), %rsp
function lodgeAbortCross
  mov -8(%rsp), %r13
  mov %r13, FRAME_EXIT_ADDRESS(%rsp)
  leaveWith EXIT_REDO

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
  test %rax, %rax
  jz leaveAfterStep
  // Where to go on: behind the CALL, or at other translated code.
  cmp $1, %rax
  cmove -8(%rsp), %rax
  mov %rax, FRAME_EXIT_ADDRESS(%rsp)
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
  jmp *FRAME_EXIT_ADDRESS(%rsp)
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

// SYSCALL in user code and SYSRET in kernel code, 64-bit both. CALLed with the instruction's RIP in R14 and the next one's
// in R13; R12 is free. Come back with the target in R13, or go through lodgeCallStep where anything is out of the ordinary.

#define SEGMENT_CS (STATE_SEGMENT + 16)
#define SEGMENT_SS (STATE_SEGMENT + 32)
#define FLAG_AC 0x40000
// What SYSRET may load without further thought: arithmetic flags, bit 1, IF, DF, ID.
#define SYSRET_FLAGS 0x200ed7

// RAX holds LAHF/SETO: the whole of RFLAGS into RAX; clobbers R12.
.macro wholeFlags base
  movzbl %al, %r12d
  shl $11, %r12d
  movzbl %ah, %eax
  and $(HOST_FLAGS & 0xff), %eax
  or %eax, %r12d
  mov (\base+STATE_RFLAGS)(%rsp), %rax
  and $~HOST_FLAGS, %rax
  or %r12, %rax
.endm

// Loads the arithmetic flags from RAX = RFLAGS.
.macro loadFlags
  rol $8, %ax
  and $8, %al
  add $0x78, %al
  sahf
.endm

// A flat segment register pair for CPL `cpl`; RAX = CS selector without RPL, which becomes part of both; clobbers R12.
.macro flatSegments base, cpl
  shl $32, %rax
  movabs $(0xa09b0000ffffffff | \cpl << 32 | \cpl << 53), %r12
  or %rax, %r12
  mov %r12, (\base+SEGMENT_CS+8)(%rsp)
  movq $0, (\base+SEGMENT_CS)(%rsp)
  movq $0, (\base+SEGMENT_SS)(%rsp)
.endm

function lodgeSyscall
  mov %rax, (8+FRAME_SAVED_RAX)(%rsp)
  lahf
  seto %al
  mov %eax, (8+FRAME_SAVED_FLAGS)(%rsp)
  cmpl $0, (8+FRAME_KERNEL_KEY)(%rsp)
  je slowSystemCall
  wholeFlags 8
  mov (8+STATE_SFMASK)(%rsp), %r12
  not %r12
  and %rax, %r12
  test $FLAG_AC, %r12d
  jnz slowSystemCall
  mov %rax, %r11
  or $2, %r12
  mov %r12, (8+STATE_RFLAGS)(%rsp)
  mov %r13, %rcx
  movzwl (8+STATE_STAR+4)(%rsp), %eax
  and $0xfffc, %eax
  flatSegments 8, 0
  // SS is the next descriptor's selector, with a data segment's attributes.
  movabs $((0xc093 - 0xa09b) << 48 | 8 << 32), %rax
  add %r12, %rax
  mov %rax, (8+SEGMENT_SS+8)(%rsp)
  movb $0, (8+STATE_CPL)(%rsp)
  mov (8+FRAME_KERNEL_KEY)(%rsp), %eax
  mov %eax, (8+FRAME_KEY)(%rsp)
  mov (8+STATE_LSTAR)(%rsp), %r13
  jmp endSystemCall

function lodgeSysret
  mov %rax, (8+FRAME_SAVED_RAX)(%rsp)
  lahf
  seto %al
  mov %eax, (8+FRAME_SAVED_FLAGS)(%rsp)
  mov (8+FRAME_USER_KEY)(%rsp), %eax
  test %eax, %eax
  jz slowSystemCall
  mov (8+CPU_EVENTS)(%rsp), %r12d
  or (8+CPU_DEFERRED)(%rsp), %r12d
  jnz slowSystemCall
  mov %rcx, %r12
  shr $47, %r12
  jnz slowSystemCall
  test $~SYSRET_FLAGS, %r11
  jnz slowSystemCall
  mov %eax, (8+FRAME_KEY)(%rsp)
  mov %r11, %rax
  or $2, %rax
  mov %rax, (8+STATE_RFLAGS)(%rsp)
  movzwl (8+STATE_STAR+6)(%rsp), %eax
  add $16, %eax
  and $0xfffc, %eax
  flatSegments 8, 3
  // SS is the descriptor before it.
  movzwl (8+STATE_STAR+6)(%rsp), %eax
  add $8, %eax
  and $0xfffc, %eax
  or $3, %eax
  shl $32, %rax
  movabs $0xc0f30000ffffffff, %r12
  or %rax, %r12
  mov %r12, (8+SEGMENT_SS+8)(%rsp)
  movb $3, (8+STATE_CPL)(%rsp)
  mov %rcx, %r13
endSystemCall:
  lea 8(%rsp), %rsp
  .globl lodgeSyscallWindow
  .hidden lodgeSyscallWindow
lodgeSyscallWindow:
  cmpl $0, FRAME_ATTENTION(%rsp)
  jne lodgeAbortSyscall
  mov STATE_RFLAGS(%rsp), %rax
  loadFlags
  mov FRAME_SAVED_RAX(%rsp), %rax
  lea -8(%rsp), %rsp
  ret
  .globl lodgeSyscallWindowEnd
  .hidden lodgeSyscallWindowEnd
lodgeSyscallWindowEnd:
// The new flags are in state.rflags, the target in R13, RAX in the Frame.
function lodgeAbortSyscall
  mov FRAME_SAVED_RAX(%rsp), %rax
  mov %r13, STATE_RIP(%rsp)
  saveCallerRegisters 0
  saveCalleeRegisters 0
  mov $EXIT_ATTENTION, %eax
  jmp leave

// Nothing has been changed but RAX, R12 and the flags.
slowSystemCall:
  restoreFlags 8
  mov (8+FRAME_SAVED_RAX)(%rsp), %rax
  movabs $0x8000000000000000, %r13
  jmp lodgeCallStep

.section .note.GNU-stack,"",@progbits
