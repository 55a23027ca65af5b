// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/executor_process.h"

#include <elf.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/rseq.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>

#include "base/memory_file.h"
#include "base/units.h"
#include "engine/translate/host_call.h"
#include "engine/translate/host_features.h"
#include "x86/vector_state.h"

namespace lodge::translate {

namespace {

constexpr std::uint64_t kTableOffset = EXECUTOR_COMMANDS + EXECUTOR_COMMANDS_BYTES;  // in the shared file
constexpr std::uint64_t kTable2Offset = kTableOffset + EXECUTOR_TABLE_BYTES;
constexpr std::uint64_t kSharedBytes = kTable2Offset + EXECUTOR_TABLE2_BYTES;
constexpr std::uint64_t kLowerHalf = 0x7ffffffff000;
// Programs of Linux lie below 2^32, around 0x55... and 0x7f...; what lies between is used by few.
constexpr std::uint64_t kFirstBase = std::uint64_t{1} << 44, kBaseStep = std::uint64_t{1} << 30;
constexpr std::uint64_t kBases = 0x4000;
constexpr long kLookAgain = 20'000'000, kKickAgain = 1'000'000;  // nanoseconds

std::uint64_t number(const void* p) {
  return reinterpret_cast<std::uint64_t>(p);
}

/// As the kernel has it.
struct KernelSigaction {
  std::uint64_t handler, flags, restorer, mask;
};

sock_filter statement(unsigned code, std::uint32_t value) {
  return {static_cast<std::uint16_t>(code), 0, 0, value};
}
sock_filter jumpIfEqual(std::uint32_t value, std::uint8_t skipped) {
  return {static_cast<std::uint16_t>(BPF_JMP | BPF_JEQ | BPF_K), skipped, 0, value};
}

/// All that the stub does. Guest code has no system call instruction to reach.
bool installFilter() {
  const sock_filter program[] = {statement(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                                 jumpIfEqual(SYS_futex, 7),
                                 jumpIfEqual(SYS_mmap, 6),
                                 jumpIfEqual(SYS_munmap, 5),
                                 jumpIfEqual(SYS_rt_sigreturn, 4),
                                 jumpIfEqual(SYS_restart_syscall, 3),
                                 jumpIfEqual(SYS_exit_group, 2),
                                 statement(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
                                 statement(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
                                 statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  sock_fprog filter{sizeof program / sizeof program[0], const_cast<sock_filter*>(program)};
  return hostCall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1) == 0 &&
         hostCall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, number(&filter)) == 0;
}

bool mapAt(std::uint64_t address, std::uint64_t bytes, int protection, int file, std::uint64_t offset) {
  std::uint64_t flags = MAP_FIXED_NOREPLACE | MAP_NORESERVE | (file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
  return hostCall(SYS_mmap, address, bytes, static_cast<std::uint64_t>(protection), flags,
                  static_cast<std::uint64_t>(static_cast<std::int64_t>(file)), offset) == static_cast<long>(address);
}

}  // namespace

bool ExecutorProcess::isPossible() {
  constexpr unsigned long kFsgsbase = 2;  // HWCAP2_FSGSBASE
  static const bool possible =
      hostFeatures().fsgsbase && hostFeatures().bmi2 && (::getauxval(AT_HWCAP2) & kFsgsbase) != 0;
  return possible;
}

std::uint64_t ExecutorProcess::stubBytes() {
  return alignUp(static_cast<std::uint64_t>(__stop_lodge_executor - __start_lodge_executor), 64);
}

std::uint64_t ExecutorProcess::stubAddress(const std::uint8_t* label) const {
  return codeAddress() + static_cast<std::uint64_t>(label - __start_lodge_executor);
}

bool ExecutorProcess::makeMemory() {
  sharedFile_ = makeMemoryFile("lodge-executor");
  codeFile_ = makeMemoryFile("lodge-executor-code");
  if (!sharedFile_ || !codeFile_) return false;
  if (::ftruncate(sharedFile_.get(), static_cast<off_t>(kSharedBytes)) != 0) return false;
  if (::ftruncate(codeFile_.get(), EXECUTOR_CODE_BYTES) != 0) return false;
  auto map = [](std::uint64_t bytes, int file) {
    void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (p == MAP_FAILED) return static_cast<std::uint8_t*>(nullptr);
    ::madvise(p, bytes, MADV_DONTDUMP);
    return static_cast<std::uint8_t*>(p);
  };
  shared_ = map(kSharedBytes, sharedFile_.get());
  code_ = map(EXECUTOR_CODE_BYTES, codeFile_.get());
  if (!shared_ || !code_) return false;
  table_ = shared_ + kTableOffset;
  std::memcpy(code_, __start_lodge_executor, static_cast<std::size_t>(__stop_lodge_executor - __start_lodge_executor));
  std::uint64_t random = 0;
  if (::getrandom(&random, sizeof random, 0) != sizeof random) return false;
  base_ = kFirstBase + random % kBases * kBaseStep;
  return true;
}

/// In the new process, which is a copy of this one: only system calls, and only what the stub needs later.
void ExecutorProcess::child(int ramFile) const {
  auto fail = [] {
    for (;;) hostCall(SYS_exit_group, 1);
  };
  // The kernel would go on to write into memory that is about to go.
  if (__rseq_size != 0) {
    constexpr std::uint64_t kSignature = 0x53053053, kUnregister = 1, kBytes = 32;
    hostCall(SYS_rseq, number(__builtin_thread_pointer()) + static_cast<std::uint64_t>(__rseq_offset), kBytes,
             kUnregister, kSignature);
  }
  if (hostCall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL) != 0) fail();
  hostCall(SYS_prctl, PR_SET_NAME, number("lodge-executor"));
  hostCall(SYS_setpgid, 0, 0);
  bool mapped =
      mapAt(base_ + EXECUTOR_STATE, EXECUTOR_STATE_BYTES, PROT_READ | PROT_WRITE, sharedFile_.get(), EXECUTOR_STATE) &&
      mapAt(base_ + EXECUTOR_COMMANDS, EXECUTOR_COMMANDS_BYTES, PROT_READ, sharedFile_.get(), EXECUTOR_COMMANDS) &&
      mapAt(base_ + EXECUTOR_TABLE, EXECUTOR_TABLE_BYTES, PROT_READ, sharedFile_.get(), kTableOffset) &&
      mapAt(base_ + EXECUTOR_TABLE2, EXECUTOR_TABLE2_BYTES, PROT_READ, sharedFile_.get(), kTable2Offset) &&
      mapAt(base_ + EXECUTOR_STACK, EXECUTOR_STACK_BYTES + EXECUTOR_SIGNAL_STACK_BYTES, PROT_READ | PROT_WRITE, -1,
            0) &&
      mapAt(base_ + EXECUTOR_CODE, EXECUTOR_CODE_BYTES, PROT_READ | PROT_EXEC, codeFile_.get(), 0);
  if (!mapped) fail();
  stack_t stack{};
  stack.ss_sp = reinterpret_cast<void*>(base_ + EXECUTOR_SIGNAL_STACK);
  stack.ss_size = EXECUTOR_SIGNAL_STACK_BYTES;
  if (hostCall(SYS_sigaltstack, number(&stack)) != 0) fail();
  constexpr std::uint64_t kRestorer = 0x04000000;  // SA_RESTORER
  KernelSigaction action{stubAddress(executorHandler), SA_SIGINFO | SA_ONSTACK | SA_NODEFER | kRestorer,
                         stubAddress(executorRestorer), 0};
  std::uint64_t blocked = ~std::uint64_t{0};
  for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGUSR1}) {
    blocked &= ~(std::uint64_t{1} << (signal - 1));
    if (hostCall(SYS_rt_sigaction, static_cast<std::uint64_t>(signal), number(&action), 0, 8) != 0) fail();
  }
  if (hostCall(SYS_rt_sigprocmask, SIG_SETMASK, number(&blocked), 0, 8) != 0) fail();
  constexpr std::uint64_t kLastFile = ~0u;
  auto ram = static_cast<std::uint64_t>(ramFile);
  if ((ram > 0 && hostCall(SYS_close_range, 0, ram - 1) != 0) || hostCall(SYS_close_range, ram + 1, kLastFile) != 0)
    fail();
  if (!installFilter()) fail();
  using Begin = void (*)(std::uint64_t, std::uint64_t);
  reinterpret_cast<Begin>(stubAddress(executorBegin))(base_, kLowerHalf);
  fail();
  __builtin_unreachable();
}

std::unique_ptr<ExecutorProcess> ExecutorProcess::start(int ramFile) {
  if (!isPossible()) return nullptr;
  auto process = std::unique_ptr<ExecutorProcess>(new ExecutorProcess());
  if (!process->makeMemory()) return nullptr;
  ExecutorState& state = process->state();
  state.components = x86::vectorComponents();
  state.turn = ExecutorState::kExecutor;
  process->commands().ramFile = static_cast<std::uint64_t>(ramFile);
  // Not vfork's kind: it needs memory of its own to forget. No signal at its end: it is nobody else's business.
  long pid = hostCall(SYS_clone, 0);
  if (pid == 0) process->child(ramFile);
  if (pid < 0) return nullptr;
  process->pid_ = static_cast<pid_t>(pid);
  // Its first stop says that it is ready.
  return process->wait(kNever) && state.reason == EXECUTOR_REASON_ABORTED ? std::move(process) : nullptr;
}

ExecutorProcess::~ExecutorProcess() {
  if (pid_ != 0) {
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, __WALL) < 0 && errno == EINTR) continue;
  }
  if (shared_) ::munmap(shared_, kSharedBytes);
  if (code_) ::munmap(code_, EXECUTOR_CODE_BYTES);
}

