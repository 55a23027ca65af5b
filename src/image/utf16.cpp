// SPDX-License-Identifier: Apache-2.0
#include "image/utf16.h"

#include <algorithm>

namespace lodge::image {

namespace {

/// The code point at `i`, which moves behind it; -1 if the bytes are none.
long decode(std::string_view text, std::size_t& i) {
  auto at = [&](std::size_t n) { return n < text.size() ? static_cast<unsigned char>(text[n]) : 0U; };
  unsigned first = at(i);
  if (first < 0x80) return ++i, static_cast<long>(first);
  unsigned more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
  if (first < 0xc2 || first > 0xf4) return -1;
  unsigned long value = first & (0x3fU >> more);
  for (unsigned n = 1; n <= more; ++n) {
    if ((at(i + n) & 0xc0) != 0x80) return -1;
    value = value << 6 | (at(i + n) & 0x3f);
  }
  static constexpr unsigned long kLeast[] = {0, 0x80, 0x800, 0x10000};
  if (value < kLeast[more] || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) return -1;
  i += more + 1;
  return static_cast<long>(value);
}

void encode(unsigned long c, std::string& to) {
  auto put = [&](unsigned long byte) { to += static_cast<char>(byte); };
  if (c < 0x80) return put(c);
  if (c < 0x800) return put(0xc0 | c >> 6), put(0x80 | (c & 0x3f));
  if (c < 0x10000) return put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
  put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 0x3f)), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
}

}  // namespace

std::optional<std::u16string> toUtf16(std::string_view text) {
  std::u16string result;
  for (std::size_t i = 0; i < text.size();) {
    long c = decode(text, i);
    if (c < 0) return std::nullopt;
    if (c >= 0x10000) {
      result += static_cast<char16_t>(0xd800 + ((c - 0x10000) >> 10));
      c = 0xdc00 + ((c - 0x10000) & 0x3ff);
    }
    result += static_cast<char16_t>(c);
  }
  return result;
}

std::optional<std::string> fromUtf16(std::u16string_view text) {
  std::string result;
  for (std::size_t i = 0; i < text.size() && text[i] != 0; ++i) {
    unsigned long c = text[i];
    if (c >= 0xdc00 && c < 0xe000) return std::nullopt;
    if (c >= 0xd800 && c < 0xdc00) {
      if (i + 1 >= text.size() || text[i + 1] < 0xdc00 || text[i + 1] >= 0xe000) return std::nullopt;
      c = 0x10000 + ((c - 0xd800) << 10) + (text[++i] - 0xdc00UL);
    }
    encode(c, result);
  }
  return result;
}

std::string fromWindowsPath(std::string path) {
  bool windows = path.find('\\') != std::string::npos || (path.size() > 1 && path[1] == ':');
  if (!windows) return path;
  std::replace(path.begin(), path.end(), '\\', '/');
  bool elsewhere = path.starts_with("/") || (path.size() > 1 && path[1] == ':');
  if (elsewhere) return path.substr(path.find_last_of("/:") + 1);
  return path.starts_with("./") ? path.substr(2) : path;
}

std::string toWindowsPath(std::string path) {
  bool relative = !path.starts_with("/") && !path.starts_with("./") && !path.starts_with("../");
  if (relative) path = "./" + path;
  std::replace(path.begin(), path.end(), '/', '\\');
  return path;
}

}  // namespace lodge::image
