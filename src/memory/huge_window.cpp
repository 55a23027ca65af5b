// SPDX-License-Identifier: Apache-2.0
#include "memory/huge_window.h"

#include <sys/mman.h>

namespace lodge {

HugeWindow::~HugeWindow() {
  if (reserved_) ::munmap(reserved_, 2 * kBytes);
}

bool HugeWindow::reserve() {
  if (reserved_) return true;
  void* p = ::mmap(nullptr, 2 * kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return false;
  reserved_ = static_cast<std::byte*>(p);
  window_ = reserved_ + (kBytes - reinterpret_cast<std::uintptr_t>(p) % kBytes) % kBytes;
  return true;
}

std::span<std::byte> HugeWindow::at(int fd, std::uint64_t offset) {
  if (hopeless_) return {};
  hopeless_ = true;  // until it has been seen to be otherwise
  if (!reserve()) return {};
  void* p = ::mmap(window_, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, static_cast<off_t>(offset));
  if (p == MAP_FAILED || ::madvise(window_, kBytes, MADV_HUGEPAGE) != 0) return {};
  // One access, and the host has given all or a small part.
  *static_cast<volatile std::byte*>(window_);
  unsigned char last = 0;
  if (::mincore(window_ + kBytes - kPageSize, kPageSize, &last) != 0 || (last & 1) == 0) return {};
  hopeless_ = false;
  return {window_, kBytes};
}

}  // namespace lodge
