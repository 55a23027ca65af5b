// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/capabilities.h"

#include <fcntl.h>

#include <algorithm>

#include "base/file.h"
#include "engine/chip_keeper.h"
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
      {"MP_STATE", KVM_CAP_MP_STATE, false},
      {"KVMCLOCK_CTRL", KVM_CAP_KVMCLOCK_CTRL, false},
      {"ADJUST_CLOCK", KVM_CAP_ADJUST_CLOCK, false},
      {"STEAL_TIME", KVM_CAP_STEAL_TIME, false},
      {"GET_TSC_KHZ", KVM_CAP_GET_TSC_KHZ, false},
      {"TSC_CONTROL", KVM_CAP_TSC_CONTROL, false},
      {"VM_TSC_CONTROL", KVM_CAP_VM_TSC_CONTROL, false},
      {"TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER, false},
      {"BINARY_STATS_FD", KVM_CAP_BINARY_STATS_FD, false},
      {"EXIT_ON_EMULATION_FAILURE", KVM_CAP_EXIT_ON_EMULATION_FAILURE, false},
      {"IRQCHIP", KVM_CAP_IRQCHIP, false},
      {"SPLIT_IRQCHIP", KVM_CAP_SPLIT_IRQCHIP, false},
      {"PIT2", KVM_CAP_PIT2, false},
      {"PIT_STATE2", KVM_CAP_PIT_STATE2, false},
      {"X2APIC_API", KVM_CAP_X2APIC_API, false},
      {"SIGNAL_MSI", KVM_CAP_SIGNAL_MSI, false},
      {"IRQ_ROUTING", KVM_CAP_IRQ_ROUTING, false},
      {"IRQFD", KVM_CAP_IRQFD, false},
      {"IOEVENTFD", KVM_CAP_IOEVENTFD, false},
      {"IOEVENTFD_ANY_LENGTH", KVM_CAP_IOEVENTFD_ANY_LENGTH, false},
      {"COALESCED_MMIO", KVM_CAP_COALESCED_MMIO, false},
      {"COALESCED_PIO", KVM_CAP_COALESCED_PIO, false},
      {"SYNC_REGS", KVM_CAP_SYNC_REGS, false},
      {"MANUAL_DIRTY_LOG_PROTECT2", KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, false},
      {"DIRTY_LOG_RING", KVM_CAP_DIRTY_LOG_RING, false},
      {"NESTED_STATE", KVM_CAP_NESTED_STATE, false},
      {"HYPERV", KVM_CAP_HYPERV, false},
      {"HYPERV_CPUID", KVM_CAP_HYPERV_CPUID, false},
      {"SYS_HYPERV_CPUID", KVM_CAP_SYS_HYPERV_CPUID, false},
      {"HYPERV_SYNIC2", KVM_CAP_HYPERV_SYNIC2, false},
      {"HYPERV_TLBFLUSH", KVM_CAP_HYPERV_TLBFLUSH, false},
      {"HYPERV_SEND_IPI", KVM_CAP_HYPERV_SEND_IPI, false},
  };
}

bool hasIrqchip(int kvm, Irqchip irqchip) {
  if (irqchip == Irqchip::user) return false;
  auto has = [&](unsigned number) { return call(kvm, KVM_CHECK_EXTENSION, std::uint64_t{number}) > 0; };
  for (unsigned needed :
       {KVM_CAP_SIGNAL_MSI, KVM_CAP_IRQ_ROUTING, KVM_CAP_X2APIC_API, KVM_CAP_MP_STATE, KVM_CAP_TSC_DEADLINE_TIMER}) {
    if (!has(needed)) return false;
  }
  if (irqchip != kKernelIrqchip) return has(KVM_CAP_SPLIT_IRQCHIP);
  return has(KVM_CAP_IRQCHIP) && has(KVM_CAP_PIT2) && has(KVM_CAP_PIT_STATE2);
}

std::vector<Capability> capabilities(const char* device) {
  UniqueFd fd(::open(device, O_RDWR | O_CLOEXEC));
  if (!fd || call(fd.get(), KVM_GET_API_VERSION) != KVM_API_VERSION) return {};
  auto all = knownCapabilities();
  for (Capability& c : all) c.value = std::max(0, call(fd.get(), KVM_CHECK_EXTENSION, std::uint64_t{c.number}));
  return all;
}

}  // namespace lodge::kvm
