// SPDX-License-Identifier: Apache-2.0
#include "machine/trace.h"

#include <algorithm>
#include <iterator>

#include "base/text.h"
#include "base/trace.h"

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
      {"no-executors",
       "All user code is translated with a soft TLB, none runs in processes with the guest's own addresses."},
      {"executors-auto", "Programs that compute get an executor even where their code must be translated there."},
      {"executors", "All user code runs in executors from the start, translated (for tests)."},
      {"executors-native", "With executors: code runs as it is where it can (for tests)."},
      {"no-returns",
       "The translator finds the target of every return by tables (for finding faults in its return cache)."},
      {"lockstep",
       "The interpreter does again whatever translated code did, and must come to the same (far slower; one CPU, no "
       "disks "
       "or networks). Differences go to standard error; 'lodge stats' counts them."},
      {"perf-map",
       "The translator writes /tmp/perf-PID.map, from which 'perf report' names translated code by its guest address. "
       "Its "
       "code memory is then writable and executable at once."},
      {"host-without=A+B", "Lodge does without these of the host, to try what it does on hosts that lack them: " +
                               join({std::begin(kHostFeatureNames), std::end(kHostFeatureNames)}, ", ") + "."},
  };
  return table;
}

Status checkTrace(std::string_view list) {
  if (list.empty()) return {};
  std::vector<std::string> names;
  for (const auto& [name, meaning] : traceTable()) names.push_back(name);
  for (std::string_view part : split(list, ',')) {
    auto isIt = [part](const std::string& name) {
      std::size_t equals = name.find('=');
      return equals == std::string::npos ? part == name : part.substr(0, equals + 1) == name.substr(0, equals + 1);
    };
    if (std::find_if(names.begin(), names.end(), isIt) != names.end()) continue;
    return Error(ErrorKind::notFound, "--trace " + inQuotes(part) + " does not exist")
        .withHint("there are " + join(names, ", "));
  }
  return checkHostFeatures(list);
}

}  // namespace lodge
