// SPDX-License-Identifier: Apache-2.0
// Constants and layouts of the Virtual I/O Device specification, version 1.2.
#pragma once

#include <cstdint>

namespace lodge::virtio {

/// Device types (chapter 5).
enum class DeviceType : std::uint16_t {
  net = 1,
  block = 2,
  console = 3,
  entropy = 4,
  balloon = 5,
  scsi = 8,
  gpu = 16,
  input = 18
};

/// Feature bits that belong to no device type (chapter 6).
namespace feature {
inline constexpr std::uint64_t indirectDescriptors = 1ull << 28, eventIndex = 1ull << 29, version1 = 1ull << 32,
                               ringPacked = 1ull << 34, ringReset = 1ull << 40;
}

/// Device status bits (2.1).
namespace status {
inline constexpr std::uint8_t acknowledge = 1, driver = 2, driverOk = 4, featuresOk = 8, needsReset = 64, failed = 128;
}

inline constexpr std::uint16_t kNoVector = 0xffff;

/// A descriptor of a split ring (2.7.5).
struct Descriptor {
  std::uint64_t address;
  std::uint32_t length;
  std::uint16_t flags;
  std::uint16_t next;
};
static_assert(sizeof(Descriptor) == 16);

/// A descriptor of a packed ring (2.8.13).
struct PackedDescriptor {
  std::uint64_t address;
  std::uint32_t length;
  std::uint16_t id;
  std::uint16_t flags;
};
static_assert(sizeof(PackedDescriptor) == 16);

namespace descriptor {
inline constexpr std::uint16_t next = 1, write = 2, indirect = 4, available = 1 << 7, used = 1 << 15;
}

}  // namespace lodge::virtio
