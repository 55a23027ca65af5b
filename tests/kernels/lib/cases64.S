// SPDX-License-Identifier: Apache-2.0
// Runs cases (cases.h) in 64-bit and compatibility mode.
#include "cases.h"

#define GATE_BYTES 16
#define IDT_BYTES (IDT_VECTORS * GATE_BYTES)
#define TSS_BYTES 0x68
#define LEVEL_TABLE_ENTRY (boot_directories + (TEST_VA >> 21) * 8)

.text

// Runs all cases; EAX = exit value.
.globl run_cases
run_cases:
  mov %cr0, %rax
  mov %rax, initial_cr0
  mov %cr4, %rax
  mov %rax, initial_cr4
  mov $0xff, %al              // no interrupts from the 8259s
  out %al, $0x21
  out %al, $0xa1
  movl $0, passed
  movl $0, failed
  movl $0, skipped
  movl $cases_start, current
next_case:
  cmpl $cases_end, current
  jae 1f
  call fresh_state
  mov current, %ebp
  mov CASE_SETUP(%rbp), %eax
  test %eax, %eax
  jz enter_case
  xor %esi, %esi
  call *%rax
  test %esi, %esi
  jz enter_case
  call report_skip
  jmp advance
1:
  call report_summary
  mov $EXIT_PASS, %eax
  cmpl $0, failed
  je 2f
  mov $EXIT_FAIL, %eax
2:
  ret

// Enters the case by IRETQ. Registers have known values: the low half of each tells its number.
enter_case:
  mov %rsp, kernel_sp
  mov current, %ebp
  mov CASE_ENV(%rbp), %edi
  mov ENV_DATA(%rdi), %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  push %rax
  mov ENV_SP(%rdi), %eax
  push %rax
  mov ENV_FLAGS(%rdi), %eax
  push %rax
  mov ENV_CS(%rdi), %eax
  push %rax
  mov CASE_START(%rbp), %eax
  push %rax
  mov $0xa0000000, %eax
  mov $0xa0000001, %ecx
  mov $0xa0000002, %edx
  mov $0xa0000003, %ebx
  mov $0xa0000005, %ebp
  mov $0xa0000006, %esi
  mov $0xa0000007, %edi
  iretq

// Every vector's gate comes here with vector and error code on the stack.
common_stub:
  mov %rax, result_ax
  mov %rbx, result_bx
  pop result_vector
  pop result_error
  pop result_rip
  pop result_cs
  pop result_flags
  pop result_sp
  pop result_ss
  mov $KDATA, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov kernel_sp, %rsp
  cld
  mov %cr2, %rax
  mov %rax, result_cr2
  mov %dr6, %rax
  mov %rax, result_dr6
  call judge
advance:
  addl $CASE_BYTES, current
  jmp next_case

// The machine as each case finds it: tables, control and debug registers, x87, no test pages.
fresh_state:
  mov $gdt_template, %esi
  mov $gdt, %edi
  mov $GDT_BYTES / 8, %ecx
  rep movsq
  mov $gdt_template, %esi     // LDT entries: user and kernel data
  mov UDATA(%rsi), %rax
  mov %rax, ldt
  mov KDATA(%rsi), %rax
  mov %rax, ldt + 8
  mov $tss, %edi
  mov $TSS_BYTES / 4, %ecx
  xor %eax, %eax
  rep stosl
  movq $interrupt_stack_top, tss + 4
  movq $ist1_stack_top, tss + 0x24
  movq $ist2_stack_top, tss + 0x2c
  movw $TSS_BYTES, tss + 0x66
  mov $tss, %eax
  mov $gdt + TSS, %edi
  call set_base
  mov $ldt, %eax
  mov $gdt + LDT, %edi
  call set_base
  mov $tss, %eax
  mov $gdt + TSS2, %edi
  call set_base
  mov $gate_target, %eax
  mov $gdt + CALLGATE, %edi
  call set_offset
  mov $gdt + CALLGATE0, %edi
  call set_offset
  mov $gdt + NPGATE, %edi
  call set_offset
  call build_idt
  mov initial_cr0, %rax
  mov %rax, %cr0
  mov initial_cr4, %rax
  mov %rax, %cr4
  lgdt gdt_pointer
  lidt idt_pointer
  pushq $KCODE
  pushq $1f
  lretq
1:
  mov $LDT, %eax
  lldt %ax
  mov $TSS, %eax
  ltr %ax
  xor %eax, %eax
  mov %rax, %cr2
  mov %rax, %dr7
  mov %rax, %dr0
  mov $0xffff0ff0, %eax
  mov %rax, %dr6
  fninit
  movl $0x1f80, default_mxcsr
  ldmxcsr default_mxcsr
  mov $test_table, %edi
  mov $512, %ecx
  xor %eax, %eax
  rep stosq
  movq $test_table + 7, LEVEL_TABLE_ENTRY
  movq $0x87, boot_directories
  mov %cr3, %rax
  mov %rax, %cr3
  ret

// Base EAX into the descriptor at RDI.
set_base:
  mov %ax, 2(%rdi)
  mov %eax, %edx
  shr $16, %edx
  mov %dl, 4(%rdi)
  mov %dh, 7(%rdi)
  ret

