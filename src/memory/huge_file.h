// SPDX-License-Identifier: Apache-2.0
// Inside of GuestMemory: the file that is guest memory.
#pragma once

#include "base/file.h"

namespace lodge {

/// A file in memory whose mappings the host's kernel gives huge pages where madvise(MADV_HUGEPAGE) asks for them,
/// whatever shmem_enabled says of shared memory in general: an unlinked file on a tmpfs of its own, which is mounted
/// nowhere (fsopen(2), Linux 5.2; tmpfs(5), "huge"). It shows as a memfd of that name in /proc/PID/maps. Invalid where
/// this process may not mount (CAP_SYS_ADMIN), and where there is no KVM, which alone asks for huge pages.
UniqueFd makeHugeMemoryFile(const char* name);

}  // namespace lodge
