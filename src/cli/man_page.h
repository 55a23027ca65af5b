// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace lodge::cli {

/// The manual page lodge(1), in roff with the man macros (groff_man(7)).
std::string manPage();

/// Text as roff takes it literally: no escapes, no requests at the start of a line.
std::string roffEscaped(std::string_view text);

}  // namespace lodge::cli
