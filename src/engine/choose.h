// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "engine/kvm/probe.h"

namespace lodge {

/// Which engine a machine gets, and why, as a clause ("this version has no KVM engine").
struct EngineChoice {
  std::string name;
  std::string reason;
};

/// The engines that are compiled in.
struct EnginesBuilt {
  bool translate, kvm;
};
EnginesBuilt enginesBuilt();

/// Turns --engine's value into an engine: auto takes KVM if there is an engine for it and `probe` (called only then)
/// finds it usable, else translation, else interpretation. Errors: unsupported (kvm, where it is not built or not
/// usable), notFound (no such engine).
Result<EngineChoice> chooseEngine(std::string_view requested, EnginesBuilt built,
                                  const std::function<kvm::ProbeResult()>& probe);

/// The same for this program on this host.
Result<EngineChoice> chooseEngine(std::string_view requested);

}  // namespace lodge
