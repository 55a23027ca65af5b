// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"
#include "cli/exit_status.h"
#include "cli/layout.h"
#include "cli/machine_command.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

constexpr std::uint32_t kDefaultSeconds = 30;

Status stop(control::RuntimeFolder& folder, const std::string& name, std::uint32_t seconds) {
  auto found = findRunning(folder, name);
  if (!found) return std::move(found).error();
  auto client = control::ControlClient::connect(folder, name);
  if (!client) return std::move(client).error();
  auto stopped = client->call({.kind = control::RequestKind::stop, .graceSeconds = seconds});
  if (!stopped) return std::move(stopped).error();
  // The machine keeps the time; this waits some longer for its process.
  int limit = static_cast<int>(seconds + 15) * 1000;
  auto end = client->call({.kind = control::RequestKind::wait}, limit);
  if (!end && end.error().kind() == ErrorKind::busy) return std::move(end).error();
  if (Status gone = waitUntilGone(*found, limit); !gone) return gone;
  auto record = end ? control::EndRecord::fromJson(*end) : std::nullopt;
  if (record && record->end == MachineEnd::killed) {
    print(fmt::format("{}: did not power off within {} s and was turned off\n", name, seconds));
  }
  return {};
}

int run(const Invocation& invocation, const Program&) {
  auto seconds = parseNumber(invocation.value("timeout", std::to_string(kDefaultSeconds)), control::kMaxGraceSeconds);
  if (!seconds) {
    return fail(
        Error(ErrorKind::invalidArgument, "--timeout " + inQuotes(invocation.value("timeout")) + " is not a time")
            .withHint(fmt::format("write seconds, 0 to {}", control::kMaxGraceSeconds)));
  }
  return forEachMachine(invocation, [&](control::RuntimeFolder& folder, const std::string& name) {
    return stop(folder, name, static_cast<std::uint32_t>(*seconds));
  });
}

}  // namespace

VerbSpec stopVerb() {
  return {
      .name = "stop",
      .summary = "press a machine's power button, and turn it off if that does not help",
      .description =
          "Presses the power button and waits for the guest to shut down. A guest that does not within the grace time "
          "is "
          "turned off.",
      .arguments = {machineArgument(true)},
      .options = {{.name = "timeout", .letter = 't', .value = "SECONDS", .help = "The grace time; 30 if not given."}},
      .examples = {{"lodge stop web", "A clean shutdown."},
                   {"lodge stop --timeout 120 database", "With two minutes for it."}},
      .run = run,
  };
}

}  // namespace lodge::cli
