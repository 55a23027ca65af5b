// SPDX-License-Identifier: Apache-2.0
// Polled output on the first serial port, and the end of the run.
#include "kernel.h"

.text

// 115200 baud, 8N1, no interrupts. Clobbers AX, DX.
.globl serial_init
serial_init:
.macro serial_out register, value
  mov $SERIAL_PORT + \register, %edx
  mov $\value, %al
  out %al, %dx
.endm
  serial_out 1, 0
  serial_out 3, 0x80
  serial_out 0, 1
  serial_out 1, 0
  serial_out 3, 3
  serial_out 2, 7
  serial_out 4, 3
  ret

// Prints AL; "\n" as "\r\n". Clobbers AX, DX.
.globl putc
putc:
  cmp $'\n', %al
  jne putc_raw
  push AX
  mov $'\r', %al
  call putc_raw
  pop AX
putc_raw:
  push CX
  mov %al, %ah
  mov $SERIAL_PORT + 5, %edx
  mov $100000, %ecx           // a port that never becomes ready does not hang the kernel
1:
  in %dx, %al
  test $0x20, %al
  loopz 1b
  mov $SERIAL_PORT, %edx
  mov %ah, %al
  out %al, %dx
  pop CX
  ret

// Prints the string at SI. Clobbers AX, DX, SI.
.globl puts
puts:
  mov (SI), %al
  test %al, %al
  jz 1f
  call putc
  inc SI
  jmp puts
1:
  ret

// Prints AX in hexadecimal without leading zeros. Clobbers AX, DX.
.globl puthex
puthex:
  push BX
  push CX
  mov AX, BX
#ifdef __x86_64__
  mov $60, %ecx
#else
  mov $28, %ecx
#endif
1:                            // skip leading zeros, but for the last digit
  mov BX, AX
  shr %cl, AX
  jnz 2f
  sub $4, %ecx
  jg 1b
  xor %ecx, %ecx
2:
  mov BX, AX
  shr %cl, AX
  and $15, %eax
  mov hex_digits(AX), %al
  call putc
  sub $4, %ecx
  jns 2b
  pop CX
  pop BX
  ret

// Prints EAX in decimal. Clobbers AX, DX.
.globl putdec
putdec:
  push BX
  push CX
  mov $10, %ebx
  xor %ecx, %ecx
1:
  xor %edx, %edx
  div %ebx
  push DX
  inc %ecx
  test %eax, %eax
  jnz 1b
2:
  pop AX
  add $'0', %al
  call putc
  dec %ecx
  jnz 2b
  pop CX
  pop BX
  ret

// Ends the run with EAX at isa-debug-exit; without that device, stays halted.
.globl exit
exit:
  mov $EXIT_PORT, %edx
  out %eax, %dx
1:
  cli
  hlt
  jmp 1b

.section .rodata
hex_digits: .ascii "0123456789abcdef"
