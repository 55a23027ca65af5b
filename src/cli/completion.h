// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace lodge::cli {

/// Completion scripts, made from the verbs' tables. Machines' names are asked of 'lodge ps' when they are needed.
std::string bashCompletion();
std::string zshCompletion();
std::string fishCompletion();

/// The command that lists what can complete a machine's name, for inside the scripts.
inline constexpr const char* kListMachines = "lodge ps --all --quiet 2>/dev/null";

}  // namespace lodge::cli
