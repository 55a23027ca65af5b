// SPDX-License-Identifier: Apache-2.0
// Writes pseudo-random values to every device register there is: BARs of all PCI functions, ECAM, the APICs, all I/O ports. What
// would end the machine or stop this processor is left out: exit, reset and power-off ports, INIT and NMI by the APICs.
// It passes if it comes to its end.
#include "lib/kernel.h"

#define LOCAL_APIC 0xfee00000
#define IO_APIC 0xfec00000
#define TEST_WINDOW 0xff000000
#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA 0xcfc
#define MAX_BARS 64
#define BAR_BYTES 0x4000      // of each BAR, from its start
#define PORT_ROUNDS 6
#define WINDOW_ROUNDS 4
#define DELIVERY_MODE 0x700

.text
.globl main
main:
  mov $0x2545f4914f6cdd1d, %r15   // the generator's state
  call install_idt
  call find_bars
  print "memory BARs: "
  mov bar_count, %eax
  call putdec
  print "\n"
  xor %ebp, %ebp
1:
  cmp bar_count, %ebp
  jae 2f
  mov bars(,%rbp,8), %rdi
  call map_window
  mov $BAR_BYTES, %ecx
  call scribble
  inc %ebp
  jmp 1b
2:
  print "BARs written\n"
  call scribble_local_apic
  call scribble_io_apic
  mov $TEST_WINDOW, %edi
  mov $0x10000, %ecx
  call scribble
  print "APICs written\n"
  call scribble_ecam
  print "ECAM written\n"
  mov $PORT_ROUNDS, %ebp
3:
  call scribble_ports
  dec %ebp
  jnz 3b
  mov $0x80000000, %eax       // what the configuration ports pointed at last is none of the exit's business
  mov $CONFIG_ADDRESS, %edx
  out %eax, %dx
  call serial_init
  print "\nports written\nPASS garbage\n"
  mov $EXIT_PASS, %eax
  ret

// RAX = the next value (xorshift64*). Clobbers nothing else.
random:
  push %rcx
  mov %r15, %rcx
  shr $12, %rcx
  xor %rcx, %r15
  mov %r15, %rcx
  shl $25, %rcx
  xor %rcx, %r15
  mov %r15, %rcx
  shr $27, %rcx
  xor %rcx, %r15
  movabs $0x2545f4914f6cdd1d, %rax
  imul %r15, %rax
  rol $32, %rax
  pop %rcx
  ret

// A non-maskable interrupt, or whatever else comes, is ignored.
install_idt:
  mov $idt, %edi
  mov $256, %ecx
1:
  mov $ignore, %eax
  mov %ax, (%rdi)
  movw $KCODE, 2(%rdi)
  movw $0x8e00, 4(%rdi)
  shr $16, %eax
  mov %eax, 6(%rdi)
  movl $0, 10(%rdi)
  add $16, %edi
  dec %ecx
  jnz 1b
  lidt idt_pointer
  ret
ignore:
  iretq

// Reads or writes everything from RDI on for ECX bytes, WINDOW_ROUNDS times, in sizes of 1 to 8 bytes at aligned offsets.
scribble:
  mov $WINDOW_ROUNDS, %r9d
1:
  xor %esi, %esi
2:
  call random
  mov %rax, %rdx
  mov %eax, %r8d
  shr $29, %r8d
  lea (%rdi,%rsi), %r10
  cmp $3, %r8d
  jb 3f
  je 4f
  cmp $5, %r8d
  jb 5f
  je 6f
  mov (%r10), %eax            // some reads among the writes
  jmp 7f
3:
  mov %edx, (%r10)
  jmp 7f
4:
  mov %dl, (%r10)
  mov %dl, 3(%r10)
  jmp 7f
5:
  mov %dx, 2(%r10)
  jmp 7f
6:
  and $~7, %r10
  mov %rdx, (%r10)
7:
  add $4, %esi
  cmp %ecx, %esi
  jb 2b
  dec %r9d
  jnz 1b
  ret

// The local APIC's registers are 16 bytes apart. Not the interrupt command register: its messages reach processors.
scribble_local_apic:
  mov $WINDOW_ROUNDS * 4, %r9d
1:
  mov $LOCAL_APIC, %edi
2:
  mov %edi, %eax
  and $0xff0, %eax
  cmp $0x300, %eax
  je 3f
  call random
  and $~DELIVERY_MODE, %eax   // no NMI, INIT or SMI from the local vector table
  mov %eax, (%rdi)
  mov (%rdi), %eax
3:
  add $16, %edi
  test $0xfff, %edi
  jnz 2b
  dec %r9d
  jnz 1b
  ret

// I/O APIC: redirection entries with any content but the delivery mode, and garbage beside the two registers.
scribble_io_apic:
  mov $IO_APIC, %edi
  mov $WINDOW_ROUNDS, %r9d
