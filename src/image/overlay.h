// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "base/error.h"
#include "image/store.h"

namespace lodge {

/// Keeps writes to `base` (which is never written) in a temporary file that has no name and goes with the process.
Result<std::unique_ptr<Store>> makeOverlay(std::unique_ptr<Store> base);

}  // namespace lodge
