// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/written_pages.h"

#include <gtest/gtest.h>

namespace lodge::translate {
namespace {

constexpr std::uint64_t kLong = 1'000'000'000;

/// How many stores are borne until the page's code is to be dropped.
unsigned storesUntilDropped(WrittenPages& pages, std::uint64_t ramPage, std::uint64_t now) {
  for (unsigned n = 1; n < 100'000; ++n) {
    if (pages.note(ramPage, now)) return n;
  }
  return 0;
}

TEST(WrittenPagesTest, CodeThatIsRunAgainAtOnceIsKeptLonger) {
  WrittenPages pages;
  unsigned first = storesUntilDropped(pages, 5, kLong);
  EXPECT_GT(first, 1u);
  EXPECT_EQ(storesUntilDropped(pages, 5, kLong + 1000), first);
  EXPECT_EQ(storesUntilDropped(pages, 5, kLong + 2000), 2 * first);
  EXPECT_EQ(storesUntilDropped(pages, 5, kLong + 3000), 4 * first);
  unsigned last = 0;
  for (unsigned n = 0; n < 20; ++n) last = storesUntilDropped(pages, 5, kLong + 4000);
  EXPECT_GT(last, 0u);  // there is a bound
  storesUntilDropped(pages, 5, 3 * kLong);
  EXPECT_EQ(storesUntilDropped(pages, 5, 5 * kLong), first);
}

TEST(WrittenPagesTest, PagesAreCountedByThemselves) {
  WrittenPages pages;
  unsigned first = storesUntilDropped(pages, 1, kLong);
  for (unsigned n = 1; n < first; ++n) {
    EXPECT_FALSE(pages.note(7, kLong));
    EXPECT_FALSE(pages.note(8, kLong));
  }
  EXPECT_TRUE(pages.note(7, kLong));
  EXPECT_TRUE(pages.note(8, kLong));
}

}  // namespace
}  // namespace lodge::translate
