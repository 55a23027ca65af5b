// SPDX-License-Identifier: Apache-2.0
#include "cli/machine_command.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {
Status reset(control::RuntimeFolder& folder, const std::string& name) {
  auto done = ask(folder, name, {.kind = control::RequestKind::reset});
  if (!done) return std::move(done).error();
  return {};
}
}  // namespace

VerbSpec resetVerb() {
  return {
      .name = "reset",
      .summary = "reset a machine",
      .description =
          "Does what a reset button does: the guest starts again from its kernel, with no chance to shut down.",
      .arguments = {machineArgument(true)},
      .examples = {{"lodge reset web", "When the guest hangs."}},
      .run = [](const Invocation& invocation, const Program&) { return forEachMachine(invocation, reset); },
  };
}

}  // namespace lodge::cli
