// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "control/json_fields.h"
#include "machine/config.h"

namespace lodge::control {

/// The whole configuration, for the machine's folder and for people (`lodge ps --json`).
Json toJson(const MachineConfig& config);

}  // namespace lodge::control
