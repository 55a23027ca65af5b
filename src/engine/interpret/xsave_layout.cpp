// SPDX-License-Identifier: Apache-2.0
#include "engine/interpret/xsave_layout.h"

#include "engine/interpret/vector_state.h"

namespace lodge::interpret {

namespace {

struct HostFacts {
  XsaveLayout layout;
  std::uint32_t mxcsrMask;
};

XsaveLayout readLayout() {
  XsaveLayout layout{};
  for (std::uint32_t i = 2; i < XsaveLayout::kComponents; ++i) {
    std::uint32_t eax = 0xd, ebx, ecx = i, edx;
    asm volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    if (eax == 0 || ebx + eax > 4096) continue;  // not there, or larger than CpuState::xsave
    layout.size[i] = static_cast<std::uint16_t>(eax);
    layout.offset[i] = static_cast<std::uint16_t>(ebx);
    layout.align64[i] = (ecx & 2) != 0;
  }
  return layout;
}

std::uint32_t readMxcsrMask() {
  alignas(16) std::uint32_t area[128] = {};
  asm volatile("fxsave64 (%0)" : : "r"(area) : "memory");
  return area[7] != 0 ? area[7] : 0xffbf;  // SDM vol. 1, 11.6.6
}

// Filled before main() starts; both are harmless to read there.
const HostFacts kHost{readLayout(), readMxcsrMask()};

}  // namespace

const XsaveLayout& xsaveLayout() {
  return kHost.layout;
}
std::uint32_t mxcsrMask() {
  return kHost.mxcsrMask;
}

}  // namespace lodge::interpret
