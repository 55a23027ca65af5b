// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/error.h"

namespace lodge {

/// Locks an image file the way QEMU does (its docs/system/qemu-block-drivers, "image locking"; the byte numbers are
/// those of its raw driver): shared OFD locks on one byte for each right that is used, and on one for each right that
/// others may not have; then a look whether anybody holds the opposite ones. So Lodge and QEMU refuse to write one
/// image at the same time. The locks go with the open file. Errors: busy, naming the holder where /proc/locks tells;
/// file systems without locks are accepted as they are.
Status lockImage(int fd, bool writing, const std::string& path);

}  // namespace lodge
