// SPDX-License-Identifier: Apache-2.0
// Never ends, with interrupts off: nothing but the host stops it.
#include "lib/kernel.h"

.text
.globl main
main:
  print "spinning\n"
  cli
1:
  jmp 1b
