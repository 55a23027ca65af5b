// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "image/disk.h"

namespace lodge::image {

/// The files that a disk is read from: its own first, then the extents or data file that belong to it, and those of the
/// images behind it, as `options` lead to them. Takes no locks, so that the disk may be in use; of a network disk
/// that is in use in this process it takes that connection. Nothing for one whose format is not named: its guest may
/// have written what looks like another format since, with names of files in it. Errors: as openImage().
Result<std::vector<std::string>> filesOf(const DiskOptions& options);

/// Whether a path is an address.
bool isNetworkDisk(const std::string& path);

/// The name of the format that a disk has by its content. Empty where it cannot be read (opening the disk says why),
/// and for network disks that are not open in this process.
std::string formatByContent(const std::string& path);

}  // namespace lodge::image
