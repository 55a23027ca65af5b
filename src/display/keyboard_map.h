// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace lodge {

/// A key going down or up, by its X keysym.
struct KeyEvent {
  std::uint32_t keysym = 0;
  bool down = false;
  bool operator==(const KeyEvent&) const = default;
};

/// The key of a US keyboard that makes this keysym, as a code of scan code set 1 (extended ones with 0xe000); 0: none.
unsigned scanCodeOf(std::uint32_t keysym);

/// "ctrl-alt-delete", "ret", "f2", "a": keys that go down in this order and up in the other. Errors: invalidArgument.
Result<std::vector<KeyEvent>> keysNamed(std::string_view text);

/// What is pressed on a US keyboard to type the text: ASCII, with line feeds as the return key and tabs. Errors:
/// invalidArgument (names the character).
Result<std::vector<KeyEvent>> keysTyping(std::string_view text);

}  // namespace lodge
