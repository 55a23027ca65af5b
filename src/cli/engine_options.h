// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "cli/spec.h"
#include "machine/config.h"

namespace lodge::cli {

/// The options of `lodge run` that choose the engine and say how it works.
std::vector<OptionSpec> engineOptionTable();
/// The one of them that `lodge restore` has, too.
OptionSpec irqchipOption();
Irqchip readIrqchip(const Invocation& invocation);
/// Huge pages by request are the process's from then on (memory/huge_file.h).
void readEngineOptions(const Invocation& invocation, MachineConfig& config);

}  // namespace lodge::cli
