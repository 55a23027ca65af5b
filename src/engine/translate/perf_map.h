// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "base/error.h"
#include "base/file.h"

namespace lodge::translate {

struct Translation;

/// /tmp/perf-PID.map, from which perf(1) names code that no file holds (Linux
/// tools/perf/Documentation/jit-interface.txt): a line "START SIZE NAME" for each translation's hot and cold code. The
/// name tells guest address, privilege and mode. After a reset of the code cache older lines name addresses that now
/// hold other code. Under the translator's lock.
class PerfMap {
 public:
  /// Errors: those of open(2).
  static Result<std::unique_ptr<PerfMap>> create();
  void note(const Translation& translation);

 private:
  PerfMap() = default;
  UniqueFd file_;
};

}  // namespace lodge::translate
