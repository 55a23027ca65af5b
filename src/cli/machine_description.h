// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "control/json_fields.h"
#include "image/ovf.h"

namespace lodge::cli {

/// What `lodge image import` writes beside the disks, and export reads: name, cpus, memory (bytes), firmware ("bios" or
/// "uefi"), disks (path relative to the description, format, bus), cdDrives, nets.
control::Json describe(const image::ovf::Machine& machine);

struct DescribedMachine {
  image::ovf::Machine machine;       ///< of its disks, `file` is the path
  std::vector<std::string> formats;  ///< of the disks; "" if not said
  std::vector<std::string> cds;      ///< paths of the media in CD-ROM drives; "": none
};
/// Errors: as readFile(); corrupt (naming the field).
Result<DescribedMachine> readDescription(const std::string& path);

}  // namespace lodge::cli
