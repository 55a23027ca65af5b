// SPDX-License-Identifier: Apache-2.0
#include "x86/cpu_model.h"
#include "x86/system.h"

namespace lodge::x86 {

namespace {

const CpuidEntry* find(const CpuModel& model, std::uint32_t leaf, std::uint32_t subleaf) {
  for (const CpuidEntry& e : model.leaves) {
    if (e.leaf == leaf && (!e.perSubleaf || e.subleaf == subleaf)) return &e;
  }
  return nullptr;
}

/// Bytes of an XSAVE area for a component bitmap: in the standard format up to the highest component's end, in the
/// compacted one the sum of their sizes (SDM vol. 1, 13.4). Components 0 and 1 are the legacy region and the header.
std::uint32_t areaBytes(const CpuModel& model, std::uint64_t components, bool compacted) {
  constexpr std::uint32_t kLegacyAndHeader = 576;
  std::uint32_t bytes = kLegacyAndHeader;
  for (std::uint32_t component = 2; component < 63; ++component) {
    if ((components >> component & 1) == 0) continue;
    const CpuidEntry* e = find(model, 0xd, component);
    if (!e) continue;
    std::uint32_t end = compacted ? bytes + e->eax : e->ebx + e->eax;
    if (end > bytes) bytes = end;
  }
  return bytes;
}

}  // namespace

void cpuid(Cpu& cpu, std::uint32_t leaf, std::uint32_t subleaf, std::uint32_t (&out)[4]) {
  const CpuModel& model = *cpu.model;
  const CpuState& s = cpu.state;
  const CpuidEntry* e = find(model, leaf, subleaf);
  out[0] = e ? e->eax : 0;
  out[1] = e ? e->ebx : 0;
  out[2] = e ? e->ecx : 0;
  out[3] = e ? e->edx : 0;
  switch (leaf) {
    case 1:
      out[1] |= cpu.index << 24;
      if ((s.cr4 & cr4::osxsave) != 0) out[2] |= 1u << 27;
      if ((s.apicBase & 1 << 11) == 0) out[3] &= ~(1u << 9);
      break;
    case 7:
      if (subleaf == 0 && (s.cr4 & cr4::pke) != 0) out[2] |= 1u << 4;
      break;
    case 0xb:
      // Beyond the last level only the level's number is echoed (SDM vol. 2, CPUID).
      if (!e) out[2] = subleaf & 0xff;
      out[3] = cpu.index;
      break;
    case 0xd:
      if (!model.has(Feature::xsave)) break;
      if (subleaf == 0) out[1] = areaBytes(model, s.xcr0, false);
      if (subleaf == 1 && model.has(Feature::xsavec)) out[1] = areaBytes(model, s.xcr0 | s.xss, true);
      break;
    case 0x8000001e:
      if (!e) break;
      out[0] = cpu.index;
      out[1] = cpu.index & 0xff;
      break;
    default:
      break;
  }
}

}  // namespace lodge::x86
