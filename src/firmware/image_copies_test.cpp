// SPDX-License-Identifier: Apache-2.0
#include "firmware/image_copies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "base/units.h"

namespace lodge::firmware {
namespace {

std::vector<std::byte> pattern(std::size_t length, unsigned seed) {
  std::vector<std::byte> bytes(length);
  for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(i * 13 + (i >> 12) + seed);
  return bytes;
}

struct ImageCopiesTest : testing::Test {
  std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(64_MiB));
  std::vector<std::byte> first = pattern(9'000'001, 1), second = pattern(3'000, 2);
  std::shared_ptr<const ImageFile> a = ImageFile::fromBytes("a", first), b = ImageFile::fromBytes("b", second);

  bool has(const std::vector<std::byte>& bytes, std::uint64_t from, std::uint64_t at) const {
    return std::memcmp(memory->cpuRo() + at, bytes.data() + from, bytes.size() - from) == 0;
  }
};

TEST_F(ImageCopiesTest, AllOfItIsThereAtTheEnd) {
  for (bool withThread : {true, false}) {
    ASSERT_TRUE(memory->fill(Gpa{0}, std::byte{0}, 64_MiB));
    ImageCopies copies;
    copies.add(*a, 1000, first.size() - 1000, *memory, Gpa{1_MiB + 5});
    copies.add(*b, 0, second.size(), *memory, Gpa{40_MiB});
    if (withThread) copies.begin();
    ASSERT_TRUE(copies.finish());
    EXPECT_TRUE(has(first, 1000, 1_MiB + 5));
    EXPECT_TRUE(has(second, 0, 40_MiB));
    EXPECT_EQ(memory->cpuRo()[1_MiB + 4], std::byte{0});
    EXPECT_EQ(memory->cpuRo()[1_MiB + 5 + first.size() - 1000], std::byte{0});
    EXPECT_TRUE(copies.finish()) << "nothing is left";
  }
}

TEST_F(ImageCopiesTest, AnErrorOfEitherThreadIsReturned) {
  for (int round = 0; round < 50; ++round) {
    ImageCopies copies;
    copies.add(*a, 0, first.size(), *memory, Gpa{1_MiB});
    copies.add(*b, 0, second.size() + 1, *memory, Gpa{40_MiB});
    copies.begin();
    Status done = copies.finish();
    ASSERT_FALSE(done);
    EXPECT_THAT(done.error().message(), testing::HasSubstr("'b' is truncated"));
  }
}

TEST_F(ImageCopiesTest, NobodyNeedsToWait) {
  ImageCopies copies;
  copies.add(*a, 0, first.size(), *memory, Gpa{1_MiB});
  copies.begin();
}

}  // namespace
}  // namespace lodge::firmware
