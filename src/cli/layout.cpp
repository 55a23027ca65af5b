// SPDX-License-Identifier: Apache-2.0
#include "cli/layout.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/text.h"

namespace lodge::cli {

std::string wrapped(std::string_view text, std::size_t indent, std::size_t width) {
  std::string out;
  std::string line;
  auto endLine = [&] {
    if (!line.empty()) out += std::string(indent, ' ') + line + "\n";
    line.clear();
  };
  for (std::string_view paragraphLine : split(text, '\n')) {
    if (paragraphLine.empty()) {
      endLine();
      if (!out.empty()) out += "\n";
      continue;
    }
    for (std::string_view word : split(paragraphLine, ' ')) {
      if (!line.empty() && indent + line.size() + 1 + word.size() > width) endLine();
      if (!line.empty()) line += ' ';
      line += word;
    }
  }
  endLine();
  return out;
}

std::string definition(std::string_view term, std::string_view text, std::size_t column, std::size_t width) {
  std::string left = "  " + std::string(term);
  std::string right = wrapped(text, column, width);
  if (left.size() + 2 > column) return left + "\n" + right;
  return left + (right.empty() ? "\n" : right.substr(left.size()));
}

std::string columns(const std::vector<std::vector<std::string>>& rows, const std::vector<std::size_t>& rightAligned) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      std::string padding(widths[i] - row[i].size(), ' ');
      bool right = std::find(rightAligned.begin(), rightAligned.end(), i) != rightAligned.end();
      if (right) out += padding;
      out += row[i];
      if (!right && i + 1 < row.size()) out += padding;
      if (i + 1 < row.size()) out += "  ";
    }
    out += "\n";
  }
  return out;
}

bool print(std::string_view text) {
  while (!text.empty()) {
    ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

std::size_t outputWidth() {
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return std::clamp<std::size_t>(size.ws_col, 60, 100);
}

}  // namespace lodge::cli
