// SPDX-License-Identifier: Apache-2.0
#include "cli/exit_status.h"

#include <unistd.h>

#include "base/log.h"
#include "cli/spelling.h"

namespace lodge::cli {

int exitStatusOf(const Error& error) {
  switch (error.kind()) {
    case ErrorKind::io:
    case ErrorKind::outOfMemory:
    case ErrorKind::interrupted:
    case ErrorKind::internal:
      return exit_status::kLodgeError;
    default:
      return exit_status::kUsage;
  }
}

int exitStatusOf(const control::EndRecord& end) {
  switch (end.end) {
    case MachineEnd::poweredOff:
    case MachineEnd::resetNoReboot:
    case MachineEnd::saved:
      return exit_status::kSuccess;
    case MachineEnd::debugExit:
      return end.status & 0xff;
    case MachineEnd::crashed:
      return exit_status::kGuestCrashed;
    case MachineEnd::killed:
      return exit_status::kKilled;
  }
  return exit_status::kLodgeError;
}

std::vector<std::pair<std::string, std::string>> exitStatusTable() {
  auto number = [](int status) { return std::to_string(status); };
  return {
      {number(exit_status::kSuccess),
       "Success; for run: the guest powered off (or reset itself, with --no-reboot), or "
       "the machine was saved."},
      {number(exit_status::kUsage),
       "Bad usage or bad input: an unknown option, a missing kernel, a disk in use, a taken name. "
       "One line on standard error names the thing and the fix."},
      {number(exit_status::kLodgeError), "Lodge or the host failed: out of memory, an I/O error."},
      {number(exit_status::kGuestCrashed),
       "The guest crashed: a triple fault with --no-reboot, or its kernel told the panic "
       "device."},
      {number(exit_status::kKilled),
       "The machine was turned off from outside: the monitor menu, lodge kill, or the end of the "
       "grace time of lodge stop or of a signal."},
      {"odd", "The guest wrote a value to the port of --debug-exit: (value << 1) | 1, its low eight bits."},
  };
}

int fail(const Error& error) {
  std::string line = "lodge: " + respelled(error.message());
  if (!error.hint().empty()) line += "; " + respelled(error.hint());
  // Messages quote what they name, but one from far away may not: a line must stay a line.
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  line += ::isatty(STDERR_FILENO) == 1 ? "\r\n" : "\n";
  [[maybe_unused]] ssize_t n = ::write(STDERR_FILENO, line.data(), line.size());
  log(LogLevel::info, "the kind of this error is '{}'", toString(error.kind()));
  return exitStatusOf(error);
}

}  // namespace lodge::cli
