// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

#include "base/error.h"

namespace lodge::control {

inline constexpr std::size_t kMaxMachineNameLength = 48;

/// A machine's name is a folder's name and part of a guest's host name: letters, digits, '-', '_' and '.', starting
/// with a letter or a digit, 1 to kMaxMachineNameLength characters. Errors: invalidArgument.
Status checkMachineName(std::string_view name);

}  // namespace lodge::control
