// SPDX-License-Identifier: Apache-2.0
#include "cli/machine_command.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {
Status remove(control::RuntimeFolder& folder, const std::string& name, bool force) {
  auto found = folder.find(name);
  if (!found) return std::move(found).error();
  if (found->running && force) {
    if (Status off = turnOff(folder, name); !off) return off;
  }
  return folder.remove(name);
}

int run(const Invocation& invocation, const Program&) {
  bool force = invocation.has("force");
  return forEachMachine(invocation, [force](control::RuntimeFolder& folder, const std::string& name) {
    return remove(folder, name, force);
  });
}
}  // namespace

VerbSpec rmVerb() {
  return {
      .name = "rm",
      .summary = "forget a machine that has ended",
      .description =
          "Removes what is kept of a machine that has ended: its configuration, how it ended and its last console "
          "output. "
          "Disk images are never touched.",
      .arguments = {machineArgument(true)},
      .options = {{.name = "force", .letter = 'f', .help = "Turn it off first if it runs, as 'lodge kill' does."}},
      .examples = {{"lodge rm web", "Forget it."},
                   {"lodge rm --force $(lodge ps --quiet)", "Turn off and forget all machines."}},
      .run = run,
  };
}

}  // namespace lodge::cli
