// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include "cli/exit_status.h"
#include "cli/machine_command.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {
int screenshot(const Invocation& invocation, const Program&) {
  auto folder = control::RuntimeFolder::open();
  if (!folder) return fail(folder.error());
  std::error_code ignored;
  std::string path = std::filesystem::absolute(invocation.arguments()[1], ignored).string();
  auto done = ask(*folder, invocation.arguments()[0], {.kind = control::RequestKind::screenshot, .text = path});
  return done ? 0 : fail(done.error());
}
}  // namespace

VerbSpec screenshotVerb() {
  return {
      .name = "screenshot",
      .summary = "save a machine's screen as a picture",
      .description =
          "Writes what the machine's display shows to a PNG file. The machine needs a display: the pc board.",
      .arguments = {machineArgument(false), {.name = "FILE", .complete = Complete::file}},
      .examples = {{"lodge screenshot web screen.png", "What the machine 'web' shows now."}},
      .run = screenshot,
  };
}

}  // namespace lodge::cli
