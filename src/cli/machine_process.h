// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "cli/run_options.h"
#include "cli/spec.h"
#include "control/machine_folder.h"

namespace lodge::cli {

/// Makes this process a machine: claims the name, creates and starts it, answers its control socket, and in the
/// foreground connects standard input and output to its console. Returns the exit status once the machine has ended.
/// `onStarted` is called when it runs; if it returns false the machine is turned off again.
int runMachine(const RunOptions& options, const Program& program,
               const std::function<bool(control::MachineFolder&)>& onStarted);

/// runMachine() in a process of its own, away from the terminal. Returns when the machine runs (having printed its
/// name) or has failed to (having printed why), with the exit status.
int runDetached(const RunOptions& options, const Program& program);

}  // namespace lodge::cli
