// SPDX-License-Identifier: Apache-2.0
// What guests are offered by request: nested virtualization (SDM vol. 3, 24; APM vol. 2, 15) and Hyper-V's interface
// (Hypervisor Top-Level Functional Specification, 2.4), as far as this KVM has them.
#include <fcntl.h>

#include <algorithm>
#include <span>

#include "base/file.h"
#include "engine/kvm/capabilities.h"
#include "engine/kvm/cpuid.h"

namespace lodge::kvm {

namespace {

constexpr std::uint32_t kExtended = 0x8000'0001, kSvm = 0x8000'000a, kHypervisor = 0x4000'0000, kOwn = 0x4000'0100;
constexpr std::uint32_t kVmxBit = 1 << 5, kSvmBit = 1 << 2;
// Of leaf 0x40000003: runtime and reference counters, APIC registers, hypercalls, VP index, reference TSC page and
// frequencies; and XMM input of hypercalls, frequencies, crash registers.
constexpr std::uint32_t kRights = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 11;
constexpr std::uint32_t kAbilities = 1 << 4 | 1 << 8 | 1 << 10;
// With the synthetic interrupt controller: it and the synthetic timers; timers that need no message.
constexpr std::uint32_t kSynicRights = 1 << 2 | 1 << 3, kSynicAbilities = 1 << 19;
// Of leaf 0x40000004: TLB flushes and IPIs by hypercall, APIC registers, relaxed timing, processor masks.
constexpr std::uint32_t kAdvice = 1 << 2 | 1 << 3 | 1 << 5 | 1 << 10 | 1 << 11;

const kvm_cpuid_entry2* find(CpuidList& list, std::uint32_t leaf) {
  auto* found = std::find_if(list.begin(), list.end(), [&](const auto& entry) { return entry.function == leaf; });
  return found == list.end() ? nullptr : found;
}

x86::CpuidEntry* find(x86::CpuModel& model, std::uint32_t leaf) {
  auto found = std::ranges::find(model.leaves, leaf, &x86::CpuidEntry::leaf);
  return found == model.leaves.end() ? nullptr : &*found;
}

/// Leaves stay sorted, and the last of the range is known by its first.
void put(x86::CpuModel& model, const x86::CpuidEntry& entry) {
  auto at = std::ranges::lower_bound(model.leaves, entry.leaf, {}, &x86::CpuidEntry::leaf);
  if (at != model.leaves.end() && at->leaf == entry.leaf)
    *at = entry;
  else
    model.leaves.insert(at, entry);
}

Status offerNested(x86::CpuModel& model, CpuidList& supported, bool keepsState) {
  bool amd = model.vendor == x86::CpuVendor::amd;
  const kvm_cpuid_entry2* there = find(supported, amd ? kExtended : 1);
  x86::CpuidEntry* offered = find(model, amd ? kExtended : 1);
  std::uint32_t bit = amd ? kSvmBit : kVmxBit;
  if (!keepsState) {
    return Error(ErrorKind::unsupported, "--nested: this host's KVM does not tell the state of nested guests")
        .withHint("use a kernel of version 5.8 or newer, or leave --nested out");
  }
  if (!there || !offered || (there->ecx & bit) == 0) {
    return Error(ErrorKind::unsupported, "--nested: this host's KVM does not let guests be hosts")
        .withHint(
            "load it with nested=1 ('modprobe -r kvm_amd; modprobe kvm_amd nested=1', or kvm_intel), or leave "
            "--nested out");
  }
  offered->ecx |= bit;
  if (!amd) {
    model.cr4Supported |= kCr4Vmxe;
    return {};
  }
  model.eferSupported |= x86::efer::svme;
  const kvm_cpuid_entry2* svm = find(supported, kSvm);
  if (svm) put(model, {kSvm, 0, svm->eax, svm->ebx, svm->ecx, svm->edx, false});
  if (x86::CpuidEntry* first = find(model, 0x8000'0000)) first->eax = std::max(first->eax, kSvm);
  return {};
}

Result<CpuidList> hypervCpuid(int system) {
  if (call(system, KVM_CHECK_EXTENSION, std::uint64_t{KVM_CAP_SYS_HYPERV_CPUID}) > 0) {
    CpuidList list(64);
    if (call(system, kGetHypervCpuid, list.data()) == 0) return list;
  }
  return Error(ErrorKind::unsupported, "--hyperv: this host's KVM has no interface of Hyper-V's")
      .withHint("use a kernel of version 5.11 or newer that has it, or leave --hyperv out");
}

/// KVM's leaves move to 0x40000100, where guests look for them, too.
void moveOwnLeaves(x86::CpuModel& model) {
  std::vector<x86::CpuidEntry> own;
  std::erase_if(model.leaves, [&](const x86::CpuidEntry& entry) {
    if (entry.leaf < kHypervisor || entry.leaf >= kOwn) return false;
    if (entry.leaf <= kHypervisor + 1) own.push_back(entry);
    return true;
  });
  for (x86::CpuidEntry& entry : own) {
    if (entry.leaf == kHypervisor) entry.eax = kOwn + 1;
    entry.leaf += kOwn - kHypervisor;
    put(model, entry);
  }
}

Status offerHyperv(x86::CpuModel& model, int system, bool synic) {
  auto offered = hypervCpuid(system);
  if (!offered) return std::move(offered).error();
  moveOwnLeaves(model);
  auto registers = [&](std::uint32_t leaf) {
    const kvm_cpuid_entry2* entry = find(*offered, leaf);
    return entry ? *entry : kvm_cpuid_entry2{};
  };
  constexpr std::uint32_t kNeverSpin = ~0u, kCpus = 64;
  kvm_cpuid_entry2 version = registers(kHypervisor + 2), rights = registers(kHypervisor + 3);
  put(model, {kHypervisor, 0, kHypervisor + 6, 0x7263'694d, 0x666f'736f, 0x7648'2074, false});  // "Microsoft Hv"
  put(model, {kHypervisor + 1, 0, 0x3123'7648, 0, 0, 0, false});                                // "Hv#1"
  put(model, {kHypervisor + 2, 0, version.eax, version.ebx, version.ecx, version.edx, false});
  std::uint32_t mayUse = kRights | (synic ? kSynicRights : 0), canDo = kAbilities | (synic ? kSynicAbilities : 0);
  put(model, {kHypervisor + 3, 0, rights.eax & mayUse, 0, 0, rights.edx & canDo, false});
  put(model, {kHypervisor + 4, 0, registers(kHypervisor + 4).eax & kAdvice, kNeverSpin, 0, 0, false});
  put(model, {kHypervisor + 5, 0, kCpus, kCpus, 0, 0, false});
  put(model, {kHypervisor + 6, 0, 0, 0, 0, 0, false});
  return {};
}

}  // namespace

Status offerInterfaces(x86::CpuModel& model, GuestInterfaces interfaces, Irqchip irqchip, const char* device) {
  UniqueFd system(::open(device, O_RDWR | O_CLOEXEC));
  if (!system) return Error::fromErrno(errno, std::string("open ") + device);
  auto has = [&](unsigned capability) {
    return call(system.get(), KVM_CHECK_EXTENSION, std::uint64_t{capability}) > 0;
  };
  if (interfaces.nested) {
    auto supported = supportedCpuid(system.get());
    if (!supported) return std::move(supported).error();
    if (Status offered = offerNested(model, *supported, has(KVM_CAP_NESTED_STATE)); !offered) return offered;
  }
  bool synic = hasIrqchip(system.get(), irqchip) && has(KVM_CAP_HYPERV_SYNIC2);
  return interfaces.hyperv ? offerHyperv(model, system.get(), synic) : Status{};
}

}  // namespace lodge::kvm
