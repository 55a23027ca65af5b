// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include "cli/engine_options.h"
#include "cli/exit_status.h"
#include "cli/machine_process.h"
#include "cli/run_options.h"
#include "cli/verbs.h"

namespace lodge::cli {

namespace {

int run(const Invocation& invocation, const Program& program) {
  std::error_code ignored;
  auto config = savedConfig(std::filesystem::absolute(invocation.arguments()[0], ignored).lexically_normal().string());
  if (!config) return fail(config.error());
  RunOptions options;
  options.machine = std::move(*config);
  options.machine.name = invocation.value("name", options.machine.name);
  options.machine.engine = invocation.value("engine", options.machine.engine);
  options.machine.irqchip = readIrqchip(invocation);
  options.detach = invocation.has("detach");
  options.stats = invocation.has("stats");
  options.sharePages = invocation.has("share-pages");
  if (invocation.has("vnc")) {
    auto address = vnc::parseAddress(invocation.value("vnc"));
    if (!address) return fail(address.error());
    options.vnc = std::move(*address);
  }
  if (options.detach) return runDetached(options, program);
  return runMachine(options, program, [](control::MachineFolder&) { return true; });
}

}  // namespace

VerbSpec restoreVerb() {
  return {
      .name = "restore",
      .summary = "let a saved machine go on",
      .description =
          "Starts the machine that 'lodge save' wrote to FILE where it was, with the disks and networks that it had. "
          "It runs at once; its memory is read from the file as it is touched, so that the file must stay while "
          "the machine runs. A file that was cut short or changed, a newer one than this Lodge knows, and a disk that "
          "has changed since are refused.\n\n"
          "The guest's clocks go on from where they stood, except for those that tell the time of day: the real-time "
          "clock and Linux's ptp_kvm show the host's time, and 'hwclock -s', chrony or NTP in the guest set its own. "
          "Connections through the user network are reset by the next packet that the guest sends.",
      .arguments = {{.name = "FILE", .complete = Complete::file}},
      .options = {{.name = "engine",
                   .value = "ENGINE",
                   .help = "What runs the machine from now on; otherwise what it was started with.",
                   .choices = {"auto", "kvm", "translate", "interpret"}},
                  irqchipOption(),
                  {.name = "name", .value = "NAME", .help = "Its name from now on."},
                  {.name = "vnc",
                   .value = "[ADDRESS]:DISPLAY",
                   .help = "Show the pc board's screen to VNC clients, as 'lodge run' does; the state does not say "
                           "where it was shown."},
                  {.name = "share-pages",
                   .help = "Memory goes back to the host when the machine is idle, as with 'lodge run'."},
                  {.name = "detach", .letter = 'd', .help = "Run in the background, and print the machine's name."},
                  {.name = "stats", .help = "Write the machine's counters to standard error at its end."}},
      .examples = {{"lodge restore -d web.state", "In the background."},
                   {"lodge restore web.state --engine interpret", "On another engine than before."}},
      .run = run,
  };
}

}  // namespace lodge::cli
