// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "cli/spec.h"
#include "control/control_client.h"
#include "control/runtime_folder.h"

namespace lodge::cli {

/// Runs `action` for each machine named; prints each failure. The exit status is the first failure's.
int forEachMachine(const Invocation& invocation,
                   const std::function<Status(control::RuntimeFolder&, const std::string& name)>& action);

/// A running machine of this name. Errors: notFound; invalidArgument if it has ended (saying how).
Result<control::FoundMachine> findRunning(control::RuntimeFolder& folder, const std::string& name);

/// Asks a running machine one thing.
Result<control::Json> ask(control::RuntimeFolder& folder, const std::string& name, const control::Request& request,
                          int milliseconds = control::ControlClient::kAnswerLimit);

/// Waits until the machine's process is gone, for `milliseconds`. Errors: busy (still there).
Status waitUntilGone(const control::FoundMachine& machine, int milliseconds);

/// Ends the process of a machine that does not answer.
Status killProcess(const control::FoundMachine& machine);

/// Turns the machine off: asks it to, and ends its process if it does not answer. Its folder is cleaned up.
Status turnOff(control::RuntimeFolder& folder, const std::string& name);

}  // namespace lodge::cli
