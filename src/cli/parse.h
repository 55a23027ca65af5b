// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "cli/spec.h"

namespace lodge::cli {

/// Reads a verb's command line (what follows the verb) in GNU's way: options and arguments in any order, "--opt value",
/// "--opt=value", "-o value", "-ovalue", grouped flags "-dv", and "--" to end the options. With --help present nothing
/// else is checked. Errors: invalidArgument, naming the option and the fix.
Result<Invocation> parseArguments(const VerbSpec& verb, const std::vector<std::string>& arguments);

/// "lodge run [OPTION]... NAME..."
std::string usageLine(const VerbSpec& verb);

}  // namespace lodge::cli
