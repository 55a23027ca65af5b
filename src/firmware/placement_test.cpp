// SPDX-License-Identifier: Apache-2.0
#include "firmware/placement.h"

#include <gtest/gtest.h>

#include "firmware/memory_map.h"
#include "firmware/test_images.h"

namespace lodge::firmware {
namespace {

TEST(Placement, ClaimsOnlyWhatIsFreeAndUsable) {
  Placement placement({{0x1000, 0x9000, MemoryKind::usable}, {0xa000, 0x1000, MemoryKind::reserved}});
  EXPECT_TRUE(placement.claim(0x2000, 0x1000));
  EXPECT_FALSE(placement.claim(0x2fff, 1));
  EXPECT_FALSE(placement.claim(0x1000, 0x1001));
  EXPECT_TRUE(placement.claim(0x1000, 0x1000));
  EXPECT_FALSE(placement.claim(0x9fff, 2));
  EXPECT_FALSE(placement.claim(0xa000, 1));
  EXPECT_TRUE(placement.claim(0x3000, 0x7000));
  EXPECT_EQ(placement.largestFree(0, ~0ull), 0u);
}

TEST(Placement, ZeroBytesAreAlwaysThere) {
  Placement placement({});
  EXPECT_TRUE(placement.claim(0x1234, 0));
}

TEST(Placement, LowestAndHighestRespectAlignmentAndLimits) {
  Placement placement({{0x1000, 0x4000, MemoryKind::usable}, {0x10000, 0x10000, MemoryKind::usable}});
  EXPECT_EQ(placement.takeLowest(0x800, 0x1000, 0x1001, 0x20000), 0x2000u);
  EXPECT_EQ(placement.takeLowest(0x4000, 0x1000, 0, 0x20000), 0x10000u);
  EXPECT_EQ(placement.takeHighest(0x1001, 0x1000, 0, 0x1f000), 0x1d000u);
  EXPECT_EQ(placement.takeHighest(0x1000, 0x1000, 0, ~0ull), 0x1f000u);
  EXPECT_EQ(placement.takeHighest(0x100000, 0x1000, 0, ~0ull), std::nullopt);
  EXPECT_EQ(placement.takeLowest(~0ull, 0x1000, 0, ~0ull), std::nullopt);
}

TEST(MemoryMap, SmallMachineHasOneHighRange) {
  auto memory = test::ram(64_MiB);
  auto map = memoryMap(*memory, {});
  ASSERT_EQ(map.size(), 4u);
  EXPECT_EQ(map[0].base, 0u);
  EXPECT_EQ(map[0].end(), 0x9fc00u);
  EXPECT_EQ(map[1].kind, MemoryKind::reserved);
  EXPECT_EQ(map[1].end(), 0x100000u);
  EXPECT_EQ(map[2].end(), 64_MiB);
  EXPECT_EQ(map[2].kind, MemoryKind::usable);
  EXPECT_EQ(map[3].base, 0xe0000000u);
  EXPECT_EQ(map[3].kind, MemoryKind::reserved);
}

TEST(MemoryMap, LargeMachineContinuesAt4GiBSortedAndDisjoint) {
  auto memory = test::ram(8_GiB);
  auto map = memoryMap(*memory, {});
  EXPECT_EQ(map[2].end(), 3_GiB);
  EXPECT_EQ(map.back().base, 4_GiB);
  EXPECT_EQ(map.back().length, 5_GiB);
  for (std::size_t i = 1; i < map.size(); ++i) EXPECT_LE(map[i - 1].end(), map[i].base);
  std::uint64_t usable = 0;
  for (const MemoryRange& range : map) usable += range.kind == MemoryKind::usable ? range.length : 0;
  EXPECT_EQ(usable, 8_GiB - (0x100000 - 0x9fc00));
}

TEST(MemoryMap, OneMebibyteHasNoHighRange) {
  auto memory = test::ram(1_MiB);
  auto map = memoryMap(*memory, {});
  EXPECT_EQ(map.size(), 3u);
}

}  // namespace
}  // namespace lodge::firmware
