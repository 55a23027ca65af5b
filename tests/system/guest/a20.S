// SPDX-License-Identifier: Apache-2.0
// A boot sector: with the A20 gate closed, data and code at 1 MiB are those at 0; by port 0x92 and by the keyboard
// controller. Says "a20: good" on COM1, or "a20: bad" and the number of the check.
        .code16
        .globl _start
_start: cli
        xor     %ax, %ax
        mov     %ax, %ds
        mov     %ax, %ss
        mov     $0x7000, %sp
        cld
        dec     %ax
        mov     %ax, %es                // ES:0x10 is 1 MiB
        mov     $'1', %bl
        movw    $0x1111, 0x600
        movw    $0x2222, %es:0x610
        cmpw    $0x1111, 0x600
        jne     bad

        inc     %bl                     // 2: closed by port 0x92
        in      $0x92, %al
        and     $0xfd, %al
        out     %al, $0x92
        movw    $0x3333, %es:0x610
        cmpw    $0x3333, 0x600
        jne     bad
        inc     %bl                     // 3: its port says so
        in      $0x92, %al
        test    $2, %al
        jnz     bad
        inc     %bl                     // 4: the code at 1 MiB + 0x700, too; it returns CX = 1
        movl    $0xcb41c931, 0x700      // xor %cx, %cx; inc %cx; lret
        mov     $7, %cx
        lcall   $0xffff, $0x710
        cmp     $1, %cx
        jne     bad

        inc     %bl                     // 5: opened by the keyboard controller
        mov     $0xd1, %al
        out     %al, $0x64
        mov     $0xdf, %al
        out     %al, $0x60
        cmpw    $0x2222, %es:0x610
        jne     bad
        inc     %bl                     // 6: port 0x92 shows it
        in      $0x92, %al
        test    $2, %al
        jz      bad
        inc     %bl                     // 7: and closed there
        mov     $0xdd, %al
        out     %al, $0x64
        cmpw    $0x3333, %es:0x610
        jne     bad
        mov     $2, %al
        out     %al, $0x92
        inc     %bl                     // 8: open again
        cmpw    $0x2222, %es:0x610
        jne     bad
        mov     $good, %si
        call    say
stop:   hlt
        jmp     stop
bad:    mov     $bad_text, %si
        call    say
        mov     %bl, %al
        out     %al, %dx
        jmp     stop
say:    mov     $0x3f8, %dx
1:      lodsb
        test    %al, %al
        jz      2f
        out     %al, %dx
        jmp     1b
2:      ret
good:   .asciz  "a20: good\n"
bad_text:
        .asciz  "a20: bad "
        .org    510
        .word   0xaa55
