// SPDX-License-Identifier: Apache-2.0
// The C++ part of an executor's stub (executor_stub.S): position-independent, without data, without libc. Vector
// registers are the guest's or dead.
#include <ucontext.h>

#include <csignal>

#include "engine/translate/executor_abi.h"

#define LODGE_STUB extern "C" [[gnu::section("lodge_executor"), gnu::visibility("hidden"), gnu::used]]

extern "C" {
[[gnu::visibility("hidden")]] extern const std::uint8_t executorWindow[], executorWindowEnd[], executorAbort[];
[[noreturn, gnu::visibility("hidden")]] void executorStop();
[[noreturn, gnu::visibility("hidden")]] void executorDie();
}

namespace lodge::translate {

namespace {

inline std::uint64_t executorBase() {
  std::uint64_t start;
  asm("lea __start_lodge_executor(%%rip), %0" : "=r"(start));
  return start - EXECUTOR_CODE;
}

inline std::uint64_t addressOf(const std::uint8_t* label) {
  return reinterpret_cast<std::uint64_t>(label);
}

constexpr std::uint64_t kTrapFlag = 1 << 8, kSelector = 0xffff, kCode64 = 0x33;
constexpr std::uint64_t kPageFault = 14, kFetch = 16;
constexpr unsigned kXstateMagic = 0x46505853;  // FP_XSTATE_MAGIC1 (linux/arch/x86/include/uapi/asm/sigcontext.h)
constexpr std::uint64_t kXstateWords = 464, kXstateSize = 480;

/// Where code for the guest's address is, of what the machine entered into the second table; 0 if it is not there.
inline std::uint64_t translated(std::uint64_t base, std::uint64_t rip) {
  auto* entry =
      reinterpret_cast<const ExecutorTarget*>(base + EXECUTOR_TABLE2) + (rip * EXECUTOR_HASH >> EXECUTOR_HASH_SHIFT);
  for (unsigned way = 0; way < EXECUTOR_HASH_WAYS && rip != 0; ++way) {
    if (entry[way].key == -rip) return entry[way].host;
  }
  return 0;
}

}  // namespace

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
    if (number != SIGUSR1) executorDie();
    state->kicked = 1;
    if (pc - addressOf(executorWindow) < addressOf(executorWindowEnd) - addressOf(executorWindow))
      registers[REG_RIP] = static_cast<greg_t>(addressOf(executorAbort));
    return;
  }
  // From code that runs as it is to code that does not: no business of the machine's.
  bool isFetch = number == SIGSEGV && registers[REG_TRAPNO] == kPageFault && (registers[REG_ERR] & kFetch) != 0 &&
                 (registers[REG_EFL] & kTrapFlag) == 0 && (registers[REG_CSGSFS] & kSelector) == kCode64;
  if (isFetch && state->kicked == 0) {
    // The entry of code that runs as it is leads to itself: its page is not shown now.
    if (std::uint64_t host = translated(base, pc); host != 0 && host != pc) {
      ++state->crossings;
      registers[REG_RIP] = static_cast<greg_t>(host);
      return;
    }
  }
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
  state->flags = static_cast<std::uint64_t>(registers[REG_EFL]);
  std::uint64_t fsBase, gsBase;
  asm volatile("rdfsbase %0" : "=r"(fsBase));
  asm volatile("rdgsbase %0" : "=r"(gsBase));
  state->fsBase = fsBase;
  state->gsBase = gsBase;
  asm volatile("mov %%ds, %0" : "=m"(state->selector[0]));
  asm volatile("mov %%es, %0" : "=m"(state->selector[1]));
  asm volatile("mov %%fs, %0" : "=m"(state->selector[2]));
  asm volatile("mov %%gs, %0" : "=m"(state->selector[3]));
  state->codeSelector = static_cast<std::uint16_t>(registers[REG_CSGSFS]);
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
  executorStop();
}

}  // namespace lodge::translate
