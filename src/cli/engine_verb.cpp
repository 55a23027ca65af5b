// SPDX-License-Identifier: Apache-2.0
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/machine_command.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {
/// A busy host takes its time to make an engine with many CPUs.
constexpr int kSwitchLimit = 60000;

int run(const Invocation& invocation, const Program&) {
  const std::string& name = invocation.arguments()[0];
  auto folder = control::RuntimeFolder::open();
  if (!folder) return fail(folder.error());
  control::Request request{.kind = control::RequestKind::switchEngine, .text = invocation.arguments()[1]};
  auto done = ask(*folder, name, request, kSwitchLimit);
  if (!done) return fail(done.error());
  std::string engine = control::stringField(*done, "engine").value_or(invocation.arguments()[1]);
  return print(name + " runs on " + engine + "\n") ? exit_status::kSuccess : exit_status::kLodgeError;
}
}  // namespace

VerbSpec engineVerb() {
  return {
      .name = "engine",
      .summary = "move a running machine to another engine",
      .description =
          "The machine goes on where it is: its memory, devices, open connections and clocks stay, and it stands still "
          "for some milliseconds only. If the other engine is not usable here, or lacks something that the machine "
          "has, "
          "that is said and nothing happens. 'auto' takes the fastest engine that this host has.",
      .arguments = {machineArgument(false), {.name = "ENGINE", .choices = {"auto", "kvm", "translate", "interpret"}}},
      .examples = {{"lodge engine web interpret", "Every instruction one by one, for a bug hunt."}},
      .run = run,
  };
}

}  // namespace lodge::cli
