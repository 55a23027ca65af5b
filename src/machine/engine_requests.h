// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
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
  std::uint64_t tscHz = 0;  ///< "tsc-frequency=HZ": of the guest's time stamp counter, on any engine; 0: the host's
  /// Errors: invalidArgument (another word, or a rate beyond x86::kLeastTscHz and kMostTscHz).
  static Result<EngineRequests> of(const MachineConfig& config);

  /// Whether an engine can do what is asked for. Errors: unsupported, with the option's name.
  Status check(std::string_view engine) const;
  /// The same for a machine that was started before: without nested virtualization as long as the guest does not use
  /// it, which it then finds disabled, as by a computer's firmware. Errors: check()'s, and with what the guest uses.
  Status checkMove(std::string_view engine, Virtualization used) const;
  /// The engine that a machine gets where KVM does not keep the rate of its time stamp counter; "": none, since one
  /// that begins gets all that is asked for. One that was saved may do without what checkMove() says.
  std::string insteadOfKvm(bool saved) const;
  /// Makes `model` that of the engine where the machine goes on: which control bits may be set. Errors:
  /// lodge::offerInterfaces()'s.
  Status applyMove(std::string_view engine, x86::CpuModel& model, Irqchip irqchip) const;
};

}  // namespace lodge
