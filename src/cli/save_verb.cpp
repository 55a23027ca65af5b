// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/image_common.h"
#include "cli/machine_command.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

/// Between two signs of life; a host whose disk is busy takes its time to make a file durable.
constexpr int kSilenceLimit = 300'000;
/// For its process to close disks and go.
constexpr int kEndLimit = 15'000;

int run(const Invocation& invocation, const Program& program) {
  const std::string &name = invocation.arguments()[0], &path = invocation.arguments()[1];
  if (invocation.has("stop") && invocation.has("keep-running")) {
    return fail(Error(ErrorKind::invalidArgument, "--stop and --keep-running exclude each other"));
  }
  auto folder = control::RuntimeFolder::open();
  if (!folder) return fail(folder.error());
  auto machine = findRunning(*folder, name);
  if (!machine) return fail(machine.error());
  auto client = control::ControlClient::connect(*folder, name);
  if (!client) return fail(client.error());
  std::error_code ignored;
  control::Request request{.kind = control::RequestKind::save,
                           .text = std::filesystem::absolute(path, ignored).lexically_normal().string()};
  request.compress = invocation.has("compress");
  request.keepRunning = invocation.has("keep-running");
  auto saved = [&] {
    ProgressBar bar(invocation, program);
    auto draw = bar.callback();
    return client->call(request, kSilenceLimit, [&](std::uint64_t done, std::uint64_t total) { draw(done, total); });
  }();
  if (!saved) return fail(saved.error());
  if (request.keepRunning) return exit_status::kSuccess;
  if (Status gone = waitUntilGone(*machine, kEndLimit); !gone) return fail(gone.error());
  return exit_status::kSuccess;
}

}  // namespace

VerbSpec saveVerb() {
  return {
      .name = "save",
      .summary = "write a running machine to a file",
      .description =
          "Writes memory, processors and devices of a running machine to FILE, from which 'lodge restore' lets it go "
          "on, "
          "and ends it. The file appears when it is whole and on the disk; until then a file of that name stays as it "
          "is. Memory that holds zeroes takes no room. If anything fails the machine goes on.\n\n"
          "Disks are not in the file: they must be as they were when the machine is restored, which is checked. "
          "A machine with a disk whose changes are dropped at its end ('snapshot') cannot be saved, nor can, for now, "
          "one with a virtio GPU or a USB tablet.",
      .arguments = {machineArgument(false), {.name = "FILE", .complete = Complete::file}},
      .options = {{.name = "compress", .help = "Pack memory (Zstandard)."},
                  {.name = "stop", .help = "The machine ends when it is saved (the default)."},
                  {.name = "keep-running",
                   .help = "The machine goes on. The file is of use while its disks have not changed since."},
                  {.name = "quiet", .letter = 'q', .help = "No progress bar."}},
      .examples = {{"lodge save web web.state", "Then 'lodge restore web.state', also after the host was restarted."}},
      .run = run,
  };
}

}  // namespace lodge::cli