bool ExecutorProcess::ask(const ExecutorCommand& command) {
  ExecutorCommands& all = commands();
  if (all.count == ExecutorCommands::kMost) return false;
  all.command[all.count++] = command;
  return true;
}

bool ExecutorProcess::isAlive() {
  if (pid_ == 0) return false;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG | __WALL) != pid_) return true;
  pid_ = 0;
  return false;
}

bool ExecutorProcess::run(const volatile std::uint32_t& wantsStop) {
  ExecutorState& s = state();
  __atomic_store_n(&s.turn, ExecutorState::kExecutor, __ATOMIC_SEQ_CST);
  hostCall(SYS_futex, number(&s.turn), FUTEX_WAKE, 1);
  return wait(wantsStop);
}

bool ExecutorProcess::wait(const volatile std::uint32_t& wantsStop) {
  ExecutorState& s = state();
  auto turn = number(&s.turn);
  while (__atomic_load_n(&s.turn, __ATOMIC_SEQ_CST) != ExecutorState::kMachine) {
    // Who wants it to stop interrupts the wait with a signal, which may come just before it; and the executor may be
    // about to return to guest code when the kick comes. Both are rare, and then it is tried again.
    bool kicked = wantsStop != 0;
    if (kicked) kick();
    timespec wait{0, kicked ? kKickAgain : kLookAgain};
    long result = hostCall(SYS_futex, turn, FUTEX_WAIT, ExecutorState::kExecutor, number(&wait));
    if (result == -ETIMEDOUT && !isAlive()) return false;
  }
  forgetAsked();
  return true;
}

void ExecutorProcess::kick() const {
  hostCall(SYS_tgkill, static_cast<std::uint64_t>(pid_), static_cast<std::uint64_t>(pid_), SIGUSR1);
}

std::uint64_t ExecutorProcess::processorTime() const {
  clockid_t clock;
  timespec t{};
  if (pid_ == 0 || ::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &t) != 0) return 0;
  return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(t.tv_nsec);
}

void ExecutorProcess::follow() {
  int now = ::sched_getcpu();
  if (now < 0 || now == processor_) return;
  processor_ = now;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(now), &set);
  ::sched_setaffinity(pid_, sizeof set, &set);
}

}  // namespace lodge::translate
