// SPDX-License-Identifier: Apache-2.0
// Entry of every test kernel: by multiboot or, with PVH defined, by its PVH note; then `main` in 64-bit mode with the first
// 4 GiB mapped one to one for kernel and user, or in flat 32-bit protected mode. main returns an exit value in EAX.
#include "kernel.h"

#ifdef PVH
.section .note.pvh, "a", @note
  .long 4, 4, 18              // XEN_ELFNOTE_PHYS32_ENTRY
  .asciz "Xen"
  .long start
#else
#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_FLAGS 3     // page-aligned modules, memory information
.section .multiboot, "a"
  .balign 4
  .long MULTIBOOT_MAGIC, MULTIBOOT_FLAGS, -(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)
#endif

.text
.code32
.globl start
start:
  cli
  cld
  mov $boot_stack_top, %esp
  mov %eax, boot_magic
  mov %ebx, boot_information
#ifdef __x86_64__
  // Two levels of tables with one entry each, four page directories of 2 MiB pages: present, writable, user.
  movl $boot_pdpt + 7, boot_pml4
  mov $boot_pdpt, %edi
  mov $boot_directories + 7, %eax
1:
  mov %eax, (%edi)
  add $8, %edi
  add $0x1000, %eax
  cmp $boot_directories + 0x4000 + 7, %eax
  jne 1b
  mov $boot_directories, %edi
  mov $0x87, %eax
  xor %ecx, %ecx
2:
  mov %eax, (%edi,%ecx,8)
  add $0x200000, %eax
  inc %ecx
  cmp $2048, %ecx
  jne 2b
  mov %cr4, %eax
  or $0x620, %eax             // PAE, OSFXSR, OSXMMEXCPT
  mov %eax, %cr4
  mov $boot_pml4, %eax
  mov %eax, %cr3
  mov $0xc0000080, %ecx       // EFER: SCE, LME, NXE
  rdmsr
  or $0x901, %eax
  wrmsr
  mov $0x80010033, %eax       // PG, WP, NE, ET, MP, PE
  mov %eax, %cr0
#endif
  lgdt boot_gdt_pointer
  ljmp $KCODE, $1f
#ifdef __x86_64__
.code64
#endif
1:
  mov $KDATA, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %fs
  mov %eax, %gs
  mov %eax, %ss
  call serial_init
  call main
  call exit

.data
.balign 8
boot_gdt:
  .quad 0
#ifdef __x86_64__
  .quad 0x00af9b000000ffff
#else
  .quad 0x00cf9b000000ffff
#endif
  .quad 0x00cf93000000ffff
boot_gdt_pointer:
  .word . - boot_gdt - 1
  .long boot_gdt
  .long 0
.globl boot_magic, boot_information
boot_magic: .long 0
boot_information: .long 0
  .long 0

.bss
.balign 4096
#ifdef __x86_64__
.globl boot_pml4, boot_pdpt, boot_directories
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_directories: .skip 4 * 4096
#endif
.skip 16384
boot_stack_top:
