// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "cli/spec.h"

namespace lodge::cli {

/// "-m, --memory SIZE" with the short form's place kept free where there is none.
std::string optionTerm(const OptionSpec& option);
/// The help text, with the values where they are a fixed set.
std::string optionText(const OptionSpec& option);

/// The whole help of a verb, laid out for `width` columns.
std::string verbHelp(const VerbSpec& verb, std::size_t width);

/// The list of verbs.
std::string programHelp(std::size_t width);

}  // namespace lodge::cli
