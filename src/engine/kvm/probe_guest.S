/* SPDX-License-Identifier: Apache-2.0 */
/* The guest program of the KVM probe: what every 64-bit kernel does, a little of each. It starts in ring 0 of long mode at
   PROBE_CODE, reports each step on PROBE_PORT and ends with HLT. Position-independent; all it uses is in probe_guest.h. */
#include "engine/kvm/probe_guest.h"

.macro step number
  movb $\number, %al
  outb %al, $PROBE_PORT
.endm

  .section .rodata.lodge_kvm_probe, "a"
  .balign 16
  .global lodgeKvmProbeBegin
lodgeKvmProbeBegin:
  step PROBE_STEP_STARTED

  /* Control and model-specific registers. */
  movq %cr4, %rax
  orq $0x80, %rax                 /* PGE */
  movq %rax, %cr4
  movq %cr3, %rax
  movq %rax, %cr3
  invlpg PROBE_HOLE
  movl $0xc0000081, %ecx          /* STAR: bits 47:32 are syscall's CS, 63:48 + 16 sysret's */
  xorl %eax, %eax
  movl $(((PROBE_USER_SS - 8) << 16) | PROBE_KERNEL_CS), %edx
  wrmsr
  movl $0xc0000082, %ecx          /* LSTAR */
  leaq onSyscall(%rip), %rax
  xorl %edx, %edx
  wrmsr
  rdmsr
  leaq onSyscall(%rip), %rbx
  cmpl %eax, %ebx
  jne failed
  movl $0xc0000084, %ecx          /* FMASK */
  movl $0x200, %eax
  xorl %edx, %edx
  wrmsr
  movl $0xc0000102, %ecx          /* KERNEL_GS_BASE, and SWAPGS */
  movl $PROBE_STACK, %eax
  xorl %edx, %edx
  wrmsr
  swapgs
  movq $0x1234, %gs:-8
  swapgs
  cmpq $0x1234, PROBE_STACK-8
  jne failed
  xorl %eax, %eax
  cpuid
  step PROBE_STEP_REGISTERS

  /* An exception and the return from it: onInvalidOpcode skips the two bytes of UD2. */
  xorl %r12d, %r12d
  ud2
  cmpl $6, %r12d
  jne failed
  step PROBE_STEP_EXCEPTION

  /* A page fault with its error code and CR2: onPageFault resumes at r13. */
  xorl %r12d, %r12d
  leaq afterFault(%rip), %r13
  movq $1, PROBE_HOLE+8
  jmp failed
afterFault:
  cmpl $14, %r12d
  jne failed
  cmpl $2, %r14d                  /* a write, to a page that is not present, by the supervisor */
  jne failed
  cmpq $(PROBE_HOLE+8), %r15
  jne failed
  step PROBE_STEP_PAGE_FAULT

  /* A device register. */
  movl PROBE_MMIO, %eax
  cmpl $PROBE_MMIO_VALUE, %eax
  jne failed
  movl %eax, PROBE_MMIO+4
  step PROBE_STEP_MMIO

  /* Ring 3 and back through an interrupt gate. */
  pushq $PROBE_USER_SS
  pushq $PROBE_USER_STACK
  pushq $2
  pushq $PROBE_USER_CS
  leaq user(%rip), %rax
  pushq %rax
  iretq
user:
  movw %cs, %ax
  cmpw $PROBE_USER_CS, %ax
  jne failed
  int $0x80
  leaq afterInt(%rip), %rcx
  /* Comes back in ring 3. */
afterInt:
  movl $0x5157, %edi
  syscall
  ud2
onInterrupt:
  testb $3, 8(%rsp)
  jz failed
  step PROBE_STEP_USER
  iretq
onSyscall:
  movq $PROBE_STACK, %rsp
  cmpl $0x5157, %edi
  jne failed
  step PROBE_STEP_SYSCALL

  /* Speed: arithmetic, memory and branches. PROBE_LOOP_INSTRUCTIONS a round. */
  movl $PROBE_LOOP_ROUNDS, %ecx
  xorl %eax, %eax
  movl $PROBE_USER_STACK, %edi
  step PROBE_STEP_LOOP_BEGIN
1:
  addq %rcx, %rax
  movq %rax, (%rdi)
  imulq $5, %rax, %rdx
  xorq %rdx, %rax
  addq (%rdi), %rax
  rolq $7, %rax
  decl %ecx
  jnz 1b
  step PROBE_STEP_LOOP_END
  hlt

onInvalidOpcode:
  movl $6, %r12d
  addq $2, (%rsp)
  iretq
onPageFault:
  popq %r14
  movl $14, %r12d
  movq %cr2, %r15
  movq %r13, (%rsp)
  iretq
failed:
  step PROBE_STEP_FAILED
  hlt
  .global lodgeKvmProbeEnd
lodgeKvmProbeEnd:

  /* Where the host finds the handlers, as offsets. */
  .balign 4
  .global lodgeKvmProbeHandlers
lodgeKvmProbeHandlers:
  .long onInvalidOpcode - lodgeKvmProbeBegin
  .long onPageFault - lodgeKvmProbeBegin
  .long onInterrupt - lodgeKvmProbeBegin
  .section .note.GNU-stack, "", @progbits
