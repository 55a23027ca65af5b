// SPDX-License-Identifier: Apache-2.0
// How qemu-system-x86_64 writes an option's value.
#pragma once

#include <fmt/format.h>

#include <map>
#include <string>

#include "base/error.h"
#include "base/text.h"

namespace lodge::cli {

using QemuSettings = std::map<std::string, std::string>;

/// "file=a.img,if=ide": names and values; a word without '=' has the value "on", and the first may stand for `first`.
inline QemuSettings qemuSettings(const std::string& text, const std::string& first = {}) {
  QemuSettings all;
  bool atFirst = true;
  for (const std::string& field : splitFields(text, ',')) {
    std::size_t equals = field.find('=');
    if (equals == std::string::npos && atFirst && !first.empty()) {
      all[first] = field;
    } else if (equals == std::string::npos) {
      all[field] = "on";
    } else {
      all[field.substr(0, equals)] = field.substr(equals + 1);
    }
    atFirst = false;
  }
  return all;
}

/// As a field of --disk and the like.
inline std::string doubledCommas(const std::string& text) {
  std::string out;
  for (char c : text) out += c == ',' ? ",," : std::string(1, c);
  return out;
}

inline Error qemuUnsupported(const std::string& option, const std::string& value, const std::string& accepted) {
  return Error(ErrorKind::unsupported, fmt::format("{} {} is not known here", option, inQuotes(value)))
      .withHint(accepted);
}

}  // namespace lodge::cli
