// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "base/error.h"
#include "cli/spec.h"
#include "machine/config.h"
#include "vnc/server.h"

namespace lodge::cli {

struct RunOptions {
  MachineConfig machine;
  bool detach = false;
  bool sharePages = false;          ///< with the user's other machines that do, when it is idle
  bool stats = false;               ///< print the machine's counters at its end
  std::optional<vnc::Address> vnc;  ///< where its screen is shown
};

/// The options of `lodge run` as a configuration. Errors: invalidArgument, unsupported.
Result<RunOptions> runOptionsFrom(const Invocation& invocation);

/// The table of the options that runOptionsFrom() reads.
std::vector<OptionSpec> runOptionTable();

}  // namespace lodge::cli
