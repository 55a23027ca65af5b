// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "base/error.h"
#include "image/disk.h"

namespace lodge::cli {

/// Reads a --disk value: FILE[,format=FORMAT][,readonly][,snapshot]; ",," is a comma in the file's name.
/// Errors: invalidArgument, unsupported (another format).
Result<DiskOptions> parseDisk(std::string_view text);

}  // namespace lodge::cli
