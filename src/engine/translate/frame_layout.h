// SPDX-License-Identifier: Apache-2.0
// Offsets from the host RSP of translated code, shared by C++ and trampolines.S; frame.h asserts that they are right.
// RSP points to CpuState; the Frame is the page below it. Words within disp8 reach (-128) come first; [-64, 0) is where
// CALLs from translated code push.
#pragma once

#define FRAME_SIZE 4096
#define FRAME_MASK_LOW (-128)
#define FRAME_MASK_BOTH (-120)
#define FRAME_BYTE_TEMP (-112)
#define FRAME_SAVED_RAX (-104)
#define FRAME_SPARE (-96)
#define FRAME_ATTENTION (-88)
#define FRAME_PAGE (-80)
#define FRAME_SAVED_FLAGS (-72)

#define FRAME_SCRATCH12 (-160)
#define FRAME_SCRATCH13 (-152)
#define FRAME_SCRATCH14 (-144)
#define FRAME_EXIT_ADDRESS (-136)
#define FRAME_TARGET (-168)
#define FRAME_KEY (-176)
#define FRAME_KERNEL_KEY (-180)
#define FRAME_USER_KEY (-184)
#define FRAME_STI_RIP (-192)
#define FRAME_SEGMENT_GUARD (-208)
#define FRAME_HOST_STACK (-216)
#define FRAME_MISALIGNED (-224)
#define FRAME_RETURN_MASK64 (-232)
#define FRAME_RETURN_MASK32 (-240)

#define STATE_RIP 128
#define STATE_RFLAGS 136
#define STATE_SEGMENT 296
#define STATE_CPL 456
#define STATE_STAR 472
#define STATE_LSTAR 480
#define STATE_SFMASK 496
#define CPU_EVENTS 5156
#define CPU_DEFERRED 5168

/* RFLAGS bits that live in the host's EFLAGS: CF PF AF ZF SF OF. DF stays in state (host DF is always 0). */
#define HOST_FLAGS 0x8d5

/* ExitReason, as enterCache returns it. */
#define EXIT_ATTENTION 0
#define EXIT_REDO 1
#define EXIT_STEP 2
#define EXIT_LINK 3
#define EXIT_INDIRECT 4
#define EXIT_DISPATCH 5
#define EXIT_FAULT 6
#define EXIT_MISALIGNED 7
