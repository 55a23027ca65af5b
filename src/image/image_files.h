// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "image/disk.h"

namespace lodge::image {

/// The files that a disk is read from: its own first, then the extents or data file that belong to it, and those of the
/// images behind it, as `options` lead to them. Takes no locks, so that the disk may be in use. Network disks are left
/// out. Errors: as openImage().
Result<std::vector<std::string>> filesOf(const DiskOptions& options);

/// The name of the format that a disk has by its content. Empty for network disks, and where it cannot be read: opening
/// the disk says why.
std::string formatByContent(const std::string& path);

}  // namespace lodge::image
