// SPDX-License-Identifier: Apache-2.0
// Starts every other processor by INIT and SIPI, counts them, and has all of them work on shared memory.
// 64-bit code on the first processor; the others run a 16-bit, then 32-bit trampoline.
#include "lib/kernel.h"

#define LOCAL_APIC 0xfee00000
#define APIC_ID 0x20
#define APIC_EOI 0xb0
#define APIC_SPURIOUS 0xf0
#define ICR_LOW 0x300
#define ICR_HIGH 0x310
#define ICR_INIT_ALL_OTHERS 0xc4500
#define ICR_SIPI_ALL_OTHERS 0xc4600
#define ICR_FIXED_ALL_OTHERS 0xc4000
#define ICR_INIT 0x4500
#define ICR_SIPI 0x4600
#define TRAMPOLINE 0x8000
#define PING 0x40
#define STACK_BYTES 1024
#define ROUNDS 20000
#define PATIENCE 2000000000

.text
.globl main
main:
  call count_in_madt
  mov %eax, expected
  print "processors in the MADT: "
  mov expected, %eax
  call putdec
  print "\n"
  mov $LOCAL_APIC, %r15d      // here and on every other processor
  movl $0x1ff, APIC_SPURIOUS(%r15)
  call install_trampoline
  call start_others
  mov $online, %edi
  mov expected, %ecx
  dec %ecx
  call wait_for
  print "started: "
  mov online, %eax
  call putdec
  print "\n"
  mov expected, %eax
  dec %eax
  cmp online, %eax
  jne fail

  // All add to one counter at once, with and without LOCK on their own and on shared words.
  movl $1, go
  call work
  mov $finished, %edi
  mov expected, %ecx
  call wait_for
  mov expected, %eax
  imul $ROUNDS, %eax
  cmp counter, %eax
  jne fail_counter
  print "PASS atomic counter\n"

  // Every processor takes an interrupt from HLT, three times.
  mov $3, %r12d
1:
  mov expected, %ecx
  dec %ecx
  jz 2f
  mov pinged, %ebx
  add %ecx, %ebx
  movl $ICR_FIXED_ALL_OTHERS + PING, ICR_LOW(%r15)
  mov $pinged, %edi
  mov %ebx, %ecx
  call wait_for
  cmp pinged, %ebx
  jne fail_ping
  dec %r12d
  jnz 1b
2:
  print "PASS interrupts to all others\n"

  // INIT stops them where they are, and each can be started again, one by one, by its identifier.
  movl $ICR_INIT_ALL_OTHERS, ICR_LOW(%r15)
  call pause_a_while
  movl $0, online
  call restart_each
  mov $online, %edi
  mov expected, %ecx
  dec %ecx
  call wait_for
  mov expected, %eax
  dec %eax
  cmp online, %eax
  jne fail
  print "PASS restart of each\n"
  call test_x2apic
  test %eax, %eax
  jnz 3f
  mov $EXIT_PASS, %eax
  ret
3:
  mov $EXIT_FAIL, %eax
  ret

#include "smp_x2apic.inc"

fail:
  print "FAIL: started "
  mov online, %eax
  jmp fail_value
fail_counter:
  print "FAIL: counter "
  mov counter, %eax
  jmp fail_value
fail_ping:
  print "FAIL: pinged "
  mov pinged, %eax
fail_value:
  call putdec
  print "\n"
  mov $EXIT_FAIL, %eax
  ret

// EAX = enabled processors in the MADT, whose local APIC ids go to `ids`.
count_in_madt:
  mov $0x43495041, %eax       // "APIC"
  call acpi_find
  xor %eax, %eax
  test %rsi, %rsi
  jz 3f
  mov 4(%rsi), %edi
  add %rsi, %rdi
  add $44, %rsi
1:
  cmp %rdi, %rsi
  jae 3f
  cmpb $0, (%rsi)             // processor local APIC
  jne 2f
  testb $1, 4(%rsi)
  jz 2f
  mov 3(%rsi), %cl
  mov %cl, ids(%rax)
  inc %eax
2:
  movzbl 1(%rsi), %ecx
  test %ecx, %ecx
  jz 3f
  add %rcx, %rsi
  jmp 1b
3:
  ret

install_trampoline:
  mov $trampoline, %esi
  mov $TRAMPOLINE, %edi
  mov $trampoline_end - trampoline, %ecx
  rep movsb
  // One gate: the ping. Loaded by every processor.
  mov $ping, %eax
  mov $idt + PING * 16, %edi
  mov %ax, (%rdi)
  movw $KCODE, 2(%rdi)
  movw $0x8e00, 4(%rdi)
  shr $16, %eax
  mov %eax, 6(%rdi)
  movl $0, 10(%rdi)
  lidt idt_pointer
  ret

