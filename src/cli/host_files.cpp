// SPDX-License-Identifier: Apache-2.0
#include "cli/host_files.h"

#include <fstream>
#include <sstream>

#include "base/text.h"

namespace lodge::cli {

std::string hostFile(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  std::string content = text.str();
  while (!content.empty() && content.back() == '\n') content.pop_back();
  return content;
}

std::optional<std::uint64_t> hostNumber(const std::string& path) {
  return parseNumber(hostFile(path));
}

const std::string& cpuinfo() {
  static const std::string text = hostFile("/proc/cpuinfo");
  return text;
}

}  // namespace lodge::cli
