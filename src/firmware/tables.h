// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/error.h"
#include "firmware/platform.h"
#include "memory/guest_memory.h"

namespace lodge::firmware {

struct InstalledTables {
  std::uint64_t rsdp;    ///< guest-physical address of the ACPI root pointer
  std::uint64_t smbios;  ///< and of the SMBIOS 3.0 entry point
};

/// Writes the BIOS data area, ACPI and SMBIOS tables to their places below 1 MiB (layout.h). Errors: invalidArgument (a
/// platform that ACPI cannot describe, too large tables).
Result<InstalledTables> installTables(GuestMemory& memory, const PlatformDescription& platform);

}  // namespace lodge::firmware
