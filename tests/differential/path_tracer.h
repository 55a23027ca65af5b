// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "tests/differential/guest.h"

namespace lodge::differential {

/// Follows a snippet with the interpreter, instruction by instruction: jumps astray lead to bytes that nobody chose,
/// and what is executed there may be something that is not compared (a clock, what the host's kernel answers, flags
/// that are undefined).
class PathTracer {
 public:
  static Result<std::unique_ptr<PathTracer>> create(GuestKind kind);
  /// Why an instruction that is executed outside the snippet's own ones is not compared with the host ("" if there is
  /// none). `batch`: all snippets whose code is there.
  std::string_view follow(std::span<const Snippet> batch, const Snippet& snippet, bool definedFlags);
  /// Whether the last follow() saw a decimal adjustment (which leaves flags undefined) that the snippet has not as
  /// such: behind it, or in the middle of an instruction.
  bool adjusts() const { return adjusts_; }
  /// The instructions that the last follow() saw, each with its address; the latest ones.
  const std::string& path() const { return path_; }

 private:
  bool decodeNext(x86::Instruction& instruction, std::uint64_t& linear);
  std::unique_ptr<Guest> guest_;
  std::string path_;
  bool adjusts_ = false;
};

}  // namespace lodge::differential
