// SPDX-License-Identifier: Apache-2.0
#include "cli/disassembly.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/file.h"
#include "base/text.h"

namespace lodge::cli {

namespace {

std::vector<std::uint8_t> bytesOf(std::string_view hex) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t at = 0; at + 1 < hex.size(); at += 2) {
    auto digits = std::string(hex.substr(at, 2));
    bytes.push_back(static_cast<std::uint8_t>(std::strtoul(digits.c_str(), nullptr, 16)));
  }
  return bytes;
}

/// Runs objdump over files of bytes. Each call costs some milliseconds.
class Disassembler {
 public:
  Disassembler() : file_(::mkstemp(path_)) {}
  ~Disassembler() {
    if (file_) ::unlink(path_);
  }
  Disassembler(const Disassembler&) = delete;
  Disassembler& operator=(const Disassembler&) = delete;

  /// The instructions, "; " between them; empty if that cannot be had.
  std::string disassemble(const std::string& address, const std::vector<std::uint8_t>& bytes, bool is32) {
    if (!file_ || ::ftruncate(file_.get(), 0) != 0) return {};
    if (::pwrite(file_.get(), bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) return {};
    std::string command = "objdump -D -w --no-show-raw-insn -b binary -m i386" + std::string(is32 ? "" : ":x86-64") +
                          " --adjust-vma=0x" + address + " " + path_ + " 2>/dev/null";
    std::FILE* pipe = ::popen(command.c_str(), "r");
    if (!pipe) return {};
    std::string text;
    char line[512];
    while (std::fgets(line, sizeof line, pipe)) {
      std::string_view rest(line);
      std::size_t tab = rest.find(":\t");
      if (tab == std::string_view::npos || rest.front() != ' ') continue;
      rest.remove_prefix(tab + 2);
      while (!rest.empty() && (rest.back() == '\n' || rest.back() == ' ')) rest.remove_suffix(1);
      if (!text.empty()) text += "; ";
      text += rest;
    }
    ::pclose(pipe);
    return text;
  }

 private:
  char path_[32] = "/tmp/lodge-dump-XXXXXX";
  UniqueFd file_;
};

bool isHex(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

std::string withDisassembly(std::string_view text) {
  Disassembler disassembler;
  std::string out;
  bool is32 = false;
  for (std::string_view line : split(text, '\n')) {
    out += line;
    bool isGuest = line.starts_with("guest ");
    if (line.starts_with("translation")) is32 = line.find("32, key") != std::string_view::npos;
    std::size_t colon = line.find(": ");
    auto words = split(line.substr(0, colon), ' ');
    std::size_t place = isGuest ? 1 : 3;  // "guest ADDRESS", "  hot ADDRESS KIND"
    bool hasBytes = (isGuest || line.starts_with("  ")) && colon != std::string_view::npos && words.size() > place;
    if (hasBytes && isHex(words[place]) && isHex(line.substr(colon + 2))) {
      std::string code =
          disassembler.disassemble(std::string(words[place]), bytesOf(line.substr(colon + 2)), isGuest && is32);
      if (!code.empty()) out += "  " + code;
    }
    out += '\n';
  }
  out.pop_back();
  return out;
}

}  // namespace lodge::cli
