// SPDX-License-Identifier: Apache-2.0
// The command line of the differential test.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "tests/differential/guest.h"

namespace lodge::differential {

struct Options {
  std::string engine;  ///< interpret or translate
  std::uint64_t count = 10000, seed = 1, seeds = 1, keepGoing = 10;
  std::uint64_t rounds = 0;  ///< 0: as many as suit the engine
  std::string trace;
  bool singleStep = false, list = false, laxFlags = false, kicks = false, kernel = false, code32 = false,
       code16 = false, verbose = false, protectedMode = false, mmio = false, help = false;

  bool translates() const { return engine == "translate"; }
  /// Whether snippets are compared with the interpreter instead of the host.
  bool guests() const { return kernel || mmio; }
  GuestKind kind() const { return {kernel, protectedMode || (kernel && code32), mmio, code16}; }
};

/// What --help prints.
std::string usage();

/// Errors: invalidArgument for what is not known, and for options of which one would go unheeded beside another.
Result<Options> parseOptions(int argc, const char* const* argv);

}  // namespace lodge::differential
