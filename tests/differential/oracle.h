// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>

#include "base/error.h"
#include "tests/differential/snippet.h"

namespace lodge::differential {

/// Runs snippets natively, in a child process that may make no system call: a filter turns each into a skip, so that a
/// random SYSCALL does no harm. One signal a snippet: its handler takes the outcome out of the signal frame and puts
/// the next snippet's registers into it.
class Oracle {
 public:
  static Result<std::unique_ptr<Oracle>> create();
  ~Oracle();
  /// At most kBatch snippets; `outcomes` has the same length.
  Status run(std::span<const Snippet> snippets, std::span<Outcome> outcomes);

 private:
  struct Shared;
  Oracle(Shared* shared, int child) : shared_(shared), child_(child) {}
  Status restartChild();
  Shared* shared_;
  int child_;
};

}  // namespace lodge::differential
