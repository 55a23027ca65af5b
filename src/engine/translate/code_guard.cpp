// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/code_guard.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/trace.h"
#include "engine/translate/host_call.h"

namespace lodge::translate {

namespace {
long control(int fd, unsigned long request, void* argument) {
  return hostCall(SYS_ioctl, static_cast<std::uint64_t>(fd), request, reinterpret_cast<std::uint64_t>(argument));
}

/// A userfaultfd that write-protects [base, base+size) on demand; invalid if the host cannot.
int openUserfaultfd(std::uint64_t base, std::uint64_t size) {
  auto fd = static_cast<int>(hostCall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
  if (fd < 0) return -1;
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
  uffdio_register range{};
  range.range = {base, size};
  range.mode = UFFDIO_REGISTER_MODE_WP;
  if (control(fd, UFFDIO_API, &api) == 0 && control(fd, UFFDIO_REGISTER, &range) == 0 &&
      (range.ioctls & std::uint64_t{1} << _UFFDIO_WRITEPROTECT) != 0) {
    return fd;
  }
  hostCall(SYS_close, static_cast<std::uint64_t>(fd));
  return -1;
}
}  // namespace

Result<std::unique_ptr<CodeGuard>> CodeGuard::create(GuestMemory& memory, bool allowUserfaultfd) {
  auto guard = std::unique_ptr<CodeGuard>(new CodeGuard());
  guard->base_ = reinterpret_cast<std::uint64_t>(memory.cpuRw());
  guard->size_ = memory.backingSize();
  guard->memory_ = &memory;
  guard->waiting_ = allowUserfaultfd && memory.isLoading();
  if (allowUserfaultfd && !guard->waiting_) guard->open();
  return guard;
}

CodeGuard::~CodeGuard() {
  if (usableFd() >= 0) hostCall(SYS_close, static_cast<std::uint64_t>(usableFd()));
}

void CodeGuard::open() const {
  int fd = openUserfaultfd(base_, size_), none = -1;
  if (fd >= 0 && !fd_.compare_exchange_strong(none, fd)) hostCall(SYS_close, static_cast<std::uint64_t>(fd));
}

bool CodeGuard::change(std::uint64_t ramPage, bool protect) const {
  std::uint64_t at = base_ + (ramPage << 12);
  if (waiting_.load(std::memory_order_relaxed) && !memory_->isLoading() && waiting_.exchange(false)) open();
  bool done = true, few = isWithheld(HostFeature::mappings);
  if (few && !protect && few_.load(std::memory_order_relaxed) > 0) few_.fetch_sub(1, std::memory_order_relaxed);
  if (!protect && mixed_.load(std::memory_order_relaxed))
    done = hostCall(SYS_mprotect, at, kPageSize, PROT_READ | PROT_WRITE) == 0;
  if (usableFd() >= 0) {
    uffdio_writeprotect change{};
    change.range = {at, kPageSize};
    change.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
    return control(usableFd(), UFFDIO_WRITEPROTECT, &change) == 0 && done;
  }
  if (!protect) return done;
  mixed_.store(true, std::memory_order_relaxed);
  constexpr std::int64_t kFew = 400;
  if (few && few_.load(std::memory_order_relaxed) >= kFew) return false;
  if (few) few_.fetch_add(1, std::memory_order_relaxed);
  return hostCall(SYS_mprotect, at, kPageSize, PROT_READ) == 0;
}

}  // namespace lodge::translate
