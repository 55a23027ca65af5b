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
  /// `code16`: snippets are 16-bit code, for which the child has a descriptor table. ErrorKind::unsupported: the host
  /// cannot have what there is to compare with.
  static Result<std::unique_ptr<Oracle>> create(bool code16);
  ~Oracle();
  /// At most kBatch snippets; `outcomes` has the same length.
  /// Whether the process that runs snippets has something of its own at an address.
  bool usesItself(std::uint64_t address) const;
  /// The data pages as the last snippet that ran left them.
  std::span<const std::byte> data() const;
  Status run(std::span<const Snippet> snippets, std::span<Outcome> outcomes);

 private:
  struct Shared;
  Oracle(Shared* shared, bool code16) : shared_(shared), code16_(code16) {}
  Status startChild();
  Status waitForChild();
  Shared* shared_;
  int child_ = -1;
  bool code16_;
};

}  // namespace lodge::differential
