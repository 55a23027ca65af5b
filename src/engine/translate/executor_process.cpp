// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/executor_process.h"

#include <elf.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/rseq.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
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
constexpr unsigned kBeginMicroseconds = 50, kKicksApart = 64;  // how often it is asked for its processor time
/// Of processor time (nanoseconds) that it may have and take no kick: they are taken at once, unless they are blocked.
constexpr std::uint64_t kMostUnanswered = 1'000'000'000;
/// And where it is not to run guest code, or one instruction of it.
constexpr std::uint64_t kMostAlone = 10'000'000'000;
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGUSR1};
constexpr long kLookAgain = 20'000'000, kKickAgain = 1'000'000;  // nanoseconds

std::uint64_t number(const void* p) {
  return reinterpret_cast<std::uint64_t>(p);
}

/// As the kernel has it.
struct KernelSigaction {
  std::uint64_t handler, flags, restorer, mask;
};

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
  if (::getrandom(&cookie_, sizeof cookie_, 0) != sizeof cookie_ || cookie_ >> 32 == 0) return false;
  return true;
}

/// In the new process, which is a copy of this one: only system calls, and only what the stub needs later.
void ExecutorProcess::child() const {
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
  KernelSigaction action{stubAddress(executorHandler), SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART | kRestorer,
                         stubAddress(executorRestorer), 0};
  for (int signal : kSignals) {
    if (hostCall(SYS_rt_sigaction, static_cast<std::uint64_t>(signal), number(&action), 0, 8) != 0) fail();
  }
  if (hostCall(SYS_rt_sigprocmask, SIG_SETMASK, number(&commands().kicksOnly), 0, 8) != 0) fail();
  // Files stay the machine's, which needs the filter's: no guest code comes to a system call.
  if (!installFilter()) fail();
  using Begin = void (*)();
  reinterpret_cast<Begin>(stubAddress(executorBegin))();
  fail();
  __builtin_unreachable();
}

std::unique_ptr<ExecutorProcess> ExecutorProcess::start(int ramFile) {
  if (!isPossible()) return nullptr;
  auto process = std::unique_ptr<ExecutorProcess>(new ExecutorProcess());
  if (!process->makeMemory()) return nullptr;
  ExecutorState& state = process->state();
  state.components = x86::vectorComponents();
  state.listener = -1;
  ExecutorCommands& commands = process->commands();
  commands.ramFile = static_cast<std::uint64_t>(ramFile);
  commands.allBlocked = ~std::uint64_t{0};
  commands.kicksOnly = ~std::uint64_t{0};
  for (int signal : kSignals) commands.kicksOnly &= ~(std::uint64_t{1} << (signal - 1));
  commands.signalStack[0] = process->base_ + EXECUTOR_SIGNAL_STACK;
  commands.signalStack[2] = EXECUTOR_SIGNAL_STACK_BYTES;
  // Not vfork's kind: it needs memory of its own to forget. No signal at its end: it is nobody else's business.
  long pid = hostCall(SYS_clone, CLONE_FILES);
  if (pid == 0) process->child();
  if (pid < 0) return nullptr;
  process->pid_ = static_cast<pid_t>(pid);
  return process->begin() ? std::move(process) : nullptr;
}

/// From the start of the process to its first stop, without anything of this one's.
bool ExecutorProcess::begin() {
  ExecutorState& s = state();
  while (__atomic_load_n(&s.listener, __ATOMIC_SEQ_CST) < 0) {
    if (!isAlive()) return false;
    ::usleep(kBeginMicroseconds);
  }
  listener_ = UniqueFd(s.listener);
  constexpr unsigned long kSetFlags = _IOW('!', 4, std::uint64_t), kSyncWakeUp = 1;
  hostCall(SYS_ioctl, static_cast<std::uint64_t>(listener_.get()), kSetFlags, kSyncWakeUp);  // since Linux 6.6
  if (!wait(kNever)) return false;
  ask({0, base_, ExecutorCommand::kNothing, 0});
  ask({base_ + EXECUTOR_BYTES, kLowerHalf - base_ - EXECUTOR_BYTES, ExecutorCommand::kNothing, 0});
  s.kicked = 1;
  bool forgot = run() && s.reason == EXECUTOR_REASON_ABORTED && s.failed == 0;
  s.kicked = 0;
  return forgot;
}

