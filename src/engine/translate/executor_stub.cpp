// SPDX-License-Identifier: Apache-2.0
// The C++ part of an executor's stub (executor_stub.S): position-independent, without data, without libc. Vector
// registers are the guest's or dead.
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include <csignal>

#include "engine/translate/executor_abi.h"
#include "engine/translate/host_call.h"

#define LODGE_STUB extern "C" [[gnu::section("lodge_executor"), gnu::visibility("hidden"), gnu::used]]

extern "C" {
[[gnu::visibility("hidden")]] extern const std::uint8_t executorWindow[], executorWindowEnd[], executorAbort[];
[[noreturn, gnu::visibility("hidden")]] void executorEnter();
}

namespace lodge::translate {

namespace {

inline std::uint64_t executorBase() {
  std::uint64_t base;
  asm volatile("rdgsbase %0" : "=r"(base));
  return base;
}

inline std::uint64_t addressOf(const std::uint8_t* label) {
  return reinterpret_cast<std::uint64_t>(label);
}

constexpr std::uint64_t kTrapFlag = 1 << 8;
constexpr unsigned kXstateMagic = 0x46505853;  // FP_XSTATE_MAGIC1 (linux/arch/x86/include/uapi/asm/sigcontext.h)
constexpr std::uint64_t kXstateWords = 464, kXstateSize = 480;

}  // namespace

/// Gives the turn to the machine, and comes back with it when the machine's commands are done.
LODGE_STUB void executorHandOver(ExecutorState* state) {
  auto turn = reinterpret_cast<std::uint64_t>(&state->turn);
  __atomic_store_n(&state->turn, ExecutorState::kMachine, __ATOMIC_SEQ_CST);
  hostCall(SYS_futex, turn, FUTEX_WAKE, 1);
  while (__atomic_load_n(&state->turn, __ATOMIC_SEQ_CST) != ExecutorState::kExecutor)
    hostCall(SYS_futex, turn, FUTEX_WAIT, ExecutorState::kMachine, 0);
  auto* commands =
      reinterpret_cast<const ExecutorCommands*>(reinterpret_cast<std::uint64_t>(state) + EXECUTOR_COMMANDS);
  std::uint32_t failed = 0;
  for (std::uint64_t n = 0; n < commands->count; ++n) {
    const ExecutorCommand& c = commands->command[n];
    long result = c.offset == ExecutorCommand::kNothing
                      ? hostCall(SYS_munmap, c.address, c.length)
                      : hostCall(SYS_mmap, c.address, c.length, c.protection,
                                 MAP_SHARED | MAP_FIXED | MAP_NORESERVE | MAP_POPULATE, commands->ramFile, c.offset);
    if (result < 0 && result > -4096) ++failed;
  }
  state->failed = failed;
}

/// Every signal: of guest code, which stops and lets the machine look, or a kick.
LODGE_STUB void executorSignal(int number, siginfo_t* info, ucontext_t* context) {
  std::uint64_t base = executorBase();
  auto* state = reinterpret_cast<ExecutorState*>(base + EXECUTOR_STATE);
  auto* registers = context->uc_mcontext.gregs;
  auto pc = static_cast<std::uint64_t>(registers[REG_RIP]);
  std::uint64_t start = addressOf(__start_lodge_executor);
  if (pc - start < addressOf(__stop_lodge_executor) - start) {
    if (number == SIGTRAP) {  // a step led here
      registers[REG_EFL] &= ~static_cast<greg_t>(kTrapFlag);
      return;
    }
    if (number != SIGUSR1) hostCall(SYS_exit_group, 1);
    state->kicked = 1;
    if (pc - addressOf(executorWindow) < addressOf(executorWindowEnd) - addressOf(executorWindow))
      registers[REG_RIP] = static_cast<greg_t>(addressOf(executorAbort));
    return;
  }
  state->left = __builtin_ia32_rdtsc();
  std::uint64_t* gpr = state->gpr;
  gpr[0] = static_cast<std::uint64_t>(registers[REG_RAX]);
  gpr[1] = static_cast<std::uint64_t>(registers[REG_RCX]);
  gpr[2] = static_cast<std::uint64_t>(registers[REG_RDX]);
  gpr[3] = static_cast<std::uint64_t>(registers[REG_RBX]);
  gpr[4] = static_cast<std::uint64_t>(registers[REG_RSP]);
  gpr[5] = static_cast<std::uint64_t>(registers[REG_RBP]);
  gpr[6] = static_cast<std::uint64_t>(registers[REG_RSI]);
  gpr[7] = static_cast<std::uint64_t>(registers[REG_RDI]);
  gpr[8] = static_cast<std::uint64_t>(registers[REG_R8]);
  gpr[9] = static_cast<std::uint64_t>(registers[REG_R9]);
  gpr[10] = static_cast<std::uint64_t>(registers[REG_R10]);
  gpr[11] = static_cast<std::uint64_t>(registers[REG_R11]);
  gpr[12] = static_cast<std::uint64_t>(registers[REG_R12]);
  gpr[13] = static_cast<std::uint64_t>(registers[REG_R13]);
  gpr[14] = static_cast<std::uint64_t>(registers[REG_R14]);
  gpr[15] = static_cast<std::uint64_t>(registers[REG_R15]);
  state->hostPc = pc;
  state->flags = static_cast<std::uint64_t>(registers[REG_EFL]) & ~kTrapFlag;
  std::uint64_t fsBase;
  asm volatile("rdfsbase %0" : "=r"(fsBase));
  state->fsBase = fsBase;
  auto frame = reinterpret_cast<std::uint64_t>(context->uc_mcontext.fpregs);
  std::uint64_t bytes = 512;
  if (*reinterpret_cast<const std::uint32_t*>(frame + kXstateWords) == kXstateMagic)
    bytes = *reinterpret_cast<const std::uint32_t*>(frame + kXstateSize);
  if (bytes > sizeof state->xsave) bytes = sizeof state->xsave;
  const void* from = reinterpret_cast<const void*>(frame);
  void* to = state->xsave;
  std::uint64_t words = bytes / 8;
  asm volatile("rep movsq" : "+S"(from), "+D"(to), "+c"(words) : : "memory");
  state->reason = EXECUTOR_REASON_SIGNAL;
  state->signal = static_cast<std::uint32_t>(number);
  state->faultAddress = reinterpret_cast<std::uint64_t>(info->si_addr);
  state->errorCode = static_cast<std::uint64_t>(registers[REG_ERR]);
  state->trap = static_cast<std::uint64_t>(registers[REG_TRAPNO]);
  executorHandOver(state);
  switch (static_cast<ExecutorResume>(state->resume)) {
    case ExecutorResume::again:
      state->entered = __builtin_ia32_rdtsc();
      registers[REG_EFL] &= ~static_cast<greg_t>(kTrapFlag);
      return;
    case ExecutorResume::step:
      registers[REG_EFL] |= static_cast<greg_t>(kTrapFlag);
      return;
    case ExecutorResume::enter:
      break;
  }
  executorEnter();
}

}  // namespace lodge::translate
