// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "device/fw_cfg.h"
#include "firmware/platform.h"
#include "memory/guest_memory.h"

namespace lodge::firmware {

/// Gives the guest's firmware what it makes tables from, as fw_cfg files in the form that QEMU made known: ACPI tables
/// with the script that places them ("etc/table-loader"), SMBIOS structures, and the map of RAM ("etc/e820"). Errors:
/// invalidArgument (a platform that ACPI cannot describe), and FwCfg::addFile()'s.
Status addFirmwareTables(FwCfg& fwCfg, const GuestMemory& memory, const PlatformDescription& platform);

/// The commands of "etc/table-loader" for ACPI tables whose RSDP and other tables are the files "etc/acpi/rsdp" and
/// "etc/acpi/tables".
struct LoaderFiles {
  std::vector<std::uint8_t> rsdp, tables, commands;
};
LoaderFiles buildLoaderFiles(const PlatformDescription& platform);

}  // namespace lodge::firmware
