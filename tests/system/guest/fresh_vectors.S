# SPDX-License-Identifier: Apache-2.0
# A program without libraries whose status says whether all of its vector and mask registers were 0 at its start: 0 or 1.
.globl _start
_start:
    kmovq %k0, %rax
    .irp n,1,2,3,4,5,6,7
    kmovq %k\n, %rcx
    or %rcx, %rax
    .endr
    .irp n,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    vporq %zmm\n, %zmm0, %zmm0
    .endr
    vptestmq %zmm0, %zmm0, %k1
    kmovq %k1, %rcx
    or %rax, %rcx
    xor %edi, %edi
    test %rcx, %rcx
    setne %dil
    mov $60, %eax
    syscall
