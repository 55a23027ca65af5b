// SPDX-License-Identifier: Apache-2.0
#include "x86/tsc_scale.h"

#include <gtest/gtest.h>

#include <random>

namespace lodge::x86 {
namespace {

using Wide = unsigned __int128;

TEST(TscScale, RatesThatAreNearAreTheSame) {
  EXPECT_TRUE(TscScale().isIdentity());
  EXPECT_TRUE(TscScale::between(2'500'000'000, 2'500'000'000).isIdentity());
  EXPECT_TRUE(TscScale::between(2'500'600'000, 2'500'000'000).isIdentity()) << "240 parts in a million";
  EXPECT_TRUE(TscScale::between(2'499'400'000, 2'500'000'000).isIdentity());
  EXPECT_FALSE(TscScale::between(2'500'700'000, 2'500'000'000).isIdentity()) << "280";
  EXPECT_FALSE(TscScale::between(2'499'300'000, 2'500'000'000).isIdentity());
  EXPECT_TRUE(TscScale::between(0, 2'500'000'000).isIdentity()) << "not known";
  EXPECT_TRUE(TscScale::between(2'500'000'000, 0).isIdentity());
  EXPECT_EQ(TscScale()(~std::uint64_t{0}), ~std::uint64_t{0});
}

TEST(TscScale, CountsAreExactToATickInAMonth) {
  std::mt19937_64 random(1);
  for (int n = 0; n < 20000; ++n) {
    std::uint64_t guest = 100'000'000 + random() % 25'000'000'000, host = 1'000'000 + random() % 10'000'000'000;
    TscScale scale = TscScale::between(guest, host);
    if (scale.isIdentity()) continue;
    // The factor is the quotient to half its last bit.
    Wide wrong = Wide{scale.ratio()} * host, right = Wide{guest} << TscScale::kFractionBits;
    EXPECT_LE(wrong > right ? wrong - right : right - wrong, host / 2 + 1);
    // A month of the host's: the product as long division has it, in two halves.
    std::uint64_t ticks = random() % (host * 86400 * 30);
    std::uint64_t high = ticks >> 32, low = ticks & 0xffff'ffff;
    Wide upper = Wide{high} * scale.ratio(), lower = Wide{low} * scale.ratio();
    auto product = static_cast<std::uint64_t>(((upper << 32) + lower) >> TscScale::kFractionBits);
    EXPECT_EQ(scale(ticks), product);
    double seconds = static_cast<double>(ticks) / static_cast<double>(host);
    EXPECT_NEAR(static_cast<double>(scale(ticks)) / static_cast<double>(guest), seconds, 1e-6 + seconds * 1e-6);
  }
}

TEST(TscScale, NeverGoesBack) {
  for (auto [guest, host] :
       {std::pair{1'250'000'000ull, 2'500'000'000ull}, std::pair{4'250'000'000ull, 2'500'000'000ull},
        std::pair{2'399'998'765ull, 3'000'000'123ull}, std::pair{100'000'000ull, 6'000'000'000ull}}) {
    TscScale scale = TscScale::between(guest, host);
    for (std::uint64_t start :
         {std::uint64_t{0}, std::uint64_t{1} << 32, (std::uint64_t{1} << 53) - 500, (std::uint64_t{1} << 61) - 500}) {
      std::uint64_t before = scale(start);
      for (std::uint64_t at = start; at < start + 1000; ++at) {
        std::uint64_t now = scale(at);
        EXPECT_GE(now, before);
        EXPECT_LE(now - before, guest / host + 1);
        before = now;
      }
    }
  }
}

TEST(TscScale, IsModulo2To64AtTheEnd) {
  TscScale twice = TscScale::between(5'000'000'000, 2'500'000'000);
  EXPECT_EQ(twice.ratio(), 2 * TscScale::kOne);
  EXPECT_EQ(twice((std::uint64_t{1} << 63) + 5), 10u);
  TscScale half = TscScale::between(1'250'000'000, 2'500'000'000);
  EXPECT_EQ(half(~std::uint64_t{0}), ~std::uint64_t{0} >> 1);
}

}  // namespace
}  // namespace lodge::x86
