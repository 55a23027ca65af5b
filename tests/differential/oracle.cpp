// SPDX-License-Identifier: Apache-2.0
#include "tests/differential/oracle.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "tests/differential/descriptors.h"

namespace lodge::differential {

std::span<const std::byte, kDataBytes> dataPattern(std::uint64_t seed) {
  using Pattern = std::array<std::byte, kDataBytes>;
  static const std::vector<Pattern> patterns = [] {
    std::vector<Pattern> made(64);
    std::uint64_t x = 0x9e3779b97f4a7c15;
    for (Pattern& pattern : made) {
      for (std::size_t i = 0; i < kDataBytes; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        // Every fourth word is a pointer into the data, so that loaded values make addresses.
        std::uint64_t word = (i & 24) == 24 ? kDataBase + x % kDataBytes : x;
        std::memcpy(pattern.data() + i, &word, 8);
      }
    }
    return made;
  }();
  return patterns[seed % patterns.size()];
}

std::span<const std::byte, kPatchBytes> patchPattern() {
  static const std::vector<std::byte> pattern(kPatchBytes, std::byte{0xcc});
  return std::span<const std::byte, kPatchBytes>(pattern);
}

/// Bytes of vector state in a signal frame (Linux arch/x86/include/uapi/asm/sigcontext.h, _fpx_sw_bytes).
std::size_t frameBytes(const std::byte* vector) {
  constexpr std::uint32_t kMagic = 0x46505853;
  std::uint32_t words[5];
  std::memcpy(words, vector + 464, sizeof words);
  return words[0] != kMagic ? 512 : words[4] < kVectorBytes ? words[4] : kVectorBytes;
}
bool hostHasFsgsbase() {
  return (::getauxval(AT_HWCAP2) & 2) != 0;
}

namespace {

using Words = std::uint64_t __attribute__((vector_size(16), aligned(1), may_alias));

bool sameLine(const std::byte* a, const std::byte* b) {
  Words sum{};
  for (int i = 0; i < 64; i += 16) {
    sum |= *reinterpret_cast<const Words*>(a + i) ^ *reinterpret_cast<const Words*>(b + i);
  }
  return (sum[0] | sum[1]) == 0;
}

}  // namespace

std::uint32_t hashChanges(std::span<const std::byte> before, const std::byte* after) {
  std::uint64_t h = 0xcbf29ce484222325;
  for (std::size_t line = 0; line + 64 <= before.size(); line += 64) {
    if (sameLine(before.data() + line, after + line)) continue;
    h += line;
    for (std::size_t i = line; i < line + 64; i += 8) {
      std::uint64_t word;
      std::memcpy(&word, after + i, 8);
      h = (h ^ word) * 0x9e3779b97f4a7c15;
      h ^= h >> 29;
    }
  }
  return static_cast<std::uint32_t>(h ^ (h >> 32));
}

struct Oracle::Shared {
  std::atomic<std::uint32_t> turn;  // 0: the child waits; 1: the child works
  std::uint32_t count;
  std::atomic<std::uint32_t> current;
  Snippet snippets[kBatch];
  Outcome outcomes[kBatch];
  std::byte data[kDataBytes];  // as the last snippet left them
};

namespace {

constexpr std::size_t kSignalStack = 64 << 10;
constexpr int kNoSegments16 = 97;  // exit status
// A snippet that has seen this many alarms hangs.
constexpr unsigned kAlarms = 4;
constexpr long kAlarmNanoseconds = 250'000;

// The child's state, used by its signal handler alone.
struct Child {
  std::atomic<std::uint32_t>* current;
  std::uint32_t count;
  const Snippet* snippets;
  Outcome* outcomes;
  std::byte* lastData;
  bool active;
  ucontext_t home;  // where the batch started, restored at its end
  alignas(64) std::byte homeVector[kVectorBytes];
  bool hasFsgsbase;
  std::uint64_t homeFs;
  std::uint32_t alarmed;  // the snippet that ran at the last alarm
  unsigned alarms;        // how many it has seen
  timer_t timer;
};
Child child;

// By hand: this runs in a signal handler where the thread pointer is the snippet's.
std::uint64_t readFs() {
  std::uint64_t base;
  asm volatile("rdfsbase %0" : "=r"(base));
  return base;
}
std::uint64_t readGs() {
  std::uint64_t base;
  asm volatile("rdgsbase %0" : "=r"(base));
  return base;
}
void writeFs(std::uint64_t base) {
  asm volatile("wrfsbase %0" : : "r"(base));
}
void writeGs(std::uint64_t base) {
  asm volatile("wrgsbase %0" : : "r"(base));
}

/// `codeAndStack`: of a signal frame, in its lowest and highest 16 bits.
std::array<std::uint16_t, 6> readSelectors(std::uint64_t codeAndStack) {
  std::uint16_t es, ds, fs, gs;
  asm volatile("mov %%es, %0\n\tmov %%ds, %1\n\tmov %%fs, %2\n\tmov %%gs, %3" : "=r"(es), "=r"(ds), "=r"(fs), "=r"(gs));
  return {es, static_cast<std::uint16_t>(codeAndStack), static_cast<std::uint16_t>(codeAndStack >> 48), ds, fs, gs};
}

// ucontext's register order (sys/ucontext.h) for guest encodings 0..15.
constexpr int kGregs[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                            REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

std::uint64_t frameComponents(const std::byte* vector) {
  std::uint64_t components;
  std::memcpy(&components, vector + 472, 8);
  return components;
}

void loadNext(ucontext_t* context) {
  std::uint32_t index = child.current->load();
  auto* data = reinterpret_cast<std::byte*>(kDataBase);
  auto* vector = reinterpret_cast<std::byte*>(context->uc_mcontext.fpregs);
  if (index == child.count) {
    child.active = false;
    std::memcpy(child.lastData, data, kDataBytes);
    std::memcpy(context->uc_mcontext.gregs, child.home.uc_mcontext.gregs, sizeof context->uc_mcontext.gregs);
    std::memcpy(vector, child.homeVector, 464);
    std::memcpy(vector + 512, child.homeVector + 512, frameBytes(vector) - 512);
    return;
  }
  const Snippet& snippet = child.snippets[index];
  std::memcpy(data, dataPattern(snippet.dataSeed).data(), kDataBytes);
  std::memset(reinterpret_cast<void*>(kPatchBase), 0xcc, kPatchBytes);
  if (snippet.inPatchArea) {
    std::memcpy(reinterpret_cast<void*>(kPatchBase + patchOffset(snippet)), snippet.code, snippet.length);
  }
  auto& gregs = context->uc_mcontext.gregs;
  for (int i = 0; i < 16; ++i) gregs[kGregs[i]] = static_cast<greg_t>(snippet.before.gpr[i]);
  gregs[REG_RIP] = static_cast<greg_t>(snippet.before.rip);
  gregs[REG_EFL] = static_cast<greg_t>(snippet.before.rflags);
  std::uint16_t code = snippet.code32 ? kUserCs32 : kUserCs, stack = kUserSs;
  if (snippet.code16) {
    code = snippet.inPatchArea ? kPatch16 : code16Selector(snippet.slot);
    stack = kData16;
  }
  gregs[REG_CSGSFS] = (gregs[REG_CSGSFS] & 0xffff'ffff'0000) | code | static_cast<greg_t>(std::uint64_t{stack} << 48);
  // Bytes 464..511 are software-reserved: the kernel keeps its own description of the frame there.
  std::memcpy(vector, snippet.before.vector.data(), 464);
  std::memcpy(vector + 576, snippet.before.vector.data() + 576, frameBytes(vector) - 576);
  std::uint64_t components = kVectorComponents & frameComponents(vector);
  std::memcpy(vector + 512, &components, 8);
  // 64-bit code, as this is, has no use for DS and ES. The bases of FS and GS, which the selectors load, come later.
  asm volatile("mov %0, %%ds\n\tmov %0, %%es" : : "r"(stack));
  if (child.hasFsgsbase) {
    asm volatile("mov %0, %%gs\n\tmov %1, %%fs" : : "r"(snippet.gsSelector), "r"(snippet.fsSelector));
    writeGs(snippet.before.gsBase);
    writeFs(snippet.before.fsBase);  // last: nothing may use the thread pointer from here on
  }
}

void onSignal(int signal, siginfo_t*, void* argument) {
  // The kernel leaves AC, NT and ID as the snippet had them. Compiled code is full of misaligned accesses, and the
  // other two would stay for the next snippet.
  __builtin_ia32_writeeflags_u64(__builtin_ia32_readeflags_u64() & ~0x244000ull);
  std::uint64_t fsBase = 0, gsBase = 0;
  if (child.hasFsgsbase && child.active) {
    fsBase = readFs();
    gsBase = readGs();
    writeFs(child.homeFs);
  }
  auto* context = static_cast<ucontext_t*>(argument);
  auto& gregs = context->uc_mcontext.gregs;
  auto* vector = reinterpret_cast<std::byte*>(context->uc_mcontext.fpregs);
  if (!child.active) {
    if (signal == SIGALRM) return;  // between two batches
    if (signal != SIGTRAP) _exit(100 + signal);
    child.active = true;
    std::memcpy(&child.home, context, sizeof child.home);
    std::memcpy(child.homeVector, vector, frameBytes(vector));
    loadNext(context);
    return;
  }
  std::uint32_t current = child.current->load();
  if (signal == SIGALRM) {
    child.alarms = child.alarmed == current ? child.alarms + 1 : 1;
    child.alarmed = current;
    if (child.alarms < kAlarms) {
      if (child.hasFsgsbase) writeFs(fsBase);
      return;
    }
  }
  Outcome& outcome = child.outcomes[current];
  outcome.selectors = readSelectors(static_cast<std::uint64_t>(gregs[REG_CSGSFS]));
  outcome.after.fsBase = fsBase;
  outcome.after.gsBase = gsBase;
  outcome.patchHash = hashChanges(patchPattern(), reinterpret_cast<const std::byte*>(kPatchBase));
  for (int i = 0; i < 16; ++i) outcome.after.gpr[i] = static_cast<std::uint64_t>(gregs[kGregs[i]]);
  outcome.after.rip = static_cast<std::uint64_t>(gregs[REG_RIP]);
  outcome.after.rflags = static_cast<std::uint64_t>(gregs[REG_EFL]);
  std::memcpy(outcome.after.vector.data(), vector, frameBytes(vector));
  outcome.vector = static_cast<std::uint32_t>(gregs[REG_TRAPNO]);
  outcome.errorCode = static_cast<std::uint32_t>(gregs[REG_ERR]);
  outcome.faultAddress = static_cast<std::uint64_t>(gregs[REG_CR2]);
  outcome.dataHash =
      hashChanges(dataPattern(child.snippets[current].dataSeed), reinterpret_cast<const std::byte*>(kDataBase));
  outcome.skipped = signal == SIGSYS || signal == SIGALRM;
  child.current->fetch_add(1);
  loadNext(context);
}

void* mapAt(std::uint64_t address, std::size_t length, int protection, int fd = -1) {
  int kind = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
  return ::mmap(reinterpret_cast<void*>(address), length, protection, kind | MAP_FIXED_NOREPLACE | MAP_POPULATE, fd, 0);
}

/// The same memory twice.
bool mapTwice(std::uint64_t address, std::uint64_t alias, std::size_t length, int aliasProtection,
              int protection = PROT_READ | PROT_WRITE) {
  int fd = ::memfd_create("snippets", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(length)) != 0) return false;
  return mapAt(address, length, protection, fd) != MAP_FAILED &&
         mapAt(alias, length, aliasProtection, fd) != MAP_FAILED;
}

bool forbidSystemCalls() {
  // rt_sigreturn ends every snippet; mprotect, futex and exit belong to the loop; the timer bounds a snippet that
  // hangs.
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 6),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 5, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 3, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_timer_settime, 2, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{static_cast<unsigned short>(sizeof filter / sizeof filter[0]), filter};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

bool prepareChild() {
  if (!mapTwice(kCodeBase, kCode32Base, kCodeBytes, PROT_READ | PROT_EXEC)) return false;
  constexpr int kAll = PROT_READ | PROT_WRITE | PROT_EXEC;
  if (!mapTwice(kPatchBase, kPatchAlias, kPatchBytes, kAll, kAll)) return false;
  if (!mapTwice(kDataBase, kDataAlias, kDataBytes, PROT_READ | PROT_WRITE)) return false;
  child.hasFsgsbase = hostHasFsgsbase();
  if (child.hasFsgsbase) child.homeFs = readFs();
  if (!mapTwice(kReadOnlyBase, kReadOnlyAlias, kReadOnlyBytes, PROT_READ)) return false;
  void* readOnly = reinterpret_cast<void*>(kReadOnlyBase);
  std::memcpy(readOnly, dataPattern(1).data(), kReadOnlyBytes);
  (void)patchPattern();  // made now: later there are signal handlers alone
  ::mprotect(readOnly, kReadOnlyBytes, PROT_READ);
  stack_t stack{};
  stack.ss_sp =
      ::mmap(nullptr, kSignalStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  stack.ss_size = kSignalStack;
  if (stack.ss_sp == MAP_FAILED || ::sigaltstack(&stack, nullptr) != 0) return false;
  struct sigaction action {};
  action.sa_sigaction = onSignal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigfillset(&action.sa_mask);
  for (int signal : {SIGTRAP, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGSYS, SIGALRM}) {
    if (::sigaction(signal, &action, nullptr) != 0) return false;
  }
  return ::timer_create(CLOCK_MONOTONIC, nullptr, &child.timer) == 0;
}

void waitFor(std::atomic<std::uint32_t>& word, std::uint32_t wanted) {
  std::uint32_t value;
  while ((value = word.load()) != wanted) ::syscall(SYS_futex, &word, FUTEX_WAIT, value, nullptr, nullptr, 0);
}

bool waitFor(std::atomic<std::uint32_t>& word, std::uint32_t wanted, int seconds) {
  timespec limit{seconds, 0};
  std::uint32_t value;
  while ((value = word.load()) != wanted) {
    if (::syscall(SYS_futex, &word, FUTEX_WAIT, value, &limit, nullptr, 0) != 0 && errno == ETIMEDOUT) return false;
  }
  return true;
}

void hand(std::atomic<std::uint32_t>& word, std::uint32_t value) {
  word.store(value);
  ::syscall(SYS_futex, &word, FUTEX_WAKE, 1, nullptr, nullptr, 0);
}

}  // namespace

Result<std::unique_ptr<Oracle>> Oracle::create(bool code16) {
  void* area = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED) return Error::fromErrno(errno, "map the oracle's shared memory");
  auto oracle = std::unique_ptr<Oracle>(new Oracle(static_cast<Shared*>(area), code16));
  // What the last descriptor of visibleGdt() says of this CPU holds for the child, which stays here.
  StayOnCpu here;
  if (!here.stays()) return Error(ErrorKind::unsupported, "the host does not let a process choose its CPU");
  (void)visibleGdt();
  if (Status started = oracle->startChild(); !started) return std::move(started).error();
  return oracle;
}

Oracle::~Oracle() {
  if (child_ > 0) {
    ::kill(child_, SIGKILL);
    ::waitpid(child_, nullptr, 0);
  }
  ::munmap(shared_, sizeof(Shared));
}

Status Oracle::startChild() {
  shared_->turn = 1;
  Shared* shared = shared_;
  child_ = ::fork();
  if (child_ < 0) return Error::fromErrno(errno, "fork the oracle");
  if (child_ > 0) return waitForChild();
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (code16_ && !installSegments16()) _exit(kNoSegments16);
  if (!prepareChild() || !forbidSystemCalls()) _exit(98);
  for (;;) {
    hand(shared->turn, 0);
    waitFor(shared->turn, 1);
    auto* code = reinterpret_cast<std::uint8_t*>(kCodeBase);
    ::mprotect(code, kCodeBytes, PROT_READ | PROT_WRITE);
    std::memset(code, 0xcc, kCodeBytes);
    for (std::uint32_t i = 0; i < shared->count; ++i) {
      const Snippet& s = shared->snippets[i];
      if (!s.inPatchArea) std::memcpy(code + s.slot * kSlotBytes, s.code, kSlotBytes);
    }
    ::mprotect(code, kCodeBytes, PROT_READ | PROT_EXEC);
    child.current = &shared->current;
    child.count = shared->count;
    child.snippets = shared->snippets;
    child.outcomes = shared->outcomes;
    child.lastData = shared->data;
    shared->current = 0;
    // A periodic alarm ends a snippet that loops: alarms do not pile up, so that one that has seen several has run in
    // between, however busy the machine is.
    child.alarmed = ~std::uint32_t{0};
    itimerspec limit{{0, kAlarmNanoseconds}, {0, kAlarmNanoseconds}};
    ::timer_settime(child.timer, 0, &limit, nullptr);
    asm volatile("int3" ::: "memory");
    itimerspec none{};
    ::timer_settime(child.timer, 0, &none, nullptr);
  }
}

Status Oracle::waitForChild() {
  int status = 0;
  bool done = false, died = false;
  for (int seconds = 0; seconds < 120 && !done && !died; ++seconds) {
    done = waitFor(shared_->turn, 0, 1);
    died = !done && ::waitpid(child_, &status, WNOHANG) == child_;
  }
  if (done) return {};
  if (died) child_ = -1;
  if (died && WIFEXITED(status) && WEXITSTATUS(status) == kNoSegments16)
    return Error(ErrorKind::unsupported, "the host lets no process have 16-bit segments (modify_ldt)");
  return Error(ErrorKind::internal, "the oracle " + std::string(died ? "died" : "hung") + " in snippet " +
                                        std::to_string(shared_->current.load()) + ", status " + std::to_string(status));
}

Status Oracle::run(std::span<const Snippet> snippets, std::span<Outcome> outcomes) {
  shared_->count = static_cast<std::uint32_t>(snippets.size());
  std::memcpy(shared_->snippets, snippets.data(), snippets.size_bytes());
  hand(shared_->turn, 1);
  if (Status ran = waitForChild(); !ran) return ran;
  std::memcpy(outcomes.data(), shared_->outcomes, outcomes.size_bytes());
  return {};
}

bool Oracle::usesItself(std::uint64_t address) const {
  std::ifstream maps("/proc/" + std::to_string(child_) + "/maps");
  std::string line;
  while (std::getline(maps, line)) {
    std::uint64_t begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx", &begin, &end) == 2 && address >= begin && address < end)
      return line.find("memfd:snippets") == std::string::npos;
  }
  return false;
}

std::span<const std::byte> Oracle::data() const {
  return shared_->data;
}

}  // namespace lodge::differential
