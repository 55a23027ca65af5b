// SPDX-License-Identifier: Apache-2.0
// What an executor's address space holds beside the guest's pages, shared by C++ and executor_stub.S; executor_abi.h
// asserts that the two agree. Offsets are from the executor's base.
#pragma once

#define EXECUTOR_STATE 0x0 /* ExecutorState, read and written */
#define EXECUTOR_STATE_BYTES 0x4000
#define EXECUTOR_COMMANDS 0x4000 /* ExecutorCommands, read only */
#define EXECUTOR_COMMANDS_BYTES 0x4000
#define EXECUTOR_TABLE 0x100000 /* ExecutorTarget entries, read only */
#define EXECUTOR_TABLE_BYTES 0x100000
#define EXECUTOR_STACK 0x200000 /* the stub's stack, and behind it that of signals */
#define EXECUTOR_STACK_BYTES 0x8000
#define EXECUTOR_SIGNAL_STACK 0x208000
#define EXECUTOR_SIGNAL_STACK_BYTES 0x10000
#define EXECUTOR_CODE 0x400000 /* the stub, and translated code behind it; read and executed */
#define EXECUTOR_CODE_BYTES 0x3c00000
#define EXECUTOR_TABLE2 0x4000000 /* more ExecutorTarget entries, hashed */
#define EXECUTOR_TABLE2_BYTES 0x201000
#define EXECUTOR_BYTES 0x4400000

/* In ExecutorState. */
#define EXECUTOR_SPILL0 0
#define EXECUTOR_SPILL1 8
#define EXECUTOR_SPILL2 16
#define EXECUTOR_TARGET 24
#define EXECUTOR_EXIT_RIP 32
#define EXECUTOR_REASON 40
#define EXECUTOR_INFO 44
#define EXECUTOR_TSC_OFFSET 48
#define EXECUTOR_TSC_AUX 56
#define EXECUTOR_KICKED 60
#define EXECUTOR_GPR 64
#define EXECUTOR_HOST_PC 192
#define EXECUTOR_FLAGS 200
#define EXECUTOR_FS_BASE 208
#define EXECUTOR_COMPONENTS 216
#define EXECUTOR_CODE_SELECTOR 256
#define EXECUTOR_SELECTORS 272
#define EXECUTOR_COOKIE 264
#define EXECUTOR_FAILED 260
#define EXECUTOR_SPILL3 280
#define EXECUTOR_RETURN 288
#define EXECUTOR_LOOKS 296
#define EXECUTOR_GS_BASE 304
#define EXECUTOR_XSAVE 512

/* In ExecutorCommands. */
#define EXECUTOR_COMMAND_COUNT 0
#define EXECUTOR_RAM_FILE 8
#define EXECUTOR_ALL_BLOCKED 16
#define EXECUTOR_KICKS_ONLY 24
#define EXECUTOR_SIGNAL_STACK_SET 32
#define EXECUTOR_FIRST_COMMAND 64
#define EXECUTOR_MAP_FLAGS 0xc011 /* MAP_SHARED | MAP_FIXED | MAP_NORESERVE | MAP_POPULATE */

/* The system call whose answer lets an executor go on. */
#define EXECUTOR_STOP_CALL 39
#define EXECUTOR_GO_ON 1

/* The place of a guest address in the second table: its product with the first, shifted by the second. */
#define EXECUTOR_HASH 0x9e3779b97f4a7c15
#define EXECUTOR_HASH_SHIFT 47
#define EXECUTOR_HASH_WAYS 4

/* ExecutorReason */
#define EXECUTOR_REASON_STEP 1
#define EXECUTOR_REASON_LINK 2
#define EXECUTOR_REASON_INDIRECT 3
#define EXECUTOR_REASON_ABORTED 4
#define EXECUTOR_REASON_SIGNAL 5
