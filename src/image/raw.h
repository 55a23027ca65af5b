// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "base/error.h"
#include "image/store.h"

namespace lodge {

/// A raw image: a regular file or a block device whose bytes are the disk's. A file that does not end on a sector is
/// rounded up; what lies beyond its end reads as zero. Errors: as openDisk().
Result<std::unique_ptr<Store>> openRaw(const std::string& path, bool readOnly);

/// Keeps writes to `base` (which is never written) in a temporary file that has no name and goes with the process.
Result<std::unique_ptr<Store>> makeOverlay(std::unique_ptr<Store> base);

}  // namespace lodge
