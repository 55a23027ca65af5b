// SPDX-License-Identifier: Apache-2.0
// Ordinary code: no guest vector state is live while contexts come and go.
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>
#include <new>

#include "base/memory_file.h"
#include "engine/interpret/context.h"
#include "engine/interpret/interpreter.h"
#include "engine/interpret/thunk.h"
#include "engine/interpret/thunk_registry.h"

namespace lodge::interpret {

namespace {

struct sigaction gPrevious;

void onFloatingPointSignal(int number, siginfo_t* info, void* context) {
  if (handleFloatingPointSignal(context)) return;
  // Somebody else's: as it was before, and again.
  if ((gPrevious.sa_flags & SA_SIGINFO) != 0 && gPrevious.sa_sigaction)
    return gPrevious.sa_sigaction(number, info, context);
  ::sigaction(SIGFPE, &gPrevious, nullptr);
}

void installHandler() {
  struct sigaction action {};
  action.sa_sigaction = &onFloatingPointSignal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGFPE, &action, &gPrevious);
}

/// One piece of executable memory, mapped twice, so that no mapping is both writable and executable.
Status mapThunks(std::byte*& writable, std::byte*& executable) {
  constexpr std::size_t bytes = ThunkCache::kSlots * ThunkCache::kSlotBytes;
  UniqueFd fd = makeMemoryFile("lodge-thunks");
  if (!fd || ::ftruncate(fd.get(), bytes) != 0) return Error::fromErrno(errno, "create memory for native routines");
  void* rw = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (rw == MAP_FAILED) return Error::fromErrno(errno, "map memory for native routines");
  void* rx = ::mmap(nullptr, bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd.get(), 0);
  if (rx == MAP_FAILED) {
    Error error = Error::fromErrno(errno, "map executable memory");
    ::munmap(rw, bytes);
    // A file system without executable files: anonymous memory may do.
    rw = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (rw != MAP_FAILED) {
      writable = executable = static_cast<std::byte*>(rw);
      return {};
    }
    return std::move(error).withHint(
        "the host forbids executable memory (noexec memfd, SELinux execmem); allow it for Lodge");
  }
  writable = static_cast<std::byte*>(rw);
  executable = static_cast<std::byte*>(rx);
  return {};
}

void* mapZeroed(std::size_t bytes) {
  void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? nullptr : p;
}

}  // namespace

bool handleFloatingPointSignal(void* ucontext) {
  auto& registers = static_cast<ucontext_t*>(ucontext)->uc_mcontext.gregs;
  void* exit = thunkFaultExit(static_cast<std::uint64_t>(registers[REG_RIP]));
  if (!exit) return false;
  registers[REG_RAX] = registers[REG_TRAPNO];
  registers[REG_RIP] = reinterpret_cast<greg_t>(exit);
  return true;
}

Result<std::unique_ptr<ContextOwner>> ContextOwner::create(x86::Cpu& cpu, unsigned cacheEntries) {
  static std::once_flag once;
  std::call_once(once, installHandler);
  auto owner = std::unique_ptr<ContextOwner>(new ContextOwner());
  // One zeroed mapping: the context, the thunk table, the decoded instructions. Pages come with their first use.
  std::size_t head = alignUp(sizeof(Context), kPageSize), thunks = alignUp(sizeof(ThunkCache), kPageSize);
  owner->contextBytes_ = head + thunks + alignUp(sizeof(Decoded) * cacheEntries, kPageSize);
  auto* memory = static_cast<std::byte*>(mapZeroed(owner->contextBytes_));
  if (!memory) return Error::fromErrno(errno, "allocate an interpreter's memory");
  Context* context = reinterpret_cast<Context*>(memory);
  owner->context_ = context;
  context->thunks = new (memory + head) ThunkCache();
  context->cache = reinterpret_cast<Decoded*>(memory + head + thunks);
  context->cacheMask = cacheEntries - 1;
  context->thunks->owner_ = context;
  if (Status status = mapThunks(context->thunks->writable_, context->thunks->executable_); !status)
    return std::move(status).error();
  if (!registerThunkArea(context->thunks->executable_, ThunkCache::kSlots * ThunkCache::kSlotBytes)) {
    return Error(ErrorKind::outOfMemory, "too many vCPUs in one process");
  }
  context->thunks->reset();
  owner->cpu_ = &cpu;
  cpu.interpreter = context;
  return owner;
}

ContextOwner::~ContextOwner() {
  if (cpu_) cpu_->interpreter = nullptr;
  if (!context_) return;
  constexpr std::size_t bytes = ThunkCache::kSlots * ThunkCache::kSlotBytes;
  ThunkCache& thunks = *context_->thunks;
  if (thunks.executable_) {
    unregisterThunkArea(thunks.executable_);
    ::munmap(thunks.executable_, bytes);
  }
  if (thunks.writable_) ::munmap(thunks.writable_, bytes);
  ::munmap(context_, contextBytes_);
}

}  // namespace lodge::interpret
