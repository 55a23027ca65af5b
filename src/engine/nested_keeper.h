// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.h"

namespace lodge {

/// A vCPU whose guest may be a host itself (GuestInterfaces::nested).
class NestedKeepingVcpu {
 public:
  virtual ~NestedKeepingVcpu() = default;
  /// Whether the engine can go on with the guest's own guests, which it may be able to say only of the whole CPU. After
  /// Vcpu::writeInterfaces() and all of CpuState, while no vCPU runs. Errors: unsupported, with a hint; io.
  virtual Status tryNested() = 0;
};

}  // namespace lodge
