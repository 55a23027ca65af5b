// SPDX-License-Identifier: Apache-2.0
// Compares a case's outcome with what it asked for, and prints a line for it.
#include "cases.h"

.text

// Counts and prints the current case's result. Clobbers all.
.globl judge
judge:
  mov current, %ebp
  mov CASE_ENV(BP), %edi
  mov CASE_VECTOR(BP), %eax
  cmp $DONE, %eax
  jne 4f
  cmpl $KIND_PROTECTED, ENV_KIND(DI)
  je 3f
  mov $V_BP, %eax             // the end of 16-bit cases
3:
  cmp result_vector, %eax
  je compare_values
  jmp fail
4:
  cmp result_vector, %eax
  jne fail

compare_fault:
  mov CASE_ERROR(BP), %eax
  cmp result_error, %eax
  jne fail
  mov CASE_RIP(BP), %eax
  test %eax, %eax
  jz 1f
  cmp result_rip, AX
  jne fail
1:
  mov CASE_SP(BP), %eax
  cmp $UNCHECKED, %eax
  je 2f
  mov ENV_SP(DI), %ecx
  sub AX, CX
  cmp result_sp, CX
  jne fail
2:
  mov CASE_CR2(BP), %eax
  cmp $UNCHECKED, %eax
  je 3f
  cmp result_cr2, AX
  jne fail
3:
  mov CASE_DR6(BP), %eax
  cmp $UNCHECKED, %eax
  je pass
  cmp result_dr6, AX
  jne fail
  jmp pass

compare_values:
  mov result_ax, AX
  xor result_bx, AX
  and ENV_MASK(DI), AX
  jnz fail

pass:
  incl passed
  print "PASS "
  call print_case
  print "\n"
  ret

fail:
  incl failed
  print "FAIL "
  call print_case
.macro show text, place
  print "\text"
  mov \place, AX
  call puthex
.endm
  show ": vector 0x", result_vector
  show " error 0x", result_error
  show " at 0x", result_rip
  print " start+0x"
  mov current, %ebp
  mov CASE_START(BP), %ecx
  mov result_rip, AX
  sub CX, AX
  call puthex
  show " cs 0x", result_cs
  show " sp 0x", result_sp
  show " flags 0x", result_flags
  show " cr2 0x", result_cr2
  show " dr6 0x", result_dr6
  show " ax 0x", result_ax
  show " bx 0x", result_bx
  print "\n"
  ret

.globl report_skip
report_skip:                  // with the reason in SI
  incl skipped
  push SI
  print "SKIP "
  call print_case
  print ": "
  pop SI
  call puts
  print "\n"
  ret

print_case:
  mov current, %ebp
  mov CASE_ENV(BP), %edi
  mov ENV_NAME(DI), %esi
  call puts
  print " "
  mov CASE_NAME(BP), %esi
  jmp puts

.globl report_summary
report_summary:
  print "summary: "
  mov passed, %eax
  call putdec
  print " passed, "
  mov failed, %eax
  call putdec
  print " failed, "
  mov skipped, %eax
  call putdec
  print " skipped\n"
  ret

.bss
.balign 8
.globl current, passed, failed, skipped
current: .skip 8
passed: .skip 8
failed: .skip 8
skipped: .skip 8
.globl result_vector, result_error, result_rip, result_cs, result_flags, result_sp, result_ss, result_cr2, result_dr6
.globl result_ax, result_bx
result_vector: .skip WORD_BYTES
result_error: .skip WORD_BYTES
result_rip: .skip WORD_BYTES
result_cs: .skip WORD_BYTES
result_flags: .skip WORD_BYTES
result_sp: .skip WORD_BYTES
result_ss: .skip WORD_BYTES
result_cr2: .skip WORD_BYTES
result_dr6: .skip WORD_BYTES
result_ax: .skip WORD_BYTES
result_bx: .skip WORD_BYTES
