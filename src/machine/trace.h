// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/trace.h"

namespace lodge {

/// What MachineConfig::trace may hold, separated by commas: name and meaning. The machine and the engines look for
/// theirs.
const std::vector<std::pair<std::string, std::string>>& traceTable();

/// Errors: notFound, with the names that there are.
Status checkTrace(std::string_view list);

}  // namespace lodge
