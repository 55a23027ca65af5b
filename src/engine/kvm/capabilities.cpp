// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/capabilities.h"

#include <fcntl.h>

#include <algorithm>

#include "base/file.h"
#include "engine/kvm/abi.h"

namespace lodge::kvm {

std::vector<Capability> knownCapabilities() {
  return {
      // The newest that is needed is of Linux 5.14.
      {"USER_MEMORY", KVM_CAP_USER_MEMORY, true},
      {"READONLY_MEM", KVM_CAP_READONLY_MEM, true},
      {"EXT_CPUID", KVM_CAP_EXT_CPUID, true},
      {"IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT, true},
      {"VCPU_EVENTS", KVM_CAP_VCPU_EVENTS, true},
      {"DEBUGREGS", KVM_CAP_DEBUGREGS, true},
      {"XSAVE", KVM_CAP_XSAVE, true},
      {"XCRS", KVM_CAP_XCRS, true},
      {"X86_USER_SPACE_MSR", KVM_CAP_X86_USER_SPACE_MSR, true},
      {"X86_MSR_FILTER", KVM_CAP_X86_MSR_FILTER, true},
      {"SREGS2", KVM_CAP_SREGS2, true},
      {"NR_VCPUS", KVM_CAP_NR_VCPUS, false},
      {"NR_MEMSLOTS", KVM_CAP_NR_MEMSLOTS, false},
      {"X86_SMM", KVM_CAP_X86_SMM, false},
      {"MULTI_ADDRESS_SPACE", KVM_CAP_MULTI_ADDRESS_SPACE, false},
      {"TSC_CONTROL", KVM_CAP_TSC_CONTROL, false},
      {"BINARY_STATS_FD", KVM_CAP_BINARY_STATS_FD, false},
      {"NESTED_STATE", KVM_CAP_NESTED_STATE, false},
      {"IRQCHIP", KVM_CAP_IRQCHIP, false},
      {"SPLIT_IRQCHIP", KVM_CAP_SPLIT_IRQCHIP, false},
      {"IRQFD", KVM_CAP_IRQFD, false},
      {"IOEVENTFD", KVM_CAP_IOEVENTFD, false},
      {"SYNC_REGS", KVM_CAP_SYNC_REGS, false},
      {"DIRTY_LOG_RING", KVM_CAP_DIRTY_LOG_RING, false},
      {"HYPERV", KVM_CAP_HYPERV, false},
  };
}

bool hasSplitIrqchip(int kvm) {
  for (unsigned needed : {KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_SIGNAL_MSI, KVM_CAP_IRQ_ROUTING, KVM_CAP_X2APIC_API,
                          KVM_CAP_MP_STATE, KVM_CAP_TSC_DEADLINE_TIMER}) {
    if (call(kvm, KVM_CHECK_EXTENSION, std::uint64_t{needed}) <= 0) return false;
  }
  return true;
}

std::vector<Capability> capabilities(const char* device) {
  UniqueFd fd(::open(device, O_RDWR | O_CLOEXEC));
  if (!fd || call(fd.get(), KVM_GET_API_VERSION) != KVM_API_VERSION) return {};
  auto all = knownCapabilities();
  for (Capability& c : all) c.value = std::max(0, call(fd.get(), KVM_CHECK_EXTENSION, std::uint64_t{c.number}));
  return all;
}

}  // namespace lodge::kvm
