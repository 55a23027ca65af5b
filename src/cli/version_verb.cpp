// SPDX-License-Identifier: Apache-2.0
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/verbs.h"

namespace lodge::cli {

VerbSpec versionVerb() {
  return {
      .name = "version",
      .summary = "print the version",
      .description = "Prints the program's name and version.",
      .run =
          [](const Invocation&, const Program&) {
            return print("lodge " + programVersion() + "\n") ? exit_status::kSuccess : exit_status::kLodgeError;
          },
  };
}

}  // namespace lodge::cli
