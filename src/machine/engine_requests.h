// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"
#include "engine/engine.h"
#include "machine/config.h"

namespace lodge {

/// What a configuration asks for that the kvm engine alone has, and that keeps the machine there. They are words after
/// the CPU model's name, "host,nested,hyperv", since they are what the guest sees; huge pages are the process's
/// (memory/huge_file.h).
struct EngineRequests {
  std::string cpuModel;  ///< its name alone
  GuestInterfaces interfaces;
  /// Errors: invalidArgument (another word).
  static Result<EngineRequests> of(const MachineConfig& config);

  /// Whether an engine can do what is asked for. Errors: unsupported, with the option's name.
  Status check(std::string_view engine) const;
  /// Whether the machine can leave its KVM. `doing`: "saved" or "moved". Errors: unsupported, with the option's name.
  Status checkLeaving(std::string_view doing) const;
};

}  // namespace lodge
