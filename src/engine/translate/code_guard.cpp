// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/code_guard.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine/translate/host_call.h"

namespace lodge::translate {

namespace {
long control(int fd, unsigned long request, void* argument) {
  return hostCall(SYS_ioctl, static_cast<std::uint64_t>(fd), request, reinterpret_cast<std::uint64_t>(argument));
}

/// A userfaultfd that write-protects [base, base+size) on demand; invalid if the host cannot.
UniqueFd openUserfaultfd(std::uint64_t base, std::uint64_t size) {
  UniqueFd fd(static_cast<int>(hostCall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)));
  if (!fd) return {};
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
  if (control(fd.get(), UFFDIO_API, &api) != 0) return {};
  uffdio_register range{};
  range.range = {base, size};
  range.mode = UFFDIO_REGISTER_MODE_WP;
  if (control(fd.get(), UFFDIO_REGISTER, &range) != 0) return {};
  if ((range.ioctls & std::uint64_t{1} << _UFFDIO_WRITEPROTECT) == 0) return {};
  return fd;
}
}  // namespace

Result<std::unique_ptr<CodeGuard>> CodeGuard::create(GuestMemory& memory, bool allowUserfaultfd) {
  auto guard = std::unique_ptr<CodeGuard>(new CodeGuard());
  guard->base_ = reinterpret_cast<std::uint64_t>(memory.cpuRw());
  guard->size_ = memory.backingSize();
  if (allowUserfaultfd) guard->fd_ = openUserfaultfd(guard->base_, guard->size_);
  return guard;
}

bool CodeGuard::change(std::uint64_t ramPage, bool protect) const {
  std::uint64_t at = base_ + (ramPage << 12);
  if (fd_) {
    uffdio_writeprotect change{};
    change.range = {at, kPageSize};
    change.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0;
    return control(fd_.get(), UFFDIO_WRITEPROTECT, &change) == 0;
  }
  auto protection = static_cast<std::uint64_t>(protect ? PROT_READ : PROT_READ | PROT_WRITE);
  return hostCall(SYS_mprotect, at, kPageSize, protection) == 0;
}

}  // namespace lodge::translate
