// SPDX-License-Identifier: Apache-2.0
#include "cli/machine_command.h"

#include <signal.h>

#include "base/text.h"
#include "cli/exit_status.h"

namespace lodge::cli {

namespace {
/// From the request to the last file's removal; the machine itself gives up on a stuck vCPU after ten seconds.
constexpr int kQuitLimit = 15000;
}  // namespace

int forEachMachine(const Invocation& invocation,
                   const std::function<Status(control::RuntimeFolder&, const std::string& name)>& action) {
  auto folder = control::RuntimeFolder::open();
  if (!folder) return fail(folder.error());
  int result = exit_status::kSuccess;
  for (const std::string& name : invocation.arguments()) {
    Status done = action(*folder, name);
    if (done) continue;
    int status = fail(done.error());
    if (result == exit_status::kSuccess) result = status;
  }
  return result;
}

Result<control::FoundMachine> findRunning(control::RuntimeFolder& folder, const std::string& name) {
  auto found = folder.find(name);
  if (!found || found->running) return found;
  return Error(ErrorKind::invalidArgument,
               fmt::format("machine {} is not running: {}", inQuotes(name), control::describe(*found->end)))
      .withHint(fmt::format("'lodge console {0}' shows its last output, 'lodge rm {0}' forgets it", name));
}

Result<control::Json> ask(control::RuntimeFolder& folder, const std::string& name, const control::Request& request,
                          int milliseconds) {
  auto found = findRunning(folder, name);
  if (!found) return std::move(found).error();
  auto client = control::ControlClient::connect(folder, name);
  if (!client) return std::move(client).error();
  return client->call(request, milliseconds);
}

Status waitUntilGone(const control::FoundMachine& machine, int milliseconds) {
  auto process = control::openProcess(machine.process);
  if (!process && process.error().kind() == ErrorKind::notFound) return {};
  if (!process) return std::move(process).error();
  if (control::waitForProcessEnd(process->get(), milliseconds)) return {};
  return Error(ErrorKind::busy,
               fmt::format("machine {} (process {}) does not end", inQuotes(machine.name), machine.process.pid))
      .withHint(fmt::format("'lodge kill {}' ends its process", machine.name));
}

Status killProcess(const control::FoundMachine& machine) {
  auto process = control::openProcess(machine.process);
  if (!process && process.error().kind() == ErrorKind::notFound) return {};
  if (!process) return std::move(process).error();
  if (Status sent = control::signalProcess(process->get(), SIGKILL); !sent) return sent;
  constexpr int kKillLimit = 5000;
  return waitUntilGone(machine, kKillLimit);
}

Status turnOff(control::RuntimeFolder& folder, const std::string& name) {
  auto found = findRunning(folder, name);
  if (!found) return std::move(found).error();
  auto client = control::ControlClient::connect(folder, name);
  bool asked = client && client->call({.kind = control::RequestKind::quit});
  if (!asked || !waitUntilGone(*found, kQuitLimit)) {
    if (Status killed = killProcess(*found); !killed) return killed;
  }
  auto cleaned = folder.machines();
  if (!cleaned) return std::move(cleaned).error();
  return {};
}

}  // namespace lodge::cli
