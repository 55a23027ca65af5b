// SPDX-License-Identifier: Apache-2.0
#include "base/program_pages.h"

#include <link.h>
#include <sys/mman.h>

#include <cstdint>
#include <fstream>
#include <string>

namespace lodge {

namespace {

constexpr std::uintptr_t kPage = 4096;

bool isTraced() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("TracerPid:")) return line != "TracerPid:\t0";
  }
  return true;
}

/// The parts of an object that are mapped from its file, and that nobody can have written.
int release(dl_phdr_info* object, std::size_t, void*) {
  for (unsigned n = 0; n < object->dlpi_phnum; ++n) {
    const ElfW(Phdr)& part = object->dlpi_phdr[n];
    if (part.p_type != PT_LOAD || (part.p_flags & PF_W) != 0) continue;
    std::uintptr_t first = (object->dlpi_addr + part.p_vaddr) & ~(kPage - 1);
    std::uintptr_t end = (object->dlpi_addr + part.p_vaddr + part.p_memsz + kPage - 1) & ~(kPage - 1);
    (void)::madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
  }
  return 0;
}

}  // namespace

void releaseProgramPages() {
  if (!isTraced()) ::dl_iterate_phdr(release, nullptr);
}

}  // namespace lodge
