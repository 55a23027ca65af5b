// SPDX-License-Identifier: Apache-2.0
// Runs cases (cases.h) in 32-bit protected mode, virtual-8086 mode and real mode, without paging unless the kernel turned it on.
#include "cases.h"

#define GATE_BYTES 8
#define IDT_BYTES (IDT_VECTORS * GATE_BYTES)
#define TSS_BYTES 0x68
#define STUB16_BYTES 8

.text

// Runs all cases; EAX = exit value.
.globl run_cases
run_cases:
  mov %cr0, %eax
  mov %eax, initial_cr0
  mov %cr4, %eax
  mov %eax, initial_cr4
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
  mov CASE_SETUP(%ebp), %eax
  test %eax, %eax
  jz enter_case
  xor %esi, %esi
  call *%eax
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

// Enters the case by IRET, with known values in the registers.
enter_case:
  mov %esp, kernel_sp
  mov current, %ebp
  mov CASE_ENV(%ebp), %edi
  mov ENV_DATA(%edi), %eax
  mov CASE_START(%ebp), %ebx
  cmpl $KIND_REAL, ENV_KIND(%edi)
  je enter_real
  cmpl $KIND_V86, ENV_KIND(%edi)
  je 2f
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  mov ENV_SP(%edi), %ecx
  testl $3, ENV_CS(%edi)
  jz 1f
  push %eax
  push %ecx
  jmp 3f
1:
  mov %ecx, %esp
  jmp 3f
2:
  push %eax                   // GS, FS, DS, ES, SS
  push %eax
  push %eax
  push %eax
  push %eax
  pushl ENV_SP(%edi)
3:
  pushl ENV_FLAGS(%edi)
  pushl ENV_CS(%edi)
  push %ebx
  mov $0xa0000000, %eax
  mov $0xa0000001, %ecx
  mov $0xa0000002, %edx
  mov $0xa0000003, %ebx
  mov $0xa0000005, %ebp
  mov $0xa0000006, %esi
  mov $0xa0000007, %edi
  iretl

enter_real:
  lidt real_idt_pointer
  mov $DATA16, %eax
  ljmp $CODE16, $real_entry

// Every vector's gate comes here with vector and error code on the stack. Data segments may be anything.
common_stub:
  push %eax
  mov $KDATA, %eax
  mov %eax, %ds
  mov %eax, %es
  pop result_ax
  mov %ebx, result_bx
  pop result_vector
  pop result_error
  pop result_rip
  pop result_cs
  pop result_flags
  testl $FLAG_VM, result_flags
  jnz 1f
  testl $3, result_cs
  jnz 1f
  mov %esp, result_sp
  mov %ss, %eax
  mov %eax, result_ss
  jmp case_over
1:
  pop result_sp
  pop result_ss

.globl case_over
case_over:
  mov $KDATA, %eax
  mov %eax, %ss
  mov kernel_sp, %esp
  mov %eax, %fs
  mov %eax, %gs
  cld
  mov %cr2, %eax
  mov %eax, result_cr2
  mov %dr6, %eax
  mov %eax, result_dr6
  call judge
advance:
  addl $CASE_BYTES, current
  jmp next_case

// Back from real mode; real_exit left its results in the 16-bit segment.
.globl return_from_real
return_from_real:
  mov $KDATA, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $result_vector, %edi
  mov $BASE16 + real_results, %esi
  mov $11, %ecx
  rep movsl
  mov kernel_sp, %esp
  jmp case_over

// The machine as each case finds it: tables, control and debug registers, x87, no test pages.
.globl fresh_state
fresh_state:
  mov initial_cr0, %eax
  mov %eax, %cr0
  mov initial_cr4, %eax
  mov %eax, %cr4
  mov $gdt_template, %esi
  mov $gdt, %edi
  mov $GDT_BYTES / 4, %ecx
  rep movsl
  mov $gdt_template + UDATA, %esi   // LDT entries: user and kernel data
  mov $ldt, %edi
  movsl
  movsl
  mov $gdt_template + KDATA, %esi
  movsl
  movsl
  mov $tss, %edi
  mov $TSS_BYTES / 4, %ecx
  xor %eax, %eax
  rep stosl
  movl $interrupt_stack_top, tss + 4
  movl $KDATA, tss + 8
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
  mov $parameter_function, %eax
  mov $gdt + PARAMGATE, %edi
  call set_offset
  call build_idt
  lgdt gdt_pointer
  lidt idt_pointer
  ljmp $KCODE, $1f
1:
  mov $LDT, %eax
  lldt %ax
  mov $TSS, %eax
  ltr %ax
  mov $text16_load, %esi
  mov $BASE16, %edi
  mov $text16_bytes, %ecx
  rep movsb
  call build_ivt
  xor %eax, %eax
  mov %eax, %cr2
  mov %eax, %dr7
  mov %eax, %dr0
  mov $0xffff0ff0, %eax
  mov %eax, %dr6
  fninit
  mov $test_table, %edi
  mov $1024, %ecx
  xor %eax, %eax
  rep stosl
  mov %cr3, %eax
  mov %eax, %cr3
  ret

// Base EAX into the descriptor at EDI.
.globl set_base
set_base:
  mov %ax, 2(%edi)
  mov %eax, %edx
  shr $16, %edx
  mov %dl, 4(%edi)
  mov %dh, 7(%edi)
  ret

// Offset EAX into the gate at EDI.
.globl set_offset
set_offset:
  mov %ax, (%edi)
  mov %eax, %edx
  shr $16, %edx
  mov %dx, 6(%edi)
  ret

build_idt:
  mov $idt, %edi
  mov $stubs, %eax
  mov $IDT_VECTORS, %ecx
