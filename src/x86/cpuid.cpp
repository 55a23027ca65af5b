// SPDX-License-Identifier: Apache-2.0
// CPUID: the model's leaves with what depends on the vCPU filled in (SDM vol. 2, CPUID; vol. 1, 13.2).
#include "x86/cpu_model.h"
#include "x86/system.h"

namespace lodge::x86 {

namespace {

constexpr std::uint32_t kHypervisorBase = 0x4000'0000, kExtendedBase = 0x8000'0000;

const CpuidEntry* find(const CpuModel& model, std::uint32_t leaf, std::uint32_t subleaf) {
  std::size_t low = 0, high = model.leaves.size();
  while (low < high) {
    std::size_t middle = (low + high) / 2;
    const CpuidEntry& entry = model.leaves[middle];
    bool before = entry.leaf < leaf || (entry.leaf == leaf && entry.perSubleaf && entry.subleaf < subleaf);
    if (before) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == model.leaves.size()) return nullptr;
  const CpuidEntry& entry = model.leaves[low];
  return entry.leaf == leaf && (!entry.perSubleaf || entry.subleaf == subleaf) ? &entry : nullptr;
}

// Intel's processors answer a leaf beyond the last basic one as if that had been asked for; AMD's with zeros.
const CpuidEntry* lookUp(const CpuModel& model, std::uint32_t leaf, std::uint32_t subleaf) {
  if (model.vendor == CpuVendor::intel && (leaf < kHypervisorBase || leaf >= kExtendedBase)) {
    std::uint32_t base = leaf & kExtendedBase;
    const CpuidEntry* range = find(model, base, 0);
    const CpuidEntry* basic = find(model, 0, 0);
    if (basic && (!range || leaf > range->eax)) leaf = basic->eax;
  }
  return find(model, leaf, subleaf);
}

// Bytes of the XSAVE area for the components in `mask`, standard or compacted.
std::uint32_t xsaveSize(const CpuModel& model, std::uint64_t mask, bool compacted) {
  std::uint32_t size = 512 + 64;
  for (unsigned i = 2; i < 63; ++i) {
    if (((mask >> i) & 1) == 0) continue;
    const CpuidEntry* component = find(model, 0xd, i);
    if (!component) continue;
    if (compacted) {
      if ((component->ecx & 2) != 0) size = (size + 63) & ~63u;
      size += component->eax;
    } else if (component->ebx + component->eax > size) {
      size = component->ebx + component->eax;
    }
  }
  return size;
}

void setBit(std::uint32_t& word, unsigned bit, bool value) {
  word = (word & ~(1u << bit)) | (value ? 1u << bit : 0);
}

void fillPerCpu(const Cpu& cpu, std::uint32_t leaf, std::uint32_t subleaf, std::uint32_t (&out)[4]) {
  enum : unsigned { eax, ebx, ecx, edx };
  const CpuState& state = cpu.state;
  (void)eax;
  switch (leaf) {
    case 1:
      out[ebx] = (out[ebx] & 0x00ff'ffff) | cpu.index << 24;
      setBit(out[ecx], 27, (state.cr4 & cr4::osxsave) != 0);
      setBit(out[edx], 9, (state.apicBase & (1 << 11)) != 0);
      break;
    case 7:
      if (subleaf == 0) setBit(out[ecx], 4, (state.cr4 & cr4::pke) != 0);
      break;
    case 0xb:
    case 0x1f:
      out[edx] = cpu.index;
      break;
    case 0xd:
      if (subleaf == 0) out[ebx] = xsaveSize(*cpu.model, state.xcr0, false);
      if (subleaf == 1) out[ebx] = xsaveSize(*cpu.model, state.xcr0 | state.xss, true);
      break;
    case 0x8000'0001:
      if (cpu.model->vendor == CpuVendor::amd) setBit(out[edx], 9, (state.apicBase & (1 << 11)) != 0);
      // Intel shows SYSCALL in 64-bit mode only.
      if (cpu.model->vendor == CpuVendor::intel && !cpu.mode64()) setBit(out[edx], 11, false);
      break;
    case 0x8000'001e:
      out[eax] = cpu.index;
      out[ebx] = (out[ebx] & ~0xffu) | (cpu.index & 0xff);
      break;
    default:
      break;
  }
}

}  // namespace

void cpuid(Cpu& cpu, std::uint32_t leaf, std::uint32_t subleaf, std::uint32_t (&out)[4]) {
  const CpuidEntry* entry = lookUp(*cpu.model, leaf, subleaf);
  out[0] = out[1] = out[2] = out[3] = 0;
  // Sub-leaves beyond the last of the topology leaves still tell the APIC id and echo the sub-leaf (SDM).
  if (!entry && (leaf == 0xb || leaf == 0x1f) && find(*cpu.model, leaf, 0)) {
    out[2] = subleaf & 0xff;
    out[3] = cpu.index;
    return;
  }
  if (!entry) return;
  out[0] = entry->eax;
  out[1] = entry->ebx;
  out[2] = entry->ecx;
  out[3] = entry->edx;
  fillPerCpu(cpu, entry->leaf, subleaf, out);
}

}  // namespace lodge::x86
