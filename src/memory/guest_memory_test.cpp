// SPDX-License-Identifier: Apache-2.0
#include "memory/guest_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace lodge {
namespace {

class Writes : public CodeWriteObserver {
 public:
  void guestCodeWritten(std::uint64_t offset, std::uint64_t length) override { seen.emplace_back(offset, length); }
  std::vector<std::pair<std::uint64_t, std::uint64_t>> seen;
};

std::vector<std::byte> pattern(std::size_t length) {
  std::vector<std::byte> bytes(length);
  for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(i * 7 + (i >> 8) + 1);
  return bytes;
}

TEST(GuestMemory, LargeWritesReachEveryViewAndLeaveTheirNeighboursAlone) {
  auto memory = std::move(*GuestMemory::create(16_MiB));
  ASSERT_TRUE(memory->fill(Gpa{1_MiB}, std::byte{0xee}, 1_MiB));
  std::vector<std::byte> bytes = pattern(300'001);
  // Over pages that were touched before and ones that were not, from and to the middle of a page.
  std::uint64_t at = 2_MiB - 100'003;
  ASSERT_TRUE(memory->write(Gpa{at}, bytes));
  for (const std::byte* view : {memory->cpuRw(), memory->cpuRo(), memory->deviceView()}) {
    EXPECT_EQ(std::memcmp(view + at, bytes.data(), bytes.size()), 0);
    EXPECT_EQ(view[at - 1], std::byte{0xee});
    EXPECT_EQ(view[at + bytes.size()], std::byte{0});
  }
  std::vector<std::byte> back(bytes.size());
  ASSERT_TRUE(memory->read(Gpa{at}, back));
  EXPECT_EQ(back, bytes);
}

TEST(GuestMemory, LargeWritesTellOfCode) {
  auto memory = std::move(*GuestMemory::create(16_MiB));
  Writes writes;
  memory->setCodeWriteObserver(&writes);
  std::vector<std::byte> bytes = pattern(128_KiB);
  ASSERT_TRUE(memory->write(Gpa{1_MiB}, bytes));
  EXPECT_TRUE(writes.seen.empty());
  memory->codePages()[(1_MiB + 100_KiB) >> 12] = 1;
  ASSERT_TRUE(memory->write(Gpa{1_MiB}, bytes));
  ASSERT_EQ(writes.seen.size(), 1u);
  EXPECT_EQ(writes.seen[0], std::make_pair(std::uint64_t{1_MiB}, std::uint64_t{128_KiB}));
}

TEST(GuestMemory, AWriteOverTheEndIsRefused) {
  auto memory = std::move(*GuestMemory::create(1_MiB));
  std::vector<std::byte> bytes = pattern(128_KiB);
  EXPECT_FALSE(memory->write(Gpa{1_MiB - 64_KiB}, bytes));
  EXPECT_TRUE(memory->write(Gpa{1_MiB - 128_KiB}, bytes));
}

}  // namespace
}  // namespace lodge