/// What the stub does, at the very instructions that do it. A system call anywhere else is guest code's: SIGSYS.
bool ExecutorProcess::installFilter() const {
  constexpr unsigned kMost = 64;
  sock_filter program[kMost];
  unsigned count = 0;
  auto load = [&](std::size_t offset) {
    program[count++] = {BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<std::uint32_t>(offset)};
  };
  auto answer = [&](std::uint32_t value) { program[count++] = {BPF_RET | BPF_K, 0, 0, value}; };
  // Unless it is so, `skipped` statements are left out.
  auto require = [&](std::uint32_t value, std::uint8_t skipped) {
    program[count++] = {BPF_JMP | BPF_JEQ | BPF_K, 0, skipped, value};
  };
  constexpr std::size_t kIp = offsetof(seccomp_data, instruction_pointer), kHigh = 4;
  auto argument = [](unsigned n) { return offsetof(seccomp_data, args) + 8 * n; };
  load(offsetof(seccomp_data, arch));
  require(AUDIT_ARCH_X86_64, 1);
  load(kIp + kHigh);
  require(static_cast<std::uint32_t>(codeAddress() >> 32), 1);
  load(kIp);
  // Whatever is not so compares as no address of the stub: the code lies on no 4 GiB boundary.
  auto call = [&](const std::uint8_t* behind, std::uint32_t number, std::uint32_t result) {
    require(static_cast<std::uint32_t>(stubAddress(behind)), 4);
    load(offsetof(seccomp_data, nr));
    require(number, 1);
    answer(result);
    answer(SECCOMP_RET_TRAP);
  };
  auto change = [&](const std::uint8_t* behind, std::uint32_t number, std::size_t low, std::size_t high) {
    require(static_cast<std::uint32_t>(stubAddress(behind)), 8);
    load(offsetof(seccomp_data, nr));
    require(number, 5);
    load(low);
    require(static_cast<std::uint32_t>(cookie_), 3);
    load(high);
    require(static_cast<std::uint32_t>(cookie_ >> 32), 1);
    answer(SECCOMP_RET_ALLOW);
    answer(SECCOMP_RET_TRAP);
  };
  call(executorStopped, EXECUTOR_STOP_CALL, SECCOMP_RET_USER_NOTIF);
  call(executorStackSet, SYS_sigaltstack, SECCOMP_RET_ALLOW);
  call(executorUnblocked, SYS_rt_sigprocmask, SECCOMP_RET_ALLOW);
  call(executorBlocked, SYS_rt_sigprocmask, SECCOMP_RET_ALLOW);
  call(executorReturned, SYS_rt_sigreturn, SECCOMP_RET_ALLOW);
  call(executorDied, SYS_exit_group, SECCOMP_RET_ALLOW);
  change(executorMapped, SYS_mmap, argument(3) + kHigh, argument(4) + kHigh);
  change(executorUnmapped, SYS_munmap, argument(2), argument(2) + kHigh);
  answer(SECCOMP_RET_TRAP);
  sock_fprog filter{static_cast<unsigned short>(count), program};
  if (hostCall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1) != 0) return false;
  constexpr std::uint64_t kListener = 1 << 3, kWaitKillable = 1 << 5;  // of SECCOMP_FILTER_FLAG_
  long file = hostCall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, kListener | kWaitKillable, number(&filter));
  if (file < 0) file = hostCall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, kListener, number(&filter));
  if (file < 0) return false;
  __atomic_store_n(&state().listener, static_cast<std::int32_t>(file), __ATOMIC_SEQ_CST);
  return true;
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
  if (all.count != 0) {
    ExecutorCommand& last = all.command[all.count - 1];
    bool shows = command.offset != ExecutorCommand::kNothing;
    bool goesOn = last.address + last.length == command.address && last.protection == command.protection &&
                  (shows ? last.offset != ExecutorCommand::kNothing && last.offset + last.length == command.offset
                         : last.offset == ExecutorCommand::kNothing);
    if (goesOn) last.length += command.length;
    if (goesOn) return true;
  }
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
  state().cookie = commands().count != 0 ? cookie_ : 0;
  answered_ = false;
  // A kick meanwhile made it ask anew.
  while (!reply()) {
    if (!wait(kNever)) return false;
  }
  answered_ = true;
  if (!wait(wantsStop)) return false;
  // Unless it asked anew after all, and has not seen the answer (before Linux 5.19).
  if (state().cookie == 0) forgetAsked();
  return true;
}

/// Lets it go on. False: it has another question by now.
bool ExecutorProcess::reply() {
  seccomp_notif_resp response{};
  response.id = stop_;
  response.val = EXECUTOR_GO_ON;
  long result = 0;
  do {  // a signal may come before it is sent
    result =
        hostCall(SYS_ioctl, static_cast<std::uint64_t>(listener_.get()), SECCOMP_IOCTL_NOTIF_SEND, number(&response));
  } while (result == -EINTR);
  return result == 0;
}

/// Takes its question, if there is one.
bool ExecutorProcess::receive() {
  union {
    seccomp_notif notification;
    std::uint8_t room[256];  // the kernel's may be larger
  } n{};
  if (hostCall(SYS_ioctl, static_cast<std::uint64_t>(listener_.get()), SECCOMP_IOCTL_NOTIF_RECV, number(&n)) != 0)
    return false;
  stop_ = n.notification.id;
  return true;
}

bool ExecutorProcess::wait(const volatile std::uint32_t& wantsStop) {
  std::uint64_t since = 0;
  bool limited = &wantsStop == &kNever;  // what does not wait for guest code to come to an end takes no time
  for (unsigned kicks = 0, looks = 0;; ++looks) {
    // Who wants it to stop interrupts the wait with a signal, which may come just before it; and the executor may be
    // about to return to guest code when the kick comes. Both are rare, and then it is tried again.
    bool kicked = wantsStop != 0;
    if (kicked) kick();
    // One that has blocked them is ended; no program needs that. Their number says nothing, nor does the time: other
    // vCPUs may interrupt this wait all the time, while the host has no processor for the executor.
    if (kicked ? kicks++ % kKicksApart == 0 : limited && looks != 0) {
      std::uint64_t used = processorTime();
      if (since == 0) since = used;
      if (used > since + (kicked ? kMostUnanswered : kMostAlone)) ::kill(pid_, SIGKILL);
    }
    timespec wait{0, kicked ? kKickAgain : kLookAgain};
    pollfd file{listener_.get(), POLLIN, 0};
    long result = hostCall(SYS_ppoll, number(&file), 1, number(&wait), 0, 8);
    if (result > 0 && (file.revents & POLLIN) != 0 && receive()) return true;
    if (result >= 0 && !isAlive()) return false;
  }
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
