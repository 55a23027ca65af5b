// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "base/error.h"
#include "machine/config.h"

namespace lodge::cli {

/// Reads a --disk value: FILE[,format=FORMAT][,readonly][,snapshot][,bus=BUS][,bootindex=N]; ",," is a comma in the
/// file's name. Errors: invalidArgument, unsupported (another format).
Result<DriveConfig> parseDisk(std::string_view text);
/// Reads a --cdrom value: FILE[,bus=ide|ahci|scsi][,bootindex=N]; FILE "none": no medium.
Result<DriveConfig> parseCdrom(std::string_view text);

/// Reads a --floppy value: FILE[,readonly][,snapshot]; "none" is an empty drive. Errors: invalidArgument.
Result<FloppyConfig> parseFloppy(std::string_view text);

}  // namespace lodge::cli
