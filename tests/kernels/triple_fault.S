// SPDX-License-Identifier: Apache-2.0
// An exception without any gate to deliver it, nor the next two: the processor shuts down.
#include "lib/kernel.h"

.text
.globl main
main:
  print "triple fault\n"
  lidt no_idt
  ud2

.section .rodata
no_idt:
  .word 0
  .quad 0
