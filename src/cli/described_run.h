// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.h"
#include "cli/spec.h"
#include "machine/config.h"

namespace lodge::cli {

/// Fills in what a description that `lodge image import` made says: CPUs, memory, disks, CD-ROM drives and, if `nets`,
/// network cards. The pc board has the disks on IDE, which any operating system knows, as far as there is room; the
/// others, and all of a machine with a kernel of its own, are virtio disks. Errors: corrupt, invalidArgument,
/// unsupported (UEFI firmware).
Status applyDescription(const std::string& path, bool nets, MachineConfig& config);

}  // namespace lodge::cli
