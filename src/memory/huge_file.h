// SPDX-License-Identifier: Apache-2.0
// Inside of GuestMemory: the file that is guest memory.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "base/file.h"
#include "base/units.h"

namespace lodge {

inline constexpr std::uint64_t kHugePage = 2_MiB;

/// A file in memory whose mappings the host's kernel gives huge pages where madvise(MADV_HUGEPAGE) asks for them,
/// whatever shmem_enabled says of shared memory in general: an unlinked file on a tmpfs of its own, which is mounted
/// nowhere (fsopen(2), Linux 5.2; tmpfs(5), "huge"). It shows as a memfd of that name in /proc/PID/maps. Invalid where
/// this process may not mount (CAP_SYS_ADMIN), and where there is no KVM, which alone asks for huge pages.
UniqueFd makeHugeMemoryFile(const char* name);

/// From now on the memory of this process's guests is made of huge pages that the host's administrator has set aside
/// (--hugepages; vm.nr_hugepages). Only whole ones can be protected or watched, so that nobody but KVM can run guests
/// there. Before guest memory is made.
void takeReservedHugePages();
bool takesReservedHugePages();
/// A memfd of such pages (hugetlbfs). Its size is a multiple of kHugePage. Invalid, with errno, where the kernel has
/// none.
UniqueFd makeReservedHugeFile(const char* name);
/// outOfMemory: not so many are free, with the numbers and what to do.
Error hugePagesMissing(std::uint64_t bytes);

}  // namespace lodge
