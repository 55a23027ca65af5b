// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "engine/engine.h"
#include "engine/kvm/vm.h"

namespace lodge::kvm {

/// An engine on a KVM device of that name; "/dev/kvm" but for tests. Errors: unsupported (what the KVM lacks), io.
Result<std::unique_ptr<Engine>> makeEngine(const EngineSetup& setup, const char* device,
                                           VmUses uses = VmUses::ofHost());

}  // namespace lodge::kvm
