/* SPDX-License-Identifier: Apache-2.0 */
/* What the probe guest and its host agree on. Read by the assembler too. */
#pragma once

/* Guest-physical (and, up to 2 MiB, guest-virtual) addresses. */
#define PROBE_PML4 0x1000
#define PROBE_PDPT 0x2000
#define PROBE_PD 0x3000
#define PROBE_GDT 0x4000
#define PROBE_IDT 0x5000
#define PROBE_TSS 0x6000
#define PROBE_CODE 0x8000
#define PROBE_STACK 0x10000
#define PROBE_USER_STACK 0x12000
#define PROBE_MEMORY 0x20000
/* A page that maps no memory (a device, to the host), and one that is not mapped. */
#define PROBE_MMIO 0x200000
#define PROBE_MMIO_GPA 0xd0000000
#define PROBE_HOLE 0x400000

#define PROBE_KERNEL_CS 0x08
#define PROBE_KERNEL_SS 0x10
#define PROBE_USER_SS (0x20 | 3)
#define PROBE_USER_CS (0x28 | 3)
#define PROBE_TR 0x30

/* The guest writes the step that it has completed to this port. */
#define PROBE_PORT 0x10
#define PROBE_STEP_STARTED 1
#define PROBE_STEP_REGISTERS 2
#define PROBE_STEP_EXCEPTION 3
#define PROBE_STEP_PAGE_FAULT 4
#define PROBE_STEP_MMIO 5
#define PROBE_STEP_USER 6
#define PROBE_STEP_SYSCALL 7
#define PROBE_STEP_LOOP_BEGIN 8
#define PROBE_STEP_LOOP_END 9
#define PROBE_STEP_FAILED 255

#define PROBE_MMIO_VALUE 0x1d0d6e37
#define PROBE_LOOP_ROUNDS 1000000
#define PROBE_LOOP_INSTRUCTIONS 8
