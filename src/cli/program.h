// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "cli/spec.h"

namespace lodge::cli {

/// The whole program: runs the verb that the arguments (without the program's name) ask for; returns the exit status.
/// `called`: the program's name; "qemu-img" makes it take that program's command lines.
int runProgram(const std::vector<std::string>& arguments, const Program& program, const std::string& called = "lodge");

}  // namespace lodge::cli
