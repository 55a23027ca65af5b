// SPDX-License-Identifier: Apache-2.0
#include "control/machine_end.h"

#include <fmt/format.h>

#include <array>

namespace lodge::control {

namespace {
constexpr std::array kEnds = {MachineEnd::poweredOff, MachineEnd::resetNoReboot, MachineEnd::debugExit,
                              MachineEnd::crashed,    MachineEnd::saved,         MachineEnd::killed};
}  // namespace

std::string_view toString(MachineEnd end) {
  switch (end) {
    case MachineEnd::poweredOff:
      return "powered-off";
    case MachineEnd::resetNoReboot:
      return "reset";
    case MachineEnd::debugExit:
      return "debug-exit";
    case MachineEnd::crashed:
      return "crashed";
    case MachineEnd::saved:
      return "saved";
    case MachineEnd::killed:
      return "killed";
  }
  return "killed";
}

std::string describe(const EndRecord& record) {
  switch (record.end) {
    case MachineEnd::poweredOff:
      return "the guest powered off";
    case MachineEnd::resetNoReboot:
      return "the guest reset itself";
    case MachineEnd::debugExit:
      return fmt::format("the guest ended with debug exit status {}", record.status);
    case MachineEnd::crashed:
      return "the guest crashed";
    case MachineEnd::saved:
      return "the machine was saved";
    case MachineEnd::killed:
      return "the machine was turned off";
  }
  return "the machine ended";
}

Json EndRecord::toJson() const {
  return {{"end", toString(end)}, {"status", status}, {"unixTime", unixTime}};
}

std::optional<EndRecord> EndRecord::fromJson(const Json& json) {
  auto name = stringField(json, "end");
  auto value = numberField(json, "status");
  auto time = numberField(json, "unixTime");
  if (!name || !value || *value > UINT32_MAX / 2 || !time) return std::nullopt;
  for (MachineEnd end : kEnds) {
    if (toString(end) == *name) return EndRecord{end, static_cast<int>(*value), static_cast<std::int64_t>(*time)};
  }
  return std::nullopt;
}

}  // namespace lodge::control
