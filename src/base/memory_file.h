// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/file.h"

namespace lodge {

/// A file without a name that lies in memory: memfd_create(2), or, where the host forbids that, an unlinked file in
/// /dev/shm, /tmp or the current folder (which may lie on a disk, and may not be executable). Invalid, with errno, if
/// there is none to be had. `name` shows in /proc/PID/maps.
UniqueFd makeMemoryFile(const char* name);

}  // namespace lodge
