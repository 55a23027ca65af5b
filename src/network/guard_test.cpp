// SPDX-License-Identifier: Apache-2.0
#include "network/guard.h"

#include <gtest/gtest.h>

#include "base/fake_clock.h"

namespace lodge::network {
namespace {

constexpr Nanoseconds kSecond = kNanosecondsPerSecond;

IpAddress ip(unsigned n) {
  return IpAddress::v4From(0x0a010000 + n);
}

class AddressBookTest : public testing::Test {
 protected:
  FakeClock clock;
  AddressBook book{clock};
};

TEST_F(AddressBookTest, AnAddressIsTheFirstUsersUntilItIsQuiet) {
  EXPECT_TRUE(book.use(ip(1), 1));
  EXPECT_FALSE(book.use(ip(1), 2));
  EXPECT_TRUE(book.usedByOther(ip(1), 2));
  EXPECT_FALSE(book.usedByOther(ip(1), 1));
  EXPECT_FALSE(book.usedByOther(ip(2), 2)) << "nobody uses it";
  clock.advance(599 * kSecond);
  EXPECT_TRUE(book.use(ip(1), 1)) << "not quiet any more";
  clock.advance(599 * kSecond);
  EXPECT_FALSE(book.use(ip(1), 2));
  clock.advance(kSecond);
  EXPECT_FALSE(book.usedByOther(ip(1), 2));
  EXPECT_TRUE(book.use(ip(1), 2));
  EXPECT_FALSE(book.use(ip(1), 1));
}

TEST_F(AddressBookTest, WhatIsGivenIsNobodyElsesAndNotUse) {
  EXPECT_TRUE(book.use(ip(1), 1));
  book.assign(ip(1), 2);
  EXPECT_FALSE(book.use(ip(1), 1));
  EXPECT_FALSE(book.usedByOther(ip(1), 3)) << "who may have it is for the giver to say";
  clock.advance(3600 * kSecond);
  EXPECT_FALSE(book.use(ip(1), 1)) << "for good";
  book.assign(ip(2), 0);
  EXPECT_EQ(book.ownerOf(ip(2)), PortId{0});
  book.remove(2);
  EXPECT_TRUE(book.use(ip(1), 1));
}

TEST_F(AddressBookTest, APortHasSoManyThatNobodyGaveIt) {
  for (unsigned n = 0; n < 64; ++n) EXPECT_TRUE(book.use(ip(n), 1)) << n;
  EXPECT_FALSE(book.use(ip(64), 1));
  EXPECT_TRUE(book.use(ip(64), 2)) << "the others' are their own";
  book.assign(ip(5), 1);
  EXPECT_TRUE(book.use(ip(65), 1)) << "one was given to it";
  EXPECT_FALSE(book.use(ip(66), 1));
  clock.advance(10 * kSecond);
  for (unsigned n = 1; n < 64; ++n) (void)book.use(ip(n), 1);
  EXPECT_TRUE(book.use(ip(66), 1)) << "instead of one that it does not use now";
  EXPECT_FALSE(book.ownerOf(ip(0)));
  book.remove(1);
  for (unsigned n = 100; n < 164; ++n) EXPECT_TRUE(book.use(ip(n), 1)) << n;
  EXPECT_TRUE(book.addressesOf(2) == std::vector<IpAddress>{ip(64)});
}

}  // namespace
}  // namespace lodge::network
