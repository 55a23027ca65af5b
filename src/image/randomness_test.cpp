// SPDX-License-Identifier: Apache-2.0
#include "image/randomness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

namespace lodge::image {
namespace {

std::vector<std::byte> randomBytes(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

TEST(Randomness, RandomBytesLookRandom) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    EXPECT_TRUE(looksRandom(randomBytes(65536, seed))) << seed;
    EXPECT_TRUE(looksRandom(randomBytes(4096, seed))) << seed;
  }
}

TEST(Randomness, TextDoesNot) {
  std::vector<std::byte> bytes(65536);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>("some words, said again "[i % 23]);
  EXPECT_FALSE(looksRandom(bytes));
}

TEST(Randomness, ARareSkewIsSeen) {
  // One byte in sixteen is zero: a good compressor gains by that.
  auto bytes = randomBytes(65536, 3);
  for (std::size_t i = 0; i < bytes.size(); i += 16) bytes[i] = std::byte{0};
  EXPECT_FALSE(looksRandom(bytes));
}

TEST(Randomness, RandomBytesThatComeAgainDoNot) {
  for (std::size_t distance : {2048u, 5003u, 32768u, 40001u}) {
    auto bytes = randomBytes(65536, distance);
    std::copy_n(bytes.begin() + 700, 2048, bytes.begin() + 700 + static_cast<std::ptrdiff_t>(distance));
    EXPECT_FALSE(looksRandom(bytes)) << distance;
  }
}

TEST(Randomness, CountingDoesNot) {
  // As flat as can be, and all repetition.
  std::vector<std::byte> bytes(65536);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  EXPECT_FALSE(looksRandom(bytes));
}

TEST(Randomness, ShortOnesDoNot) {
  EXPECT_FALSE(looksRandom(randomBytes(4095, 1)));
  EXPECT_FALSE(looksRandom({}));
}

}  // namespace
}  // namespace lodge::image
