// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/translate/executor_layout.h"

namespace lodge::translate {

/// Why an executor stopped.
enum class ExecutorReason : std::uint32_t {
  step = EXECUTOR_REASON_STEP,          ///< the instruction at exitRip is the interpreter's
  link = EXECUTOR_REASON_LINK,          ///< direct branch number `info` leads to code that is to be translated
  indirect = EXECUTOR_REASON_INDIRECT,  ///< a branch to exitRip, which is not in the table
  aborted = EXECUTOR_REASON_ABORTED,    ///< a kick came before it began: nothing has changed
  signal = EXECUTOR_REASON_SIGNAL,      ///< `signal` at host address hostPc
};

/// One half of what an executor and its machine share: written by both, never at the same time. Guest code
/// could write here if it guessed the address: the machine believes nothing but the guest's registers.
struct ExecutorState {
  std::uint64_t spill[3];  ///< registers while translated code uses them itself
  std::uint64_t target;    ///< host address of an indirect branch
  std::uint64_t exitRip;
  std::uint32_t reason, info;
  std::uint64_t tscOffset;
  std::uint32_t tscAux;
  std::uint32_t kicked;  ///< a kick came while guest code did not run
  std::uint64_t gpr[16];
  std::uint64_t hostPc, flags, fsBase;
  std::uint64_t components;  ///< of XSAVE
  std::uint64_t faultAddress, errorCode, trap;
  std::uint32_t signal;
  std::int32_t listener;       ///< when it begins: file descriptor of the filter's, in the machine's table
  std::uint32_t codeSelector;  ///< CS
  std::uint32_t failed;        ///< commands that the host refused
  std::uint64_t cookie;        ///< without which the filter lets no command pass; gone before guest code runs
  std::uint16_t selector[4];   ///< DS, ES, FS, GS
  std::uint64_t spill3, back;  ///< of the look into the second table: flags, and where it came from
  std::uint32_t looks;         ///< looks into the second table until the machine is told
  std::uint32_t crossings;     ///< from code that runs as it is to code that does not, by a fault
  std::uint64_t gsBase;
  std::byte padding[EXECUTOR_XSAVE - 312];
  alignas(64) std::byte xsave[4096];  ///< vector state, XSAVE's standard format
};
static_assert(offsetof(ExecutorState, target) == EXECUTOR_TARGET && offsetof(ExecutorState, reason) == EXECUTOR_REASON);
static_assert(offsetof(ExecutorState, exitRip) == EXECUTOR_EXIT_RIP && offsetof(ExecutorState, info) == EXECUTOR_INFO);
static_assert(offsetof(ExecutorState, tscOffset) == EXECUTOR_TSC_OFFSET);
static_assert(offsetof(ExecutorState, tscAux) == EXECUTOR_TSC_AUX);
static_assert(offsetof(ExecutorState, kicked) == EXECUTOR_KICKED && offsetof(ExecutorState, gpr) == EXECUTOR_GPR);
static_assert(offsetof(ExecutorState, hostPc) == EXECUTOR_HOST_PC && offsetof(ExecutorState, flags) == EXECUTOR_FLAGS);
static_assert(offsetof(ExecutorState, fsBase) == EXECUTOR_FS_BASE);
static_assert(offsetof(ExecutorState, components) == EXECUTOR_COMPONENTS);
static_assert(offsetof(ExecutorState, spill3) == EXECUTOR_SPILL3 && offsetof(ExecutorState, back) == EXECUTOR_RETURN);
static_assert(offsetof(ExecutorState, looks) == EXECUTOR_LOOKS && offsetof(ExecutorState, gsBase) == EXECUTOR_GS_BASE);
static_assert(offsetof(ExecutorState, cookie) == EXECUTOR_COOKIE && offsetof(ExecutorState, failed) == EXECUTOR_FAILED);
static_assert(offsetof(ExecutorState, codeSelector) == EXECUTOR_CODE_SELECTOR);
static_assert(offsetof(ExecutorState, selector) == EXECUTOR_SELECTORS);
static_assert(offsetof(ExecutorState, xsave) == EXECUTOR_XSAVE && sizeof(ExecutorState) <= EXECUTOR_STATE_BYTES);

/// A change of the executor's address space: [address, address + length) shows guest RAM from `offset` on, or nothing.
struct ExecutorCommand {
  std::uint64_t address, length;
  std::uint64_t offset;  ///< in the file of guest RAM; kNothing: unmapped
  std::uint64_t protection;
  static constexpr std::uint64_t kNothing = ~std::uint64_t{0};
};

/// The other half: the executor reads it only.
struct ExecutorCommands {
  std::uint64_t count;
  std::uint64_t ramFile;                ///< file descriptor
  std::uint64_t allBlocked, kicksOnly;  ///< signal masks, as the kernel has them
  std::uint64_t signalStack[4];         ///< stack_t
  ExecutorCommand command[(EXECUTOR_COMMANDS_BYTES - 64) / sizeof(ExecutorCommand)];
  static constexpr std::uint64_t kMost = (EXECUTOR_COMMANDS_BYTES - 64) / sizeof(ExecutorCommand);
};
static_assert(offsetof(ExecutorCommands, command) == EXECUTOR_FIRST_COMMAND && sizeof(ExecutorCommand) == 32);
static_assert(offsetof(ExecutorCommands, signalStack) == EXECUTOR_SIGNAL_STACK_SET);
static_assert(offsetof(ExecutorCommands, allBlocked) == EXECUTOR_ALL_BLOCKED);
static_assert(sizeof(ExecutorCommands) <= EXECUTOR_COMMANDS_BYTES);

/// Where an indirect branch leads: in a table of 65,536 by the low 16 bits of the guest's address, which translated
/// code looks into; and in a larger hashed one, for the stub.
struct ExecutorTarget {
  std::uint64_t key;   ///< the guest's address, negated
  std::uint64_t host;  ///< its code
  static constexpr unsigned kCount = EXECUTOR_TABLE_BYTES / 16;
  static constexpr unsigned kCount2 = 1u << (64 - EXECUTOR_HASH_SHIFT);
};
static_assert(sizeof(ExecutorTarget) == 16);
static_assert((ExecutorTarget::kCount2 + EXECUTOR_HASH_WAYS) * 16 <= EXECUTOR_TABLE2_BYTES);

// The stub, position-independent, as it is copied to EXECUTOR_CODE: a section of its own, whose ends the linker names.
#pragma GCC visibility push(hidden)
extern "C" {
extern const std::uint8_t __start_lodge_executor[], __stop_lodge_executor[];
extern const std::uint8_t executorBegin[], executorExit[], executorMiss[], executorHandler[], executorRestorer[];
// Behind its system call instructions.
extern const std::uint8_t executorStopped[], executorStackSet[], executorBlocked[], executorUnblocked[],
    executorMapped[], executorUnmapped[], executorReturned[], executorDied[];
}
#pragma GCC visibility pop

}  // namespace lodge::translate
