// SPDX-License-Identifier: Apache-2.0
#include "machine/trace.h"

#include <algorithm>

#include "base/text.h"

namespace lodge {

const std::vector<std::pair<std::string, std::string>>& traceTable() {
  static const std::vector<std::pair<std::string, std::string>> table = {
      {"io",
       "Every access of a vCPU to an I/O port or a device's memory, and every hypercall, as a line on standard error."},
      {"firmware", "What the pc board's firmware writes to its debug port, line by line."},
      {"steps",
       "The translator counts the instructions that it leaves to the interpreter, by opcode, for 'lodge stats'."},
      {"strict-flags", "The translator keeps flags exact at every fault (slower; for comparing engines)."},
      {"no-groups",
       "The translator checks every memory access by itself (slower; for finding faults in the grouping)."},
      {"no-userfaultfd", "The translator finds writes to code by page protection, as on a host without userfaultfd."},
  };
  return table;
}

bool traces(std::string_view list, std::string_view what) {
  auto parts = split(list, ',');
  return std::find(parts.begin(), parts.end(), what) != parts.end();
}

Status checkTrace(std::string_view list) {
  if (list.empty()) return {};
  std::vector<std::string> names;
  for (const auto& [name, meaning] : traceTable()) names.push_back(name);
  for (std::string_view part : split(list, ',')) {
    if (std::find(names.begin(), names.end(), part) != names.end()) continue;
    return Error(ErrorKind::notFound, "--trace " + inQuotes(part) + " does not exist")
        .withHint("there are " + join(names, ", "));
  }
  return {};
}

}  // namespace lodge
