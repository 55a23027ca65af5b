// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

#include "base/error.h"
#include "base/file.h"

namespace lodge::control {

/// A process, told apart from a later one with the same number by its start time.
struct ProcessId {
  pid_t pid = 0;
  std::uint64_t startTime = 0;  ///< clock ticks after boot: field 22 of /proc/PID/stat, see proc(5)
  bool operator==(const ProcessId&) const = default;
};

/// The start time of a process, or nothing if there is no such process.
std::optional<std::uint64_t> startTimeOf(pid_t pid);

ProcessId thisProcess();

/// A pidfd that certainly refers to `process`. Errors: notFound if it has ended.
Result<UniqueFd> openProcess(const ProcessId& process);

/// Whether the process behind a pidfd has ended, after waiting for that for up to `milliseconds` (0: only look).
bool waitForProcessEnd(int pidfd, int milliseconds);

/// Sends a signal through a pidfd. An ended process is no error.
Status signalProcess(int pidfd, int signal);

}  // namespace lodge::control
