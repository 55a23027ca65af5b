// SPDX-License-Identifier: Apache-2.0
// Values that control registers and MSRs must refuse in 64-bit mode (Intel SDM, volume 2, MOV CRn, MOV DRn, WRMSR; volume 3,
// 4.1.2). A processor that takes one of them is likely to run off.
#include "lib/cases.h"

.text
.globl main
main:
  jmp run_cases

case k64, "#GP of reserved bits in EFER", vector=V_GP
  mov $0xc0000080, %ecx
  rdmsr
  or $2, %eax
9: wrmsr
  done
case k64, "#GP of clearing EFER.LME while paging", vector=V_GP
  mov $0xc0000080, %ecx
  rdmsr
  and $~0x100, %eax
9: wrmsr
  done
case k64, "#GP of CR0.PG without PE", vector=V_GP
  mov %cr0, %rax
  and $~1, %eax
9: mov %rax, %cr0
  done
case k64, "#GP of CR0.NW without CD", vector=V_GP
  mov %cr0, %rax
  or $0x20000000, %eax
9: mov %rax, %cr0
  done
case k64, "#GP of the upper half of CR0", vector=V_GP
  mov %cr0, %rax
  bts $32, %rax
9: mov %rax, %cr0
  done
case k64, "#GP of clearing CR4.PAE in long mode", vector=V_GP
  mov %cr4, %rax
  and $~0x20, %eax
9: mov %rax, %cr4
  done
case k64, "#GP of reserved bits in CR4", vector=V_GP
  mov %cr4, %rax
  bts $31, %rax
9: mov %rax, %cr4
  done
case k64, "#GP of reserved bits in CR3", vector=V_GP
  mov %cr3, %rax
  bts $62, %rax
9: mov %rax, %cr3
  done
case k64, "#GP of reserved bits in CR8", vector=V_GP
  mov $0x10, %eax
9: mov %rax, %cr8
  done
case k64, "#GP of the upper half of DR7", vector=V_GP
  mov $1, %eax
  shl $32, %rax
9: mov %rax, %dr7
  done
case k64, "#GP of rdmsr of no MSR", vector=V_GP
  mov $0x12345678, %ecx
9: rdmsr
  done
case k64, "#GP of wrmsr of no MSR", vector=V_GP
  mov $0x12345678, %ecx
9: wrmsr
  done
case k64, "#GP of a non-canonical LSTAR", vector=V_GP
  mov $0xc0000082, %ecx
  mov $0x8000, %edx
  xor %eax, %eax
9: wrmsr
  done
case k64, "#GP of a non-canonical FS base", vector=V_GP
  mov $0xc0000100, %ecx
  mov $0x8000, %edx
  xor %eax, %eax
9: wrmsr
  done
case k64, "#GP of lgdt of a non-canonical base", vector=V_GP
  movabs $0x800000000000, %rax
  mov %rax, buffer + 2
9: lgdt buffer
  done

.data
buffer: .skip 16
