// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

namespace lodge::cli {

/// Where the user wrote another program's options: what was written, by the name of ours ("--disk": "-hda").
using Spellings = std::map<std::string, std::string>;

/// From now on fail() says what the user wrote. For the whole program, before the first thread.
void setSpellings(Spellings spellings);
/// `text` with our names of options, where they are whole words, as the user wrote them.
std::string respelled(std::string text);

}  // namespace lodge::cli
