// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iterator>

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/machine_command.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {
using control::RequestKind;

/// A text of somebody else's, which must not command the terminal.
std::string harmless(std::string_view text) {
  std::string out;
  for (char c : text) {
    bool plain = static_cast<unsigned char>(c) >= ' ' && c != 0x7f;
    out.push_back(plain || c == '\n' || c == '\t' ? c : '?');
  }
  return out;
}

Result<std::string> standardInput() {
  std::string text;
  char buffer[16384];
  while (std::size_t n = std::fread(buffer, 1, sizeof buffer, stdin)) {
    text.append(buffer, n);
    if (text.size() > control::kMaxLineLength) break;
  }
  return text;
}

Status set(control::RuntimeFolder& folder, const std::string& name, const std::string& text) {
  control::Request request{.kind = RequestKind::setClipboard, .text = text};
  if (std::size_t length = control::formatRequest(request).size(); length > control::kMaxLineLength) {
    return Error(ErrorKind::invalidArgument, fmt::format("the text is too long: {} bytes on their way", length))
        .withHint(fmt::format("{} are the most; a VNC client may set more", control::kMaxLineLength));
  }
  auto done = ask(folder, name, request);
  return done ? Status() : Status(std::move(done).error());
}

int run(const Invocation& invocation, const Program&) {
  auto folder = control::RuntimeFolder::open();
  if (!folder) return fail(folder.error());
  const auto& words = invocation.arguments();
  if (words.size() > 1) {
    std::string text = join({words.begin() + 1, words.end()}, " ");
    if (text == "-") {
      auto input = standardInput();
      if (!input) return fail(input.error());
      text = std::move(*input);
    }
    Status done = set(*folder, words[0], text);
    return done ? 0 : fail(done.error());
  }
  auto answer = ask(*folder, words[0], {.kind = RequestKind::clipboard});
  if (!answer) return fail(answer.error());
  std::string text = control::stringField(*answer, "text").value_or("");
  if (invocation.has("type")) {
    auto done = ask(*folder, words[0], {.kind = RequestKind::typeText, .text = text});
    return done ? 0 : fail(done.error());
  }
  fmt::print("{}", ::isatty(STDOUT_FILENO) == 1 ? harmless(text) : text);
  return 0;
}
}  // namespace

VerbSpec clipboardVerb() {
  return {
      .name = "clipboard",
      .summary = "show or set the text on the clipboard of a machine's screen",
      .description =
          "Prints the text that a VNC client of the machine has copied last, or puts the words on the clipboard, with "
          "a "
          "space between them, from where VNC clients paste them; '-' for what comes on standard input. The guest "
          "knows nothing of this clipboard: --type pastes the text by typing it.",
      .arguments = {machineArgument(false), {.name = "TEXT", .required = false, .repeats = true}},
      .options = {{.name = "type", .help = "Type the text on the machine's keyboard, as 'lodge type' does."}},
      .examples = {{"lodge clipboard web", "What was copied in a VNC client."},
                   {"lodge clipboard web - <key.txt", "Hands a file's text to the VNC clients."},
                   {"lodge clipboard --type web", "Pastes what a VNC client has copied."}},
      .run = run,
  };
}

}  // namespace lodge::cli