start_others:
  movl $ICR_INIT_ALL_OTHERS, ICR_LOW(%r15)
  call pause_a_while
  movl $ICR_SIPI_ALL_OTHERS + (TRAMPOLINE >> 12), ICR_LOW(%r15)
  call pause_a_while
  movl $ICR_SIPI_ALL_OTHERS + (TRAMPOLINE >> 12), ICR_LOW(%r15)   // ignored by those that run
  ret

restart_each:
  mov APIC_ID(%r15), %ebx
  shr $24, %ebx
  xor %ebp, %ebp
1:
  cmp expected, %ebp
  jae 3f
  movzbl ids(%rbp), %eax
  cmp %eax, %ebx
  je 2f
  shl $24, %eax
  mov %eax, ICR_HIGH(%r15)
  movl $ICR_INIT, ICR_LOW(%r15)
  call pause_a_while
  movl $ICR_SIPI + (TRAMPOLINE >> 12), ICR_LOW(%r15)
  call pause_a_while
2:
  inc %ebp
  jmp 1b
3:
  ret

// Until the counter at RDI reaches ECX, or patience ends.
wait_for:
  mov $PATIENCE, %edx
1:
  cmp %ecx, (%rdi)
  jae 2f
  pause
  dec %edx
  jnz 1b
2:
  ret
pause_a_while:
  mov $100000, %edx
1:
  pause
  dec %edx
  jnz 1b
  ret

// Waits for `go`, adds ROUNDS to the counter. Clobbers ECX.
work:
  cmpl $0, go
  pause
  je work
  mov $ROUNDS, %ecx
1:
  lock incl counter
  dec %ecx
  jnz 1b
  lock incl finished
  ret

ping:
  cmpl $0, x2apic
  jne 1f
  movl $0, APIC_EOI(%r15)
  lock incl pinged
  iretq
1:
  push %rax
  push %rcx
  push %rdx
  mov $X2APIC_EOI, %ecx
  xor %eax, %eax
  xor %edx, %edx
  wrmsr
  lock incl pinged
  pop %rdx
  pop %rcx
  pop %rax
  iretq

// Each other processor, in 64-bit mode with a stack of its own.
other_main:
  lidt idt_pointer
  mov $LOCAL_APIC, %r15d
  cmpl $0, x2apic
  jne 1f
  movl $0x1ff, APIC_SPURIOUS(%r15)
  jmp 2f
1:
  call enter_x2apic
2:
  lock incl online
  call work
1:
  sti
  hlt
  jmp 1b

// --- at TRAMPOLINE, from a SIPI: CS = TRAMPOLINE >> 4, IP = 0
.code16
trampoline:
  cli
  mov %cs, %ax
  mov %ax, %ds
  lgdtl trampoline_gdt_pointer - trampoline
  mov $0x11, %eax             // ET, PE
  mov %eax, %cr0
  ljmpl $0x18, $other_32
trampoline_gdt_pointer:
  .word trampoline_gdt_end - trampoline_gdt - 1
  .long trampoline_gdt
trampoline_end:

.code32
other_32:
  mov $KDATA, %eax
  mov %eax, %ds
  mov %eax, %ss
  mov %cr4, %eax
  or $0x620, %eax
  mov %eax, %cr4
  mov $boot_pml4, %eax
  mov %eax, %cr3
  mov $0xc0000080, %ecx
  rdmsr
  or $0x900, %eax
  wrmsr
  mov $0x80010033, %eax
  mov %eax, %cr0
  ljmp $KCODE, $other_64
.code64
other_64:
  mov $STACK_BYTES, %eax
  lock xadd %eax, next_stack
  lea stacks(%rax), %rsp
  jmp other_main

.data
.balign 16
trampoline_gdt:
  .quad 0
  .quad 0x00af9b000000ffff
  .quad 0x00cf93000000ffff
  .quad 0x00cf9b000000ffff
trampoline_gdt_end:
idt_pointer:
  .word 256 * 16 - 1
  .quad idt
.balign 64
next_stack: .long STACK_BYTES
expected: .long 0
.balign 64
online: .long 0
.balign 64
go: .long 0
.balign 64
counter: .long 0
.balign 64
finished: .long 0
.balign 64
pinged: .long 0

.bss
.balign 4096
idt: .skip 4096
ids: .skip 256
.balign 16
stacks: .skip 513 * 1024
