// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>
#include <vector>

#include "engine/irqchip.h"

namespace lodge::kvm {

/// A capability of KVM's (Linux Documentation/virt/kvm/api.rst) that Lodge needs or would use.
struct Capability {
  std::string_view name;  ///< without "KVM_CAP_"
  unsigned number;
  bool needed;    ///< the engine does not do without it
  int value = 0;  ///< KVM_CHECK_EXTENSION's answer; 0: it is not there
};

/// What the device says. None if it cannot be opened.
std::vector<Capability> capabilities(const char* device = "/dev/kvm");

/// Whether the KVM behind the descriptor of /dev/kvm (or of a virtual machine) can have local APICs of its own, and
/// the other interrupt controllers, too, or not, as asked for (`best`: as split). False for `user`.
bool hasIrqchip(int kvm, Irqchip irqchip);

/// The list, without answers.
std::vector<Capability> knownCapabilities();

}  // namespace lodge::kvm
