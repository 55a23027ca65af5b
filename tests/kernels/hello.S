// SPDX-License-Identifier: Apache-2.0
// Says what the loader passed on, then ends: by isa-debug-exit (status 1) or, where there is none, by ACPI soft-off.
#include "lib/kernel.h"

#define MULTIBOOT_LOADER 0x2badb002
#define PVH_MAGIC 0x336ec578

.text
.globl main
main:
  print "hello\n"
  mov boot_information, %ebp
  cmpl $MULTIBOOT_LOADER, boot_magic
  je multiboot
  cmpl $PVH_MAGIC, (%rbp)
  je pvh
  print "FAIL: neither multiboot nor PVH\n"
  mov $EXIT_FAIL, %eax
  ret

multiboot:
  print "loader: multiboot "
  mov 64(%rbp), %esi
  testl $1 << 9, (%rbp)
  jz 1f
  call puts
1:
  print "\nmemory above 1 MiB in KiB: "
  mov 8(%rbp), %eax
  call putdec
  print "\ncommand line: "
  mov 16(%rbp), %esi
  call puts
  print "\n"
  mov 20(%rbp), %ecx          // mods_count
  mov 24(%rbp), %ebx
2:
  test %ecx, %ecx
  jz end
  mov 8(%rbx), %edi           // string
  mov 4(%rbx), %r8d
  mov (%rbx), %ebp
  sub %ebp, %r8d
  call show_module
  add $16, %ebx
  dec %ecx
  jmp 2b

pvh:
  print "loader: PVH version "
  mov 4(%rbp), %eax
  call putdec
  print "\ncommand line: "
  mov 24(%rbp), %rsi
  call puts
  print "\nRSDP: 0x"
  mov 32(%rbp), %rax
  call puthex
  print "\n"
  mov 12(%rbp), %ecx          // nr_modules
  mov 16(%rbp), %rbx
3:
  test %ecx, %ecx
  jz end
  mov 16(%rbx), %rdi
  mov 8(%rbx), %r8
  mov (%rbx), %rbp
  call show_module
  add $32, %rbx
  dec %ecx
  jmp 3b

end:
  mov $0x50434146, %eax
  call acpi_find
  test %rsi, %rsi
  jz 4f
  print "ACPI: FADT found\n"
4:
  print "bye\n"
  mov $EXIT_PASS, %eax
  mov $EXIT_PORT, %edx
  out %eax, %dx
  call acpi_power_off
  print "FAIL: still on\n"
  mov $EXIT_FAIL, %eax
  ret

// A module of r8 bytes at RBP with the string at RDI: its sum of bytes shows that it is all there.
show_module:
  print "module '"
  mov %rdi, %rsi
  call puts
  print "' bytes "
  mov %r8d, %eax
  call putdec
  print " sum 0x"
  xor %eax, %eax
  xor %edx, %edx
1:
  test %r8, %r8
  jz 2f
  movzbl (%rbp), %edx
  add %edx, %eax
  inc %rbp
  dec %r8
  jmp 1b
2:
  call puthex
  print "\n"
  ret
