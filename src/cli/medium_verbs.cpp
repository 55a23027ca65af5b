// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include "cli/exit_status.h"
#include "cli/machine_command.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {
int change(const Invocation& invocation, const std::string& drive, const std::string& path) {
  auto folder = control::RuntimeFolder::open();
  if (!folder) return fail(folder.error());
  control::Request request{.kind = control::RequestKind::changeMedium, .text = path};
  request.drive = drive;
  request.readOnly = invocation.has("readonly");
  request.force = invocation.has("force");
  auto done = ask(*folder, invocation.arguments()[0], request);
  return done ? 0 : fail(done.error());
}

int eject(const Invocation& invocation, const Program&) {
  const auto& words = invocation.arguments();
  return change(invocation, words.size() > 1 ? words[1] : std::string(), {});
}

int insert(const Invocation& invocation, const Program&) {
  const auto& words = invocation.arguments();
  if (words.back().empty()) {
    return fail(Error(ErrorKind::invalidArgument, "the medium's file has no name").withHint("name an image"));
  }
  std::error_code ignored;
  return change(invocation, words[1], std::filesystem::absolute(words[2], ignored).string());
}

OptionSpec forceOption() {
  return {.name = "force", .help = "Also if the guest has locked the drive, as it does while it uses the medium."};
}
}  // namespace

VerbSpec ejectVerb() {
  return {
      .name = "eject",
      .summary = "take a medium out of a machine's drive",
      .description =
          "Takes the CD-ROM or floppy disk out of a drive of a running machine. Drives are called cd0, cd1..., "
          "floppy0 and floppy1, in the order in which the machine got them; without a name it is the first. If the "
          "guest has locked the drive it is told that somebody wants to have the medium, and nothing else happens.",
      .arguments = {machineArgument(false), {.name = "DRIVE", .required = false}},
      .options = {forceOption()},
      .examples = {{"lodge eject web", "Opens the tray of the machine 'web'."}},
      .run = eject,
  };
}

VerbSpec insertVerb() {
  return {
      .name = "insert",
      .summary = "put a medium into a machine's drive",
      .description =
          "Puts another CD-ROM or floppy disk, a raw image, into a drive of a running machine; what is in it is taken "
          "out. Drives are called as in 'lodge eject'.",
      .arguments = {machineArgument(false), {.name = "DRIVE"}, {.name = "FILE", .complete = Complete::file}},
      .options = {forceOption(), {.name = "readonly", .help = "The guest may not write to it (floppy disks)."}},
      .examples = {{"lodge insert web cd0 second.iso", "The second disc of an installation."}},
      .run = insert,
  };
}

}  // namespace lodge::cli
