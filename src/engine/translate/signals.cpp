// SPDX-License-Identifier: Apache-2.0
// Signals in translated code: host faults (which the interpreter then turns into what the guest must see) and kicks.
// The handler rebuilds the guest's precise state in the signal frame and lets the thread go on in a trampoline that
// leaves the cache.
#include "engine/translate/signals.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/translate/host_call.h"
#include "engine/translate/lockstep.h"
#include "engine/translate/trampolines.h"

namespace lodge::translate {

namespace {
using x86::CpuState;

constexpr std::uint64_t kTrapFlag = 0x100;
constexpr std::uint64_t kHostFlags = HOST_FLAGS;
constexpr std::size_t kStackBytes = 64 * 1024;
constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};

thread_local VcpuContext* current = nullptr;

struct sigaction previousActions[NSIG];

std::uint64_t addressOf(void (*function)()) {
  return reinterpret_cast<std::uint64_t>(function);
}
std::uint64_t addressOf(const char* label) {
  return reinterpret_cast<std::uint64_t>(label);
}

/// The arithmetic flags that LAHF/SETO left in RAX (`ADD AL, 7F` may have run already).
std::uint64_t flagsFromRax(std::uint64_t rax) {
  auto al = static_cast<std::uint8_t>(rax);
  bool overflow = al == 1 || al == 0x80;
  return (rax >> 8 & kHostFlags & 0xff) | (overflow ? std::uint64_t{x86::flag::of} : 0);
}

/// An interrupt that comes right after an inline STI waits for one instruction more.
void keepInterruptShadow(CpuState& state, const Frame& frame) {
  if (state.rip == frame.stiRip && (state.rflags & x86::flag::if_) != 0) state.interruptShadow = 1;
}

void resumeAt(greg_t* registers, const VcpuContext& context, std::uint64_t code) {
  registers[REG_RIP] = static_cast<greg_t>(code);
  registers[REG_RSP] = static_cast<greg_t>(reinterpret_cast<std::uint64_t>(&context.cpu->state));
  registers[REG_EFL] &= ~static_cast<greg_t>(kTrapFlag);
}

/// The thread is at a point where a border's test of `attention` is over, but translated code has not been reached.
bool abortWindow(greg_t* registers, const VcpuContext& context) {
  auto pc = static_cast<std::uint64_t>(registers[REG_RIP]);
  struct Window {
    const char *begin, *end;
    void (*abort)();
  };
  static const Window windows[] = {{lodgeEnterWindow, lodgeEnterWindowEnd, lodgeAbortEnter},
                                   {lodgeCrossWindow, lodgeCrossWindowEnd, lodgeAbortCross},
                                   {lodgeMissWindow, lodgeMissWindowEnd, lodgeAbortMiss},
                                   {lodgeIndirectWindow, lodgeIndirectWindowEnd, lodgeAbortIndirect},
                                   {lodgeStepWindow, lodgeStepWindowEnd, lodgeAbortStep},
                                   {lodgeSyscallWindow, lodgeSyscallWindowEnd, lodgeAbortSyscall}};
  for (const Window& w : windows) {
    if (pc < addressOf(w.begin) || pc >= addressOf(w.end)) continue;
    resumeAt(registers, context, addressOf(w.abort));
    return true;
  }
  return false;
}

/// All registers are the guest's.
bool leaveAt(greg_t* registers, const VcpuContext& context, const TranslationStore::Place& place, bool isFault) {
  CpuState& state = context.cpu->state;
  state.rip = place.translation->unit->pageNow(context.frame->page) + place.record.value;
  keepInterruptShadow(state, *context.frame);
  resumeAt(registers, context, addressOf(isFault ? lodgeExitFault : lodgeExitAttention));
  return true;
}

/// Puts the guest's state at an instruction boundary into registers and state.rip, and sends the thread out. False:
/// `pc` is inside an instruction that has begun to commit.
bool leaveTranslatedCode(greg_t* registers, const VcpuContext& context, const TranslationStore::Place& place,
                         bool isFault) {
  CpuState& state = context.cpu->state;
  switch (static_cast<RecordKind>(place.record.kind)) {
    case RecordKind::committing:
      return false;
    case RecordKind::dynamic:
      state.rip = static_cast<std::uint64_t>(registers[REG_R13]);
      resumeAt(registers, context, addressOf(lodgeExitAttention));
      return true;
    case RecordKind::movedBoth:
      registers[REG_RSI] -= registers[REG_R14] - static_cast<greg_t>(kTlbValid);
      [[fallthrough]];
    case RecordKind::movedDestination:
      registers[REG_RDI] -= registers[REG_R13] - static_cast<greg_t>(kTlbValid);
      return leaveAt(registers, context, place, isFault);
    case RecordKind::flagsSaved:
      registers[REG_EFL] = static_cast<greg_t>((static_cast<std::uint64_t>(registers[REG_EFL]) & ~kHostFlags) |
                                               flagsFromRax(static_cast<std::uint64_t>(registers[REG_RAX])));
      registers[REG_RAX] = static_cast<greg_t>(context.frame->savedRax);
      [[fallthrough]];
    case RecordKind::instruction:
    case RecordKind::entry:
      return leaveAt(registers, context, place, isFault);
  }
  return false;
}

/// Kick, or the end of a single step: out of translated code, if the thread is there.
void interrupt(greg_t* registers, VcpuContext& context) {
  context.frame->attention = 1;
  auto pc = static_cast<std::uint64_t>(registers[REG_RIP]);
  TranslationStore::Place place;
  if (!context.store->locate(pc, place)) {
    registers[REG_EFL] &= ~static_cast<greg_t>(kTrapFlag);
    context.stepping = false;
    abortWindow(registers, context);
    return;
  }
  if (leaveTranslatedCode(registers, context, place, false)) {
    context.stepping = false;
  } else {
    // A few more host instructions complete the guest's. They neither fault nor loop.
    context.stepping = true;
    registers[REG_EFL] |= static_cast<greg_t>(kTrapFlag);
  }
}

/// A store hit a page that was entered for reading (it was clean then). The interpreter will carry out the store; the
/// entry goes, so that the next access enters the page anew.
void dropReadOnlyEntry(std::uint64_t address, const greg_t* registers, VcpuContext& context) {
  const GuestMemory& memory = *context.cpu->memory;
  if (context.store->guard().covers(address)) ++context.counters.codeStores;
  if (address - reinterpret_cast<std::uint64_t>(memory.cpuRo()) >= memory.backingSize()) return;
  ++context.counters.readOnlyStores;
  for (int scratch : {REG_R13, REG_R14}) {
    auto entry = static_cast<std::uint64_t>(registers[scratch]);
    std::uint64_t linear = address - (entry - kTlbValid);
    bool isKernels = (linear >> 63) != 0 || context.key().has(ModeKey::kernelTable);
    TlbTable& table = isKernels ? context.spaces->kernelTable() : context.spaces->current().user;
    if (table.entry(linear) == entry) table.drop(linear);
  }
}

/// After a host instruction, for VcpuContext::onHostStep.
void showStep(const ucontext_t* frame, VcpuContext& context) {
  TranslationStore::Place place;
  gregset_t registers;
  std::memcpy(registers, frame->uc_mcontext.gregs, sizeof registers);
  if (!context.store->locate(static_cast<std::uint64_t>(registers[REG_RIP]), place)) return;
  CpuState kept = context.cpu->state;
  bool precise = leaveTranslatedCode(registers, context, place, false);
  CpuState shown = context.cpu->state;
  context.cpu->state = kept;
  constexpr int kRegisters[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_R15, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11};
  for (unsigned r = 0; r < 12; ++r) shown.gpr[r] = static_cast<std::uint64_t>(registers[kRegisters[r]]);
  shown.rflags = (shown.rflags & ~kHostFlags) | (static_cast<std::uint64_t>(registers[REG_EFL]) & kHostFlags);
  context.onHostStep(context, precise ? &shown : nullptr, frame, context.hostStepArgument);
}

/// Whether the signal was translated code's, or a store to guarded memory, and is dealt with.
bool handleFault(int number, const siginfo_t* info, greg_t* registers, VcpuContext& context) {
  auto pc = static_cast<std::uint64_t>(registers[REG_RIP]);
  if (number == SIGTRAP && context.stepping) {
    interrupt(registers, context);
    return true;
  }
  if (number == SIGSEGV && context.lockstep &&
      context.lockstep->openPage(reinterpret_cast<std::uint64_t>(info->si_addr)))
    return true;
  TranslationStore::Place place;
  if (context.store->locate(pc, place)) {
    dropReadOnlyEntry(reinterpret_cast<std::uint64_t>(info->si_addr), registers, context);
    return leaveTranslatedCode(registers, context, place, true);
  }
  auto stackPointer = static_cast<std::uint64_t>(registers[REG_RSP]);
  if (pc < TranslationStore::kLowestCode && stackPointer == reinterpret_cast<std::uint64_t>(&context.cpu->state)) {
    // An entry table's empty slot.
    ++context.counters.emptyEntries;
    context.cpu->state.rip = static_cast<std::uint64_t>(registers[REG_R13]);
    resumeAt(registers, context, addressOf(lodgeExitAttention));
    return true;
  }
  auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
  if ((number == SIGSEGV || number == SIGBUS) && context.store->guard().covers(address)) {
    // C++ stores to a page that has just become code; it reports the store afterwards (x86::wroteTo).
    context.store->openForStore(context.store->guard().ramPageOf(address));
    return true;
  }
  return false;
}

void callPrevious(int number, siginfo_t* info, void* ucontext) {
  const struct sigaction& previous = previousActions[number];
  if ((previous.sa_flags & SA_SIGINFO) != 0 && previous.sa_sigaction) {
    previous.sa_sigaction(number, info, ucontext);
  } else if (previous.sa_handler == SIG_IGN) {
    return;
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler) {
    previous.sa_handler(number);
  } else {
    // Once more, without us: the process ends with the right signal and a core at the right place.
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    ::sigaction(number, &standard, nullptr);
  }
}

void onFault(int number, siginfo_t* info, void* opaque) {
  int saved = errno;
  auto* registers = static_cast<ucontext_t*>(opaque)->uc_mcontext.gregs;
  if (number == SIGTRAP && current && current->onHostStep) {
    showStep(static_cast<ucontext_t*>(opaque), *current);
    if (current->stepping) interrupt(registers, *current);
    errno = saved;
    return;
  }
  bool handled = current && handleFault(number, info, registers, *current);
  if (handled) {
    ++current->counters.signals;
  } else {
    callPrevious(number, info, opaque);
  }
  errno = saved;
}

void onKick(int, siginfo_t*, void* opaque) {
  if (current && !current->stepping) interrupt(static_cast<ucontext_t*>(opaque)->uc_mcontext.gregs, *current);
}

/// The thread's signal stack, given back when the thread ends.
struct SignalStack {
  void* memory = nullptr;
  bool install() {
    if (memory) return true;
    void* p = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return false;
    stack_t stack{};
    stack.ss_sp = p;
    stack.ss_size = kStackBytes;
    if (::sigaltstack(&stack, nullptr) != 0) {
      ::munmap(p, kStackBytes);
      return false;
    }
    memory = p;
    return true;
  }
  ~SignalStack() {
    if (!memory) return;
    stack_t none{};
    none.ss_flags = SS_DISABLE;
    ::sigaltstack(&none, nullptr);
    ::munmap(memory, kStackBytes);
  }
};
thread_local SignalStack signalStack;

Status install() {
  struct sigaction action {};
  sigfillset(&action.sa_mask);
  for (int number : kSignals) sigdelset(&action.sa_mask, number);
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  action.sa_sigaction = onFault;
  for (int number : kSignals) {
    if (::sigaction(number, &action, &previousActions[number]) != 0)
      return Error::fromErrno(errno, "install signal handlers");
  }
  action.sa_sigaction = onKick;
  if (::sigaction(kickSignal(), &action, nullptr) != 0)
    return Error::fromErrno(errno, "install the kick signal's handler");
  return installSampler();
}
}  // namespace

int kickSignal() {
  return SIGRTMIN + 3;
}

Status installSignalHandlers() {
  static const Status result = install();
  return result;
}

void setCurrentContext(VcpuContext* context) {
  if (context) {
    signalStack.install();
    sampleThisThread();
    context->threadId = static_cast<int>(hostCall(SYS_gettid));
  }
  current = context;
}

VcpuContext* currentContext() {
  return current;
}

void kickThread(const VcpuContext& context) {
  hostCall(SYS_tgkill, static_cast<std::uint64_t>(hostCall(SYS_getpid)), static_cast<std::uint64_t>(context.threadId),
           static_cast<std::uint64_t>(kickSignal()));
}

void repairState(CpuState& state, const Frame& frame, const TranslationStore::Place& place) {
  if (static_cast<RecordKind>(place.record.kind) == RecordKind::flagsSaved) {
    state.rflags = (state.rflags & ~kHostFlags) | flagsFromRax(state.gpr[x86::rax]);
    state.gpr[x86::rax] = frame.savedRax;
  }
  state.rip = place.translation->unit->pageNow(frame.page) + place.record.value;
  keepInterruptShadow(state, frame);
}

}  // namespace lodge::translate
