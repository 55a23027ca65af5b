// SPDX-License-Identifier: Apache-2.0
#include "memory/mappings.h"

#include <gtest/gtest.h>

namespace lodge {
namespace {

/// The map says the same as offsetOf() and writableOffsetOf() for every page of the first 4 GiB and a bit.
void expectAgrees(const GuestMemory& memory) {
  auto map = memoryMappings(memory, false);
  std::size_t next = 0;
  for (std::uint64_t gpa = 0; gpa < 4_GiB + 4_MiB; gpa += kPageSize) {
    while (next < map.size() && gpa >= map[next].gpa + map[next].length) ++next;
    bool inside = next < map.size() && gpa >= map[next].gpa;
    std::uint64_t offset = inside ? map[next].offset + (gpa - map[next].gpa) : GuestMemory::kNoOffset;
    ASSERT_EQ(offset, memory.offsetOf(Gpa{gpa})) << std::hex << gpa;
    if (!inside) continue;
    ASSERT_EQ(map[next].writable, memory.writableOffsetOf(Gpa{gpa}) != GuestMemory::kNoOffset) << std::hex << gpa;
    ASSERT_EQ(map[next].video, memory.isVideoOffset(offset));
  }
}

TEST(MemoryMappings, PlainRamIsOnePiece) {
  auto memory = std::move(*GuestMemory::create(64_MiB));
  std::vector<MemoryMapping> expected{{0, 0, 64_MiB, true, false}};
  EXPECT_EQ(memoryMappings(*memory, false), expected);
}

TEST(MemoryMappings, RamAboveTheHoleIsItsOwnPiece) {
  auto memory = std::move(*GuestMemory::create(3_GiB + 2_MiB));
  std::vector<MemoryMapping> expected{{0, 0, 3_GiB, true, false}, {4_GiB, 3_GiB, 2_MiB, true, false}};
  EXPECT_EQ(memoryMappings(*memory, false), expected);
  expectAgrees(*memory);
}

TEST(MemoryMappings, ShadowPagesAndRegions) {
  auto memory = std::move(*GuestMemory::create(16_MiB, {.rom = 256_KiB, .video = 1_MiB}));
  memory->useShadowMap();
  for (std::uint64_t at = 0xa0000; at < 0xc0000; at += kPageSize) {
    memory->setShadowPage(Gpa{at}, GuestMemory::kNoOffset, false);
  }
  for (std::uint64_t at = 0xe0000; at < 0x100000; at += kPageSize) {
    memory->setShadowPage(Gpa{at}, memory->romOffset() + (at - 0xe0000), false);
  }
  memory->mapRegion(0, Gpa{4_GiB - 256_KiB}, memory->romOffset(), 256_KiB);
  memory->mapRegion(1, Gpa{0xc000'0000}, memory->videoOffset(), 1_MiB);
  expectAgrees(*memory);
  auto map = memoryMappings(*memory, false);
  EXPECT_EQ(map.size(), 6u);
  memory->unmapRegion(1);
  EXPECT_EQ(memoryMappings(*memory, false).size(), 5u);
  expectAgrees(*memory);
}

TEST(MemoryMappings, SystemManagementRamIsForThatModeAlone) {
  auto memory = std::move(*GuestMemory::create(16_MiB));
  memory->setSmram(Gpa{15_MiB}, 1_MiB);
  expectAgrees(*memory);
  std::vector<MemoryMapping> expected{{0, 0, 15_MiB, true, false}};
  EXPECT_EQ(memoryMappings(*memory, false), expected);
  expected = {{0, 0, 16_MiB, true, false}};
  EXPECT_EQ(memoryMappings(*memory, true), expected);
}

}  // namespace
}  // namespace lodge
