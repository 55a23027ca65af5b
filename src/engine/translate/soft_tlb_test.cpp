// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <vector>

#include "engine/translate/address_space.h"
#include "engine/translate/code_map.h"

namespace lodge::translate {
namespace {

const std::uint32_t missTable = 0x1234;  // its first entry only
const auto kMissTable = reinterpret_cast<std::uint64_t>(&missTable);

class AddressSpacesTest : public testing::Test {
 protected:
  void SetUp() override {
    auto made = AddressSpaces::create(kMissTable, 4);
    ASSERT_TRUE(made) << made.error().message();
    spaces_ = std::move(*made);
  }
  std::unique_ptr<AddressSpaces> spaces_;
  alignas(4096) static inline std::byte page_[4096];
  static std::uint64_t hostPage() { return reinterpret_cast<std::uint64_t>(page_); }
};

TEST_F(AddressSpacesTest, EntryIsTheAddend) {
  TlbTable& user = spaces_->current().user;
  user.fill(0x7fff'1234'5678, page_, false);
  EXPECT_EQ(user.entry(0x7fff'1234'5000), (hostPage() - 0x7fff'1234'5000) | kTlbValid);
  EXPECT_EQ(user.entry(0x7fff'1234'6000), 0u);
}

TEST_F(AddressSpacesTest, TranslatedCodeSeesTheSameMemory) {
  AddressSpace& space = spaces_->current();
  space.user.fill(0x40'0000, page_, false);
  spaces_->kernelTable().fill(0xffff'ffff'8100'0000, page_, true);
  auto at = [](std::uint64_t base, std::uint64_t index) { return reinterpret_cast<const std::uint64_t*>(base)[index]; };
  EXPECT_EQ(at(space.gsBase(), 0x400), (hostPage() - 0x40'0000) | kTlbValid);
  std::uint64_t kernelIndex = 0xffff'ffff'8100'0000 >> 12 & 0xf'ffff'ffff;  // 36 bits, from the user table's start
  std::uint64_t expected = (hostPage() - 0xffff'ffff'8100'0000) | kTlbValid;
  EXPECT_EQ(at(space.gsBase(), kernelIndex), expected);
  auto state = reinterpret_cast<std::uint64_t>(spaces_->cpuMemory());
  EXPECT_EQ(at(state + layout::kernelTable, kernelIndex & 0x7'ffff'ffff), expected);
}

TEST_F(AddressSpacesTest, FlushKeepsGlobalEntries) {
  TlbTable& kernel = spaces_->kernelTable();
  kernel.fill(0xffff'8880'0000'0000, page_, true);
  kernel.fill(0xffff'8880'0000'1000, page_, false);
  spaces_->current().user.fill(0x1000, page_, false);
  spaces_->dropCurrent(false);
  EXPECT_NE(kernel.entry(0xffff'8880'0000'0000), 0u);
  EXPECT_EQ(kernel.entry(0xffff'8880'0000'1000), 0u);
  EXPECT_EQ(spaces_->current().user.entry(0x1000), 0u);
  spaces_->dropCurrent(true);
  EXPECT_EQ(kernel.entry(0xffff'8880'0000'0000), 0u);
}

TEST_F(AddressSpacesTest, FlushOfMoreThanTheLogHolds) {
  TlbTable& kernel = spaces_->kernelTable();
  for (std::uint64_t i = 0; i < TlbTable::kLogCapacity; ++i)
    kernel.fill(0xffff'8880'0000'0000 + i * 4096, page_, false);
  kernel.dropAll(false);
  for (std::uint64_t i = 0; i < TlbTable::kLogCapacity; ++i)
    ASSERT_EQ(kernel.entry(0xffff'8880'0000'0000 + i * 4096), 0u);
  // The other view of the same memory is empty, too.
  EXPECT_EQ(
      reinterpret_cast<const std::uint64_t*>(spaces_->current().gsBase())[0xffff'8880'0000'0000 >> 12 & 0xf'ffff'ffff],
      0u);
}

TEST_F(AddressSpacesTest, PartsOfLargePagesGoTogether) {
  TlbTable& user = spaces_->current().user;
  user.fill(0x4020'0000, page_, false, 2_MiB);
  user.fill(0x403f'f000, page_, false, 2_MiB);
  user.fill(0x4060'0000, page_, false);
  user.drop(0x4030'0000);
  EXPECT_EQ(user.entry(0x4020'0000), 0u);
  EXPECT_EQ(user.entry(0x403f'f000), 0u);
  EXPECT_NE(user.entry(0x4060'0000), 0u);
  TlbTable& kernel = spaces_->kernelTable();
  kernel.fill(0xffff'8880'0000'0000, page_, true, 1_GiB);
  kernel.fill(0xffff'c900'0000'0000, page_, false);
  kernel.drop(0xffff'c900'0000'1000);
  EXPECT_NE(kernel.entry(0xffff'8880'0000'0000), 0u);
  kernel.drop(0xffff'8880'3fff'f000);
  EXPECT_EQ(kernel.entry(0xffff'8880'0000'0000), 0u);
}

TEST_F(AddressSpacesTest, CodeOfLargePagesGoesTogether) {
  CodeMap& map = *spaces_->code(ExecMode::kernel);
  ASSERT_TRUE(map.insert(0xffff'ffff'8100'0000, 0x6000'0000'0000, true, 2_MiB));
  ASSERT_TRUE(map.insert(0xffff'ffff'a000'0000, 0x6000'0001'0000, true));
  EXPECT_FALSE(map.dropPage(0xffff'ffff'a000'1000));
  EXPECT_TRUE(map.dropPage(0xffff'ffff'811f'f000));
  EXPECT_EQ(map.find(0xffff'ffff'8100'0000), 0u);
  EXPECT_NE(map.find(0xffff'ffff'a000'0000), 0u);
}

TEST_F(AddressSpacesTest, SpacesKeepTheirEntriesAndAreRecycled) {
  spaces_->current().user.fill(0x1000, page_, false);
  ASSERT_TRUE(spaces_->switchTo(7));
  EXPECT_EQ(spaces_->current().user.entry(0x1000), 0u);
  ASSERT_TRUE(spaces_->switchTo(0));
  EXPECT_NE(spaces_->current().user.entry(0x1000), 0u);
  for (std::uint16_t pcid = 1; pcid < 7; ++pcid) ASSERT_TRUE(spaces_->switchTo(pcid));
  ASSERT_TRUE(spaces_->switchTo(0));  // was the least recently used of four
  EXPECT_EQ(spaces_->current().user.entry(0x1000), 0u);
}

TEST_F(AddressSpacesTest, SupervisorPagesGoBeforeUserCode) {
  for (std::uint64_t i = 1; i <= 2 * AddressSpace::kSupervisorPages; i += AddressSpace::kSupervisorPages - 1) {
    spaces_->current().user.fill(0x1000, page_, false);
    for (std::uint64_t n = 0; n < i; ++n) {
      spaces_->current().user.fill((n + 16) << 12, page_, false);
      spaces_->noteSupervisorPage((n + 16) << 12);
    }
    spaces_->dropSupervisorPages();
    for (std::uint64_t n = 0; n < i; ++n) EXPECT_EQ(spaces_->current().user.entry((n + 16) << 12), 0u);
  }
}

/// What translated code computes for an indirect branch, up to the load of the entry.
std::uint64_t entryAddress(std::uint64_t top, unsigned bits, std::uint64_t target) {
  std::uint64_t index = target >> 12 & ((std::uint64_t{1} << bits) - 1);
  std::uint64_t word = *reinterpret_cast<const std::uint64_t*>(top + ~index * 8);
  return word + kEntryStride * target;
}

TEST_F(AddressSpacesTest, CodeMapLeadsToTheEntryTable) {
  auto top = reinterpret_cast<std::uint64_t>(spaces_->cpuMemory()) +
             static_cast<std::uint64_t>(std::int64_t{layout::kernelCodeTop});
  CodeMap& map = *spaces_->code(ExecMode::kernel);
  constexpr std::uint64_t table = 0x6000'0000'0000;
  constexpr std::uint64_t page = 0xffff'ffff'8123'4000;
  EXPECT_EQ(map.find(page), 0u);
  ASSERT_TRUE(map.insert(page + 0x123, table, true));
  EXPECT_EQ(CodeMap::tableOf(map.find(page + 0x456), page + 0x456), table);
  EXPECT_EQ(entryAddress(top, 36, page + 0xabc), table + kEntryStride * 0xabc);
  EXPECT_EQ(entryAddress(top, 36, page + 0x1004), kMissTable + kEntryStride * 4);  // its neighbour
  ASSERT_TRUE(map.insert(0x1000, table, false));                                   // the lower half, too
  EXPECT_EQ(entryAddress(top, 36, 0x1010), table + kEntryStride * 0x10);
  map.dropAll(false);
  EXPECT_EQ(map.find(0x1000), 0u);
  EXPECT_NE(map.find(page), 0u);
  EXPECT_TRUE(map.dropPage(page + 5));
  EXPECT_FALSE(map.dropPage(page));
  EXPECT_EQ(entryAddress(top, 36, page + 0xabc), kMissTable + kEntryStride * 0xabc);
}

TEST_F(AddressSpacesTest, WrongHighBitsNeverReachAnEntryTable) {
  std::uint64_t top = spaces_->current().gsBase() + static_cast<std::uint64_t>(std::int64_t{layout::user64CodeTop});
  CodeMap& map = *spaces_->code(ExecMode::user64);
  ASSERT_TRUE(map.insert(0x40'0000, 0x6000'0000'0000, false));
  EXPECT_EQ(entryAddress(top, 35, 0x40'0010), 0x6000'0000'0000 + kEntryStride * 0x10);
  for (unsigned bit = 47; bit < 64; ++bit) {
    for (unsigned other = bit; other < 64; ++other) {
      std::uint64_t wrong = 0x40'0010 | std::uint64_t{1} << bit | std::uint64_t{1} << other;
      std::uint64_t reached = entryAddress(top, 35, wrong);
      EXPECT_NE(reached >> 47, 0u) << std::hex << wrong;  // not canonical, or the host kernel's: the load faults
    }
  }
}

TEST_F(AddressSpacesTest, CodeMapRecyclesItsChunks) {
  CodeMap& map = *spaces_->code(ExecMode::user64);
  for (std::uint64_t i = 0; i < 1000; ++i) ASSERT_TRUE(map.insert(i << 23, 0x6000'0000'0000, false));
  EXPECT_NE(map.find(std::uint64_t{999} << 23), 0u);
  map.dropAll(true);
  for (std::uint64_t i = 0; i < 1000; ++i) ASSERT_EQ(map.find(i << 23), 0u);
}

// What the machine's processes left behind in an address space does not pile up.
TEST_F(AddressSpacesTest, CodeMapGivesMemoryBack) {
  CodeMap& map = *spaces_->code(ExecMode::user64);
  std::uint64_t top = spaces_->current().gsBase() + static_cast<std::uint64_t>(std::int64_t{layout::user64CodeTop});
  auto residentChunks = [&](std::uint64_t count) {
    std::uint64_t resident = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
      unsigned char state = 0;
      std::uint64_t word = top - 8 - (i << 11) * 8;  // of the first page of chunk i
      EXPECT_EQ(::mincore(reinterpret_cast<void*>(word & ~kPageMask), 1, &state), 0);
      resident += state & 1;
    }
    return resident;
  };
  for (std::uint64_t i = 0; i < 20; ++i) ASSERT_TRUE(map.insert(i << 23, 0x6000'0000'0000, false));
  map.dropAll(true);
  EXPECT_EQ(residentChunks(20), 20u) << "few are kept for the next process";
  for (std::uint64_t i = 0; i < 100; ++i) ASSERT_TRUE(map.insert(i << 23, 0x6000'0000'0000, false));
  EXPECT_EQ(residentChunks(100), 100u);
  map.dropAll(true);
  EXPECT_EQ(residentChunks(100), 0u);
  EXPECT_EQ(map.find(0), 0u);
  ASSERT_TRUE(map.insert(0, 0x6000'0000'0000, false));
  EXPECT_NE(map.find(0), 0u);
  spaces_->releaseMemory();
  EXPECT_EQ(residentChunks(1), 0u);
  EXPECT_EQ(map.find(0), 0u);
}

TEST_F(AddressSpacesTest, SoftTlbsOfAllProcessesGiveMemoryBack) {
  auto isResident = [](std::uint64_t at) {
    unsigned char state = 0;
    EXPECT_EQ(::mincore(reinterpret_cast<void*>(at & ~kPageMask), 1, &state), 0);
    return (state & 1) != 0;
  };
  constexpr std::uint64_t kLinear = 0x7f00'0000'0000;
  std::vector<std::uint64_t> bases;
  for (std::uint16_t pcid : {1, 2}) {
    ASSERT_TRUE(spaces_->switchTo(pcid));
    spaces_->current().user.fill(kLinear, page_, false);
    bases.push_back(spaces_->current().gsBase());
  }
  for (std::uint64_t base : bases) {
    EXPECT_TRUE(isResident(base + TlbTable::indexOf(kLinear) * 8));
    EXPECT_TRUE(isResident(base - kTableHeaderBytes)) << "the log";
  }
  spaces_->releaseMemory();
  for (std::uint64_t base : bases) {
    EXPECT_FALSE(isResident(base + TlbTable::indexOf(kLinear) * 8));
    EXPECT_FALSE(isResident(base - kTableHeaderBytes));
    const auto& header = *reinterpret_cast<const TableHeader*>(base - kTableHeaderBytes);
    EXPECT_EQ(header.returns[0].hosts[0], missTable) << "return caches lead to the miss thunk";
  }
  EXPECT_EQ(spaces_->current().user.entry(kLinear), 0u);
  spaces_->current().user.fill(kLinear, page_, false);
  EXPECT_EQ(spaces_->current().user.entry(kLinear), hostPage() - kLinear + kTlbValid);
  spaces_->current().user.dropAll(true);
  EXPECT_EQ(spaces_->current().user.entry(kLinear), 0u) << "what was entered after it is in the log";
}

}  // namespace
}  // namespace lodge::translate
