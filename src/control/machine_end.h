// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "control/json_fields.h"
#include "machine/config.h"

namespace lodge::control {

/// How a machine ended, as it is told to those who wait for it and kept in the machine's folder.
struct EndRecord {
  MachineEnd end = MachineEnd::killed;
  int status = 0;             ///< isa-debug-exit's value where `end` is debugExit
  std::int64_t unixTime = 0;  ///< seconds; when it ended

  Json toJson() const;
  static std::optional<EndRecord> fromJson(const Json& json);
};

/// "powered-off", "reset", "debug-exit", "crashed", "saved", "killed".
std::string_view toString(MachineEnd end);

/// For people: "the guest powered off", "the guest crashed".
std::string describe(const EndRecord& record);

}  // namespace lodge::control
