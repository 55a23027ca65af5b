// SPDX-License-Identifier: Apache-2.0
#include "cli/completion.h"
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {
int run(const Invocation& invocation, const Program&) {
  const std::string& shell = invocation.arguments().front();
  std::string script = shell == "bash" ? bashCompletion() : shell == "zsh" ? zshCompletion() : fishCompletion();
  return print(script) ? exit_status::kSuccess : exit_status::kLodgeError;
}
}  // namespace

VerbSpec completionVerb() {
  return {
      .name = "completion",
      .summary = "write a completion script for a shell",
      .description = "Writes a script that completes lodge's verbs, options and machines' names.",
      .arguments = {{.name = "SHELL", .choices = {"bash", "zsh", "fish"}}},
      .examples = {{"source <(lodge completion bash)", "For this bash; in ~/.bashrc, for every one to come."},
                   {"lodge completion zsh > ~/.zfunc/_lodge", "For zsh, if ~/.zfunc is in $fpath."},
                   {"lodge completion fish > ~/.config/fish/completions/lodge.fish", "For fish."}},
      .run = run,
  };
}

}  // namespace lodge::cli
