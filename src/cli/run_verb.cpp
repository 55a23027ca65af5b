// SPDX-License-Identifier: Apache-2.0
#include "cli/exit_status.h"
#include "cli/machine_process.h"
#include "cli/monitor_keys.h"
#include "cli/run_options.h"
#include "cli/verbs.h"
#include "machine/trace.h"

namespace lodge::cli {

namespace {

int run(const Invocation& invocation, const Program& program) {
  auto options = runOptionsFrom(invocation);
  if (!options) return fail(options.error());
  if (options->detach) return runDetached(*options, program);
  return runMachine(*options, program, [](control::MachineFolder&) { return true; });
}

Section terminalSection() {
  Section section{
      "The terminal",
      "The machine's first serial port is connected to standard input and output. A terminal is put into raw mode, so "
      "that every key goes to the guest but Ctrl-], which opens the monitor menu: Ctrl-] and then"};
  for (const auto& [key, what] : monitorMenu(false)) section.items.push_back({key, what});
  return section;
}

Section pipesSection() {
  return {"Pipes and signals",
          "Without a terminal, standard input and output are plain pipes or files. The end of the input does not end "
          "the machine. "
          "While nobody takes the output the guest stands still and loses none.\n\nSIGTERM, SIGINT and SIGHUP press "
          "the power "
          "button; the machine is turned off 30 seconds later, or at the second signal."};
}

Section traceSection() {
  Section section{"Tracing", "--trace takes these, separated by commas:"};
  for (const auto& [name, meaning] : traceTable()) section.items.push_back({name, meaning});
  return section;
}

Section statusSection() {
  Section section{"Exit status", ""};
  for (const auto& [status, meaning] : exitStatusTable()) section.items.push_back({status, meaning});
  return section;
}

}  // namespace

VerbSpec runVerb() {
  return {
      .name = "run",
      .summary = "start a machine",
      .description =
          "Starts a machine from a kernel, and connects it to this terminal. The machine lives in the process that "
          "this "
          "starts; 'lodge ps' lists it.",
      .options = runOptionTable(),
      .sections = {terminalSection(), pipesSection(), traceSection(), statusSection()},
      .examples = {{"lodge run --kernel vmlinuz --initrd initrd.img --append console=ttyS0",
                    "A kernel with an initial RAM file system."},
                   {"lodge run -k vmlinuz -a 'console=ttyS0 root=/dev/vda rw' --disk debian.raw -c 2 -m 2G "
                    "--net user,forward=tcp:127.0.0.1:2222:22",
                    "A machine with a disk, two CPUs, and its SSH server at the host's port 2222."},
                   {"lodge run -d --name web -k vmlinuz -a 'console=ttyS0 root=/dev/vda' --disk web.raw,snapshot",
                    "In the background; what it writes to its disk is dropped at the end."}},
      .run = run,
  };
}

}  // namespace lodge::cli
