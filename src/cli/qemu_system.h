// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "cli/spelling.h"

namespace lodge::cli {

/// What `lodge run` is to be given for a command line of qemu-system-x86_64, and what has to be said about it.
struct QemuCommand {
  std::vector<std::string> words;
  std::vector<std::string> notes;
  std::string kvmAskedBy;  ///< the option that asks for KVM; empty: none
  Spellings spellings;
};

/// Errors: unsupported, invalidArgument; they name the option at fault.
Result<QemuCommand> translateQemuCommand(const std::vector<std::string>& arguments);

}  // namespace lodge::cli
