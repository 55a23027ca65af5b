// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/cpuid.h"

#include <fcntl.h>

#include "base/file.h"
#include "engine/kvm/capabilities.h"
#include "x86/model/withhold.h"
#include "x86/system.h"

namespace lodge::kvm {

namespace {

constexpr std::uint32_t kHypervisorFeatures = 0x4000'0001;
// Linux Documentation/virt/kvm/x86/cpuid.rst. KVM answers these hypercalls itself, and
// may have no local APIC to do it by.
constexpr std::uint32_t kPvUnhalt = 1 << 7, kPvSendIpi = 1 << 11;
constexpr std::uint32_t kArchCapabilities = 0x10a;

/// Whether Lodge, not KVM, carries a feature out; or KVM does without saying so.
bool isOurs(const x86::FeatureBit& bit) {
  using enum x86::CpuidRegister;
  if (bit.leaf == 1 && bit.reg == ecx) return bit.bit == 21 || bit.bit == 24 || bit.bit == 31;  // x2APIC, deadline
  if (bit.leaf == 1 && bit.reg == edx) return bit.bit == 9 || bit.bit == 12 || bit.bit == 14;   // APIC, MTRR, MCA
  if (bit.leaf == 6) return true;                                                               // ARAT
  return bit.leaf == 0x8000'0001 && bit.reg == ecx && bit.bit == 22;                            // topology
}

std::uint32_t supportedRegister(CpuidList& supported, const x86::FeatureBit& bit) {
  for (const kvm_cpuid_entry2& entry : supported) {
    bool indexed = (entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0;
    if (entry.function != bit.leaf || (indexed && entry.index != bit.subleaf)) continue;
    const std::uint32_t registers[] = {entry.eax, entry.ebx, entry.ecx, entry.edx};
    return registers[static_cast<unsigned>(bit.reg)];
  }
  return 0;
}

/// ARCH_CAPABILITIES as KVM may give it to guests; 0 if it knows none.
std::uint64_t readArchCapabilities(int system) {
  MsrList list(1);
  list.entries()[0] = {kArchCapabilities, 0, 0};
  return call(system, kGetMsrs, list.data()) == 1 ? list.entries()[0].data : 0;
}

}  // namespace

CpuidList cpuidEntries(x86::Cpu& cpu) {
  const auto& leaves = cpu.model->leaves;
  CpuidList list(leaves.size());
  kvm_cpuid_entry2* entry = list.entries();
  for (const x86::CpuidEntry& leaf : leaves) {
    std::uint32_t value[4];
    x86::cpuid(cpu, leaf.leaf, leaf.subleaf, value);
    *entry = {};
    entry->function = leaf.leaf;
    entry->index = leaf.subleaf;
    entry->flags = leaf.perSubleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    entry->eax = value[0];
    entry->ebx = value[1];
    entry->ecx = value[2];
    // Intel shows SYSCALL in 64-bit mode only: KVM has one answer for all modes.
    entry->edx = leaf.leaf == 0x8000'0001 ? value[3] | (leaf.edx & 1u << 11) : value[3];
    ++entry;
  }
  return list;
}

Result<CpuidList> supportedCpuid(int system) {
  for (std::size_t size = 256; size <= 4096; size *= 2) {
    CpuidList list(size);
    if (call(system, kGetSupportedCpuid, list.data()) == 0) return list;
    if (errno != E2BIG) break;
  }
  return Error::fromErrno(errno, "KVM_GET_SUPPORTED_CPUID");
}

void limitModel(x86::CpuModel& model, CpuidList& supported, std::uint64_t archCapabilities, bool apicsInKvm) {
  x86::withholdFeatures(model, [&](const x86::FeatureBit& bit) {
    return isOurs(bit) || (supportedRegister(supported, bit) >> bit.bit & 1) != 0;
  });
  model.archCapabilities &= archCapabilities;
  for (const kvm_cpuid_entry2& entry : supported) {
    unsigned bits = entry.function == 0x8000'0008 ? entry.eax & 0xff : 0;
    if (bits >= 36 && bits < model.physicalAddressBits) x86::setPhysicalAddressBits(model, bits);
  }
  for (x86::CpuidEntry& entry : model.leaves) {
    if (entry.leaf == kHypervisorFeatures && !apicsInKvm) entry.eax &= ~(kPvUnhalt | kPvSendIpi);
  }
}

Status limitModel(x86::CpuModel& model, Irqchip irqchip, const char* device) {
  UniqueFd system(::open(device, O_RDWR | O_CLOEXEC));
  if (!system) return Error::fromErrno(errno, std::string("open ") + device);
  auto supported = supportedCpuid(system.get());
  if (!supported) return std::move(supported).error();
  limitModel(model, *supported, readArchCapabilities(system.get()), hasIrqchip(system.get(), irqchip));
  return {};
}

}  // namespace lodge::kvm
