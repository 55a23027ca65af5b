// SPDX-License-Identifier: Apache-2.0
#include "cli/spelling.h"

#include <utility>

namespace lodge::cli {

namespace {
Spellings& known() {
  static Spellings all;
  return all;
}
}  // namespace

void setSpellings(Spellings spellings) {
  known() = std::move(spellings);
}

std::string respelled(std::string text) {
  auto continues = [](char c) { return (c >= 'a' && c <= 'z') || c == '-'; };
  for (const auto& [ours, theirs] : known()) {
    std::size_t at = 0;
    while ((at = text.find(ours, at)) != std::string::npos) {
      std::size_t end = at + ours.size();
      bool whole = end == text.size() || !continues(text[end]);
      if (whole) text.replace(at, ours.size(), theirs);
      at += whole ? theirs.size() : ours.size();
    }
  }
  return text;
}

}  // namespace lodge::cli
