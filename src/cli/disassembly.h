// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace lodge::cli {

/// The text of Engine::describeCode() with objdump's disassembly behind the bytes of each line; as it is where there is
/// no objdump.
std::string withDisassembly(std::string_view text);

}  // namespace lodge::cli
