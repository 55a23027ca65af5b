// SPDX-License-Identifier: Apache-2.0
#include "cli/machine_command.h"
#include "cli/verbs.h"

namespace lodge::cli {

VerbSpec killVerb() {
  return {
      .name = "kill",
      .summary = "turn a machine off at once",
      .description =
          "Turns the machine off as if its plug were pulled. What the guest has flushed to its disks is there; what it "
          "has not is lost. A machine whose process does not answer is ended with SIGKILL.",
      .arguments = {machineArgument(true)},
      .examples = {{"lodge kill web", "When 'lodge stop web' would take too long."}},
      .run = [](const Invocation& invocation, const Program&) { return forEachMachine(invocation, turnOff); },
  };
}

}  // namespace lodge::cli
