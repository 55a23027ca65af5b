// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/machine_command.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {
int send(const Invocation& invocation, control::RequestKind kind) {
  auto folder = control::RuntimeFolder::open();
  if (!folder) return fail(folder.error());
  std::vector<std::string> words(invocation.arguments().begin() + 1, invocation.arguments().end());
  std::string text = join(words, " ");
  if (invocation.has("enter")) text += "\n";
  auto done = ask(*folder, invocation.arguments()[0], {.kind = kind, .text = text});
  return done ? 0 : fail(done.error());
}
}  // namespace

VerbSpec sendkeyVerb() {
  return {
      .name = "sendkey",
      .summary = "press keys of a machine's keyboard",
      .description =
          "Presses keys of the machine's keyboard, one after the other. Keys that are joined with '-' go down "
          "together. There are letters and digits, ret, esc, tab, spc, backspace, delete, insert, home, end, "
          "pgup, pgdn, up, down, left, right, f1 to f12, ctrl, alt, shift, altgr, meta_l and more.",
      .arguments = {machineArgument(false), {.name = "KEY", .repeats = true}},
      .examples = {{"lodge sendkey web ctrl-alt-delete", "Restarts many a guest."},
                   {"lodge sendkey web down down ret", "Chooses the third entry of a menu."}},
      .run = [](const Invocation& i, const Program&) { return send(i, control::RequestKind::sendKeys); },
  };
}

VerbSpec typeVerb() {
  return {
      .name = "type",
      .summary = "type text on a machine's keyboard",
      .description =
          "Types the words, with a space between them, on the machine's keyboard: ASCII, as on a US keyboard.",
      .arguments = {machineArgument(false), {.name = "TEXT", .repeats = true}},
      .options = {{.name = "enter", .help = "Press the return key after it."}},
      .examples = {{"lodge type --enter web root", "Logs in."}},
      .run = [](const Invocation& i, const Program&) { return send(i, control::RequestKind::typeText); },
  };
}

}  // namespace lodge::cli
