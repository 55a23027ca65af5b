// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include "base/text.h"
#include "cli/console_client.h"
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/monitor_keys.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

void sayHow(const std::string& name, const control::EndRecord& end) {
  std::string line = fmt::format("\nlodge: {}: {}\n", name, control::describe(end));
  [[maybe_unused]] ssize_t n = ::write(STDERR_FILENO, line.data(), line.size());
}

int run(const Invocation& invocation, const Program&) {
  auto folder = control::RuntimeFolder::open();
  if (!folder) return fail(folder.error());
  const std::string& name = invocation.arguments().front();
  auto found = folder->find(name);
  if (!found) return fail(found.error());
  if (found->end) {
    if (!print(folder->consoleOf(name))) return exit_status::kLodgeError;
    sayHow(name, *found->end);
    return exit_status::kSuccess;
  }
  Result<std::optional<control::EndRecord>> end = ConsoleClient(*folder, name).run();
  if (!end) return fail(end.error());
  if (*end) sayHow(name, **end);
  return exit_status::kSuccess;
}

Section menuSection() {
  Section section{"Keys", "On a terminal, Ctrl-] opens the monitor menu: Ctrl-] and then"};
  for (const auto& [key, what] : monitorMenu(true)) section.items.push_back({key, what});
  return section;
}

}  // namespace

VerbSpec consoleVerb() {
  return {
      .name = "console",
      .summary = "attach to a machine's console",
      .description =
          "Shows the last output of a machine's console and attaches standard input and output to it. Several may be "
          "attached at a time. Of a machine that has ended, shows the last output and how it ended.",
      .arguments = {machineArgument(false)},
      .sections = {menuSection()},
      .examples = {{"lodge console web", "Until Ctrl-] d, or the machine's end."},
                   {"lodge console web < /dev/null > web.log &", "Write a log."}},
      .run = run,
  };
}

}  // namespace lodge::cli