1:
  movw $KCODE, 2(%edi)
  movw $0x8e00, 4(%edi)
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
  mov $iret_handler, %eax
  mov $idt + INT_IRET * GATE_BYTES, %edi
  jmp set_offset

build_ivt:
  xor %edi, %edi
  mov $SEGMENT16 << 16, %eax
  mov $stubs16, %ax
  mov $256, %ecx
1:
  stosl
  add $STUB16_BYTES, %eax
  dec %ecx
  jnz 1b
  movw $iret_handler16, INT_IRET * 4
  ret

iret_handler:
  iretl

// Where call gates lead: EAX = CS, and back.
.globl gate_target
gate_target:
  mov %cs, %eax
  lretl

// The parameter gate's target, unless the kernel has one.
.weak parameter_function

.balign 16
stubs:
.set vector, 0
.rept IDT_VECTORS
  .balign 16
  .if vector == V_DF || vector == V_TS || vector == V_NP || vector == V_SS || vector == V_GP || vector == V_PF || vector == V_AC || vector == 21
  .else
  pushl $0
  .endif
  pushl $vector
  jmp common_stub
  .set vector, vector + 1
.endr

// --- 16-bit code
.section .text16, "ax"
.code16
// From 32-bit protected mode into the case: EAX = DATA16, EDI = environment (32-bit address), EBX = start.
real_entry:
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  mov %eax, %ss
  mov $STACK16, %esp
  mov %cr0, %eax
  and $0xfffffffe, %eax
  mov %eax, %cr0
  ljmp $SEGMENT16, $1f
1:
  mov $SEGMENT16, %ax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %fs
  mov %ax, %gs
  mov %ax, %ss
  pushw $FLAG_RESERVED1
  push %cs
  push %bx
  mov $0xa0000000, %eax
  mov $0xa0000001, %ecx
  mov $0xa0000002, %edx
  mov $0xa0000003, %ebx
  mov $0xa0000005, %ebp
  mov $0xa0000006, %esi
  mov $0xa0000007, %edi
  iretw

iret_handler16:
  iretw

common_stub16:
  mov %eax, %cs:real_ax
  mov %ebx, %cs:real_bx
  popw %cs:real_vector
  popw %cs:real_rip
  popw %cs:real_cs
  popw %cs:real_flags
  mov %sp, %cs:real_sp
  mov %ss, %cs:real_ss
  lgdtl %cs:real_gdt_pointer
  mov %cr0, %eax
  or $1, %eax
  mov %eax, %cr0
  ljmpl $KCODE, $return_from_real

// In the order of judge.S's result_vector and what follows it.
.balign 4
real_results:
real_vector: .long 0
real_error: .long 0
real_rip: .long 0
real_cs: .long 0
real_flags: .long 0
real_sp: .long 0
real_ss: .long 0
  .long 0, 0
real_ax: .long 0
real_bx: .long 0
real_gdt_pointer:
  .word GDT_BYTES - 1
  .long gdt

.balign 8
stubs16:
.set vector, 0
.rept 256
  .balign STUB16_BYTES
  pushw $vector
  jmp common_stub16
  .set vector, vector + 1
.endr
.code32

.data
.balign 16
gdt_template:
  .quad 0
  .quad 0x00cf9b000000ffff    // KCODE
  .quad 0x00cf93000000ffff    // KDATA
  .quad 0x00cf9b000000ffff    // KCODE32
  .quad 0x00cffb000000ffff    // UCODE32
  .quad 0x00cff3000000ffff    // UDATA
  .quad 0x00cffb000000ffff    // UCODE64: 32-bit here
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
  .quad 0x00cf9f000000ffff    // CONF64: 32-bit here
  .quad 0x0000890000000000 + TSS_BYTES - 1, 0
  .quad 0x0000ee0000080000, 0 // INTGATE
  .quad 0x0000ec0000000000 + (RING1CODE << 16), 0
  .quad 0x00cfbb000000ffff    // RING1CODE
  .quad 0x00009b010000ffff    // CODE16
  .quad 0x000093010000ffff    // DATA16
  .quad 0x0000ec0200080000, 0 // PARAMGATE
.globl gdt_pointer, idt_pointer, idt_limit
.set idt_limit, IDT_BYTES - 1
gdt_pointer:
  .word GDT_BYTES - 1
  .long gdt
idt_pointer:
  .word idt_limit
  .long idt
real_idt_pointer:
  .word 0x3ff
  .long 0

.macro environment name, kind, cs, data, flags, sp, mask
  .pushsection .rodata
  1: .asciz "\name"
  .popsection
  .globl env_\name
  env_\name: .long 1b, \kind, \cs, \data, FLAG_RESERVED1 + \flags, \sp, \mask
.endm
environment p32, KIND_PROTECTED, KCODE32, KDATA, 0, case_stack_top, -1
environment pu32, KIND_PROTECTED, UCODE32 | 3, UDATA | 3, 0, case_stack_top, -1
environment pu32io, KIND_PROTECTED, UCODE32 | 3, UDATA | 3, FLAG_IOPL, case_stack_top, -1
environment v86, KIND_V86, SEGMENT16, SEGMENT16, FLAG_VM, STACK16, -1
environment v86io, KIND_V86, SEGMENT16, SEGMENT16, FLAG_VM | FLAG_IOPL, STACK16, -1
environment real, KIND_REAL, SEGMENT16, SEGMENT16, 0, STACK16, -1

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
initial_cr0: .skip 4
initial_cr4: .skip 4
kernel_sp: .skip 4
  .skip 4096
.globl case_stack_top
case_stack_top: .skip 256
  .skip 4096
.globl interrupt_stack_top
interrupt_stack_top: .skip 16