1:
  xor %ecx, %ecx
2:
  mov %ecx, (%rdi)
  call random
  and $~DELIVERY_MODE, %eax
  mov %eax, 0x10(%rdi)
  mov 0x10(%rdi), %eax
  inc %ecx
  cmp $256, %ecx
  jb 2b
  dec %r9d
  jnz 1b
  mov $4, %esi
3:
  call random
  cmp $0x10, %esi
  je 4f
  mov %eax, (%rdi,%rsi)
4:
  add $4, %esi
  cmp $0x1000, %esi
  jb 3b
  mov $0x10, %ecx             // all masked in the end
5:
  mov %ecx, (%rdi)
  movl $0x10000, 0x10(%rdi)
  add $2, %ecx
  cmp $0x40, %ecx
  jb 5b
  ret

scribble_ecam:
  mov $0x4746434d, %eax       // "MCFG"
  call acpi_find
  test %rsi, %rsi
  jz 1f
  mov 44(%rsi), %rdi
  call map_window
  mov $0x100000, %ecx
  jmp scribble
1:
  ret

// Every port once, in a size that changes from port to port and from round to round.
scribble_ports:
  xor %ecx, %ecx
1:
  mov $spared, %esi
2:
  movzwl (%rsi), %eax
  movzwl 2(%rsi), %edx
  add $4, %esi
  test %edx, %edx
  jz 3f
  sub $3, %eax                // a four-byte access may begin before
  cmp %eax, %ecx
  jl 2b
  cmp %edx, %ecx
  ja 2b
  jmp 7f
3:
  call random
  mov %ecx, %edx
  test $1 << 20, %eax
  jnz 6f
  mov %eax, %ebx
  shr $30, %ebx
  cmp $1, %ebx
  jb 4f
  je 5f
  out %al, %dx
  jmp 7f
4:
  out %eax, %dx
  jmp 7f
5:
  out %ax, %dx
  jmp 7f
6:
  in %dx, %al
7:
  inc %ecx
  cmp $0x10000, %ecx
  jb 1b
  ret

// All memory BARs of bus 0 that have an address.
find_bars:
  mov $0x80000000, %ebx       // configuration address of device 0, function 0
1:
  mov %ebx, %eax
  call read_config
  cmp $0xffff, %ax
  je 5f
  mov $0x10, %ecx
2:
  lea (%rbx,%rcx), %eax
  call read_config
  test $1, %al
  jnz 4f
  mov %eax, %edi
  and $~15, %edi
  and $6, %eax
  cmp $4, %eax
  jne 3f
  lea 4(%rbx,%rcx), %eax
  call read_config
  shl $32, %rax
  or %rax, %rdi
  add $4, %ecx
3:
  test %rdi, %rdi
  jz 4f
  mov bar_count, %eax
  cmp $MAX_BARS, %eax
  jae 4f
  mov %rdi, bars(,%rax,8)
  incl bar_count
4:
  add $4, %ecx
  cmp $0x28, %ecx
  jb 2b
5:
  add $0x100, %ebx
  cmp $0x80010000, %ebx
  jb 1b
  ret
read_config:
  mov $CONFIG_ADDRESS, %edx
  out %eax, %dx
  mov $CONFIG_DATA, %edx
  in %dx, %eax
  ret

// Maps the 2 MiB around RDI one to one where boot.S did not. Keeps all but RAX, RCX, RDX, RSI.
map_window:
  mov $boot_pml4, %esi
  mov $39, %ecx
1:
  mov %rdi, %rax
  shr %cl, %rax
  and $511, %eax
  lea (%rsi,%rax,8), %rdx
  cmp $21, %ecx
  je 3f
  testb $1, (%rdx)
  jnz 2f
  mov next_table, %eax
  addl $4096, next_table
  or $7, %eax
  mov %rax, (%rdx)
2:
  mov (%rdx), %rsi
  and $~0xfff, %rsi
  sub $9, %ecx
  jmp 1b
3:
  mov %rdi, %rax
  and $~0x1fffff, %rax
  or $0x87, %rax
  mov %rax, (%rdx)
  ret

.section .rodata
// First and last port of what is spared.
spared:
  .word 0xf4, 0xf7            // isa-debug-exit
  .word 0x64, 0x64            // keyboard controller: reset
  .word 0x92, 0x92            // fast reset
  .word 0xb2, 0xb3            // system management
  .word 0x505, 0x505          // pvpanic
  .word 0x604, 0x605          // PM1 control: soft-off
  .word 0xcf9, 0xcf9          // reset control
  .word 0, 0

.data
.balign 8
idt_pointer:
  .word 256 * 16 - 1
  .quad idt
next_table: .long tables
bar_count: .long 0

.bss
.balign 4096
idt: .skip 4096
tables: .skip 4096 * 2 * MAX_BARS
bars: .skip 8 * MAX_BARS
