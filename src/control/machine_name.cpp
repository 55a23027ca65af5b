// SPDX-License-Identifier: Apache-2.0
#include "control/machine_name.h"

#include <algorithm>

#include "base/text.h"

namespace lodge::control {

namespace {
// Not <cctype>: these must not depend on the locale.
bool isLetterOrDigit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}
bool isNameCharacter(char c) {
  return isLetterOrDigit(c) || c == '-' || c == '_' || c == '.';
}
}  // namespace

Status checkMachineName(std::string_view name) {
  std::string what = "machine name " + inQuotes(name);
  if (name.empty()) return Error(ErrorKind::invalidArgument, "a machine name cannot be empty");
  if (name.size() > kMaxMachineNameLength) {
    return Error(ErrorKind::invalidArgument, fmt::format("{}: {} characters are too many", what, name.size()))
        .withHint(fmt::format("use at most {}", kMaxMachineNameLength));
  }
  if (!isLetterOrDigit(name.front()) || !std::all_of(name.begin(), name.end(), isNameCharacter)) {
    return Error(ErrorKind::invalidArgument, what + " is not valid")
        .withHint("use letters, digits, '-', '_' and '.', and start with a letter or a digit");
  }
  return {};
}

}  // namespace lodge::control
