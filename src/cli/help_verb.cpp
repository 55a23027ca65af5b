// SPDX-License-Identifier: Apache-2.0
#include "cli/exit_status.h"
#include "cli/help.h"
#include "cli/layout.h"
#include "cli/man_page.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {
int run(const Invocation& invocation, const Program&) {
  std::string text;
  if (invocation.has("man")) {
    text = manPage();
  } else if (invocation.arguments().empty()) {
    text = programHelp(outputWidth());
  } else {
    const VerbSpec* verb = findVerb(invocation.arguments().front());
    for (const VerbSpec& inner : verb->verbs) {
      if (invocation.arguments().size() > 1 && inner.name == verb->name + " " + invocation.arguments()[1])
        verb = &inner;
    }
    text = verbHelp(*verb, outputWidth());
  }
  return print(text) ? exit_status::kSuccess : exit_status::kLodgeError;
}

std::vector<std::string> verbNames() {
  // Not allVerbs(), which this is part of.
  return {"run",       "ps",     "console", "stop",   "kill",       "reset", "screenshot", "sendkey", "type",
          "clipboard", "eject",  "insert",  "stats",  "rm",         "image", "network",    "proxy",   "save",
          "restore",   "engine", "qemu",    "doctor", "completion", "help",  "version"};
}
}  // namespace

VerbSpec helpVerb() {
  return {
      .name = "help",
      .summary = "explain a verb, or list them",
      .description = "Explains a verb, as 'lodge VERB --help' does, or lists the verbs.",
      .arguments = {{.name = "VERB", .required = false, .choices = verbNames(), .complete = Complete::verb},
                    {.name = "VERB-OF-IMAGE", .required = false}},
      .options = {{.name = "man", .help = "Write the manual page lodge(1) instead, in roff."}},
      .examples = {{"lodge help run", "Everything about starting machines."},
                   {"lodge help --man | man -l -", "The manual page of a program that is not installed."}},
      .run = run,
  };
}

}  // namespace lodge::cli
