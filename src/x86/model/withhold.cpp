// SPDX-License-Identifier: Apache-2.0
#include "x86/model/withhold.h"

#include <cstring>
#include <string_view>

#include "x86/state.h"

namespace lodge::x86 {

namespace {

std::uint32_t* registerOf(CpuModel& model, const FeatureBit& bit) {
  for (CpuidEntry& e : model.leaves) {
    if (e.leaf != bit.leaf || (e.perSubleaf && e.subleaf != bit.subleaf)) continue;
    std::uint32_t* registers[] = {&e.eax, &e.ebx, &e.ecx, &e.edx};
    return registers[static_cast<unsigned>(bit.reg)];
  }
  return nullptr;
}

struct ControlBit {
  std::string_view feature;
  std::uint64_t cr4, efer;
};
constexpr ControlBit kControlBits[] = {
    {"vme", cr4::vme | cr4::pvi, 0},
    {"de", cr4::de, 0},
    {"pse", cr4::pse, 0},
    {"pge", cr4::pge, 0},
    {"pcid", cr4::pcide, 0},
    {"fsgsbase", cr4::fsgsbase, 0},
    {"smep", cr4::smep, 0},
    {"smap", cr4::smap, 0},
    {"umip", cr4::umip, 0},
    {"xsave", cr4::osxsave, 0},
    {"nx", 0, efer::nxe},
    {"auto-ibrs", 0, 1 << 21},
};

void withhold(CpuModel& model, const FeatureBit& bit) {
  if (bit.feature != Feature::kCount) model.features &= ~(1ull << static_cast<unsigned>(bit.feature));
  for (const ControlBit& control : kControlBits) {
    if (control.feature != bit.name) continue;
    model.cr4Supported &= ~control.cr4;
    model.eferSupported &= ~control.efer;
  }
  std::string_view name = bit.name;
  if (name == "pdpe1gb") model.gigabytePages = false;
  if (name == "spec-ctrl") model.specCtrlSupported = 0;
  if (name == "arch-capabilities") model.archCapabilities = 0;
  if (name == "avx512f") model.xcr0Supported &= 7;
  if (name == "avx") model.xcr0Supported &= 3;
  if (name == "xsave") model.xcr0Supported &= 3;
}

}  // namespace

void withholdFeatures(CpuModel& model, const std::function<bool(const FeatureBit&)>& keep) {
  for (const FeatureBit& bit : featureBits()) {
    std::uint32_t* value = registerOf(model, bit);
    if (!value || (*value >> bit.bit & 1) == 0 || keep(bit)) continue;
    *value &= ~(1u << bit.bit);
    withhold(model, bit);
  }
  for (CpuidEntry& entry : model.leaves) {
    if (entry.leaf == 0xd && entry.subleaf == 0) entry.eax &= static_cast<std::uint32_t>(model.xcr0Supported);
  }
}

}  // namespace lodge::x86
