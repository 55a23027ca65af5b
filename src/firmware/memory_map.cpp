// SPDX-License-Identifier: Apache-2.0
#include "firmware/memory_map.h"

#include <algorithm>

#include "firmware/layout.h"

namespace lodge::firmware {

std::vector<MemoryRange> memoryMap(const GuestMemory& memory, const PlatformDescription& platform) {
  std::vector<MemoryRange> map;
  map.push_back({0, layout::kLowMemoryEnd, MemoryKind::usable});
  map.push_back({layout::kLowMemoryEnd, layout::kHighMemoryStart - layout::kLowMemoryEnd, MemoryKind::reserved});
  if (memory.lowSize() > layout::kHighMemoryStart) {
    map.push_back({layout::kHighMemoryStart, memory.lowSize() - layout::kHighMemoryStart, MemoryKind::usable});
  }
  if (platform.ecamBase != 0) map.push_back({platform.ecamBase, platform.pciBuses * 1_MiB, MemoryKind::reserved});
  if (memory.highSize() != 0) map.push_back({GuestMemory::kHoleEnd, memory.highSize(), MemoryKind::usable});
  std::sort(map.begin(), map.end(), [](const MemoryRange& a, const MemoryRange& b) { return a.base < b.base; });
  return map;
}

}  // namespace lodge::firmware
