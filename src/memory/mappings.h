// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "memory/guest_memory.h"

namespace lodge {

/// A range of guest-physical addresses that memory answers: what GuestMemory::offsetOf() says page by page, in pieces
/// as large as they can be.
struct MemoryMapping {
  std::uint64_t gpa, offset, length;
  bool writable;
  bool video;  ///< of the video memory: whoever looks at the screen wants to know of stores
  bool operator==(const MemoryMapping&) const = default;
};

/// The whole map, by address, without overlaps. `smm`: as a CPU in system management mode sees it.
std::vector<MemoryMapping> memoryMappings(const GuestMemory& memory, bool smm);

}  // namespace lodge
