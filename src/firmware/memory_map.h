// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "firmware/platform.h"
#include "memory/guest_memory.h"

namespace lodge::firmware {

/// Address range types (ACPI 6.0, table 15-330); the same numbers in e820, PVH and multiboot memory maps.
enum class MemoryKind : std::uint32_t { usable = 1, reserved = 2, acpiReclaimable = 3, acpiNvs = 4, unusable = 5 };

/// Guest-physical [base, base + length).
struct MemoryRange {
  std::uint64_t base, length;
  MemoryKind kind;

  std::uint64_t end() const { return base + length; }
};

/// The map that the guest is told: RAM without the BIOS area (layout.h) as usable; the BIOS area, where tables lie, and
/// ECAM as reserved. Sorted by address, without overlaps.
std::vector<MemoryRange> memoryMap(const GuestMemory& memory, const PlatformDescription& platform);

}  // namespace lodge::firmware