// Offset EAX into the gate at RDI.
.globl set_offset
set_offset:
  mov %ax, (%rdi)
  mov %eax, %edx
  shr $16, %edx
  mov %dx, 6(%rdi)
  movl $0, 8(%rdi)
  ret

build_idt:
  mov $idt, %edi
  mov $stubs, %eax
  mov $IDT_VECTORS, %ecx
1:
  movw $KCODE, 2(%rdi)
  movw $0x8e00, 4(%rdi)
  movl $0, 12(%rdi)
  call set_offset
  add $16, %eax
  add $GATE_BYTES, %edi
  dec %ecx
  jnz 1b
  movb $0xee, idt + V_BP * GATE_BYTES + 5
  movb $0xee, idt + V_OF * GATE_BYTES + 5
  movb $0xee, idt + DONE * GATE_BYTES + 5
  movb $0xee, idt + INT_USER * GATE_BYTES + 5
  movb $0x6e, idt + INT_ABSENT * GATE_BYTES + 5
  movb $0xee, idt + INT_IRET * GATE_BYTES + 5
  movb $0xef, idt + INT_TRAP * GATE_BYTES + 5
  movb $1, idt + V_DF * GATE_BYTES + 4
  movb $1, idt + V_NMI * GATE_BYTES + 4
  movb $2, idt + INT_IST * GATE_BYTES + 4
  mov $iret_handler, %eax
  mov $idt + INT_IRET * GATE_BYTES, %edi
  jmp set_offset

iret_handler:
  iretq

// Where call gates lead: EAX = CS, and back.
.globl gate_target
gate_target:
  mov %cs, %eax
  lretq

.balign 16
stubs:
.set vector, 0
.rept IDT_VECTORS
  .balign 16
  .if vector == V_DF || vector == V_TS || vector == V_NP || vector == V_SS || vector == V_GP || vector == V_PF || vector == V_AC || vector == 21
  .else
  pushq $0
  .endif
  pushq $vector
  jmp common_stub
  .set vector, vector + 1
.endr

.data
.balign 16
gdt_template:
  .quad 0
  .quad 0x00af9b000000ffff    // KCODE
  .quad 0x00cf93000000ffff    // KDATA
  .quad 0x00cf9b000000ffff    // KCODE32
  .quad 0x00cffb000000ffff    // UCODE32
  .quad 0x00cff3000000ffff    // UDATA
  .quad 0x00affb000000ffff    // UCODE64
  .quad 0x0000890000000000 + TSS_BYTES - 1, 0
  .quad 0x0000820000000000 + LDT_BYTES - 1, 0
  .quad 0x00cf73000000ffff    // NPDATA
  .quad 0x00cf9f000000ffff    // CONF32
  .quad 0x0000ec0000080000, 0 // CALLGATE
  .quad 0x00008c0000080000, 0 // CALLGATE0
  .quad 0x00cff1000000ffff    // RODATA
  .quad 0x00cff9000000ffff    // XOCODE32
  .quad 0x00cf7b000000ffff    // NPCODE32
  .quad 0x0040f30000000fff    // SMALLDATA
  .quad 0x00c0f70000000fff    // EXPDOWN
  .quad 0x00006c0000080000, 0 // NPGATE
  .quad 0x00af9f000000ffff    // CONF64
  .quad 0x0000890000000000 + TSS_BYTES - 1, 0
  .quad 0x0000ee0000080000, 0 // INTGATE
  .quad 0, 0, 0, 0, 0, 0, 0   // the 32-bit runner's
.globl gdt_pointer, idt_pointer, idt_limit
.set idt_limit, IDT_BYTES - 1
gdt_pointer:
  .word GDT_BYTES - 1
  .quad gdt
idt_pointer:
  .word idt_limit
  .quad idt

.macro environment name, cs, data, flags, mask
  .pushsection .rodata
  1: .asciz "\name"
  .popsection
  .globl env_\name
  env_\name: .long 1b, KIND_PROTECTED, \cs, \data, FLAG_RESERVED1 + \flags, case_stack_top
  .quad \mask
.endm
environment k64, KCODE, KDATA, 0, -1
environment u64, UCODE64 | 3, UDATA | 3, 0, -1
environment u64io, UCODE64 | 3, UDATA | 3, FLAG_IOPL, -1
environment k32, KCODE32, KDATA, 0, 0xffffffff
environment u32, UCODE32 | 3, UDATA | 3, 0, 0xffffffff
environment u32io, UCODE32 | 3, UDATA | 3, FLAG_IOPL, 0xffffffff

.bss
.balign 4096
.globl test_table
test_table: .skip 4096
.globl gdt, idt, ldt, tss
gdt: .skip GDT_BYTES
ldt: .skip LDT_BYTES
idt: .skip IDT_BYTES
tss: .skip TSS_BYTES
.balign 16
.globl initial_cr0, initial_cr4
initial_cr0: .skip 8
initial_cr4: .skip 8
kernel_sp: .skip 8
default_mxcsr: .skip 8
  .skip 4096
.globl case_stack_top
case_stack_top: .skip 256
  .skip 4096
.globl interrupt_stack_top
interrupt_stack_top: .skip 16
  .skip 4096
ist1_stack_top: .skip 16
  .skip 4096
.globl ist2_stack_top
ist2_stack_top: .skip 16
