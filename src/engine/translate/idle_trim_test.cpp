// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/idle_trim.h"

#include <gtest/gtest.h>

namespace lodge::translate {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
std::uint64_t used = 0;

bool idleAt(IdleTrim& trim, std::uint64_t now, std::uint64_t processorTime) {
  used = processorTime;
  return trim.isIdle(now, [] { return used; });
}

TEST(IdleTrim, WaitsForAWholeWindow) {
  IdleTrim trim;
  EXPECT_FALSE(idleAt(trim, 100 * kSecond, 7 * kSecond));  // the first one begins
  EXPECT_FALSE(idleAt(trim, 102 * kSecond, 7 * kSecond));
  EXPECT_TRUE(idleAt(trim, 103 * kSecond, 7 * kSecond));
  EXPECT_FALSE(idleAt(trim, 104 * kSecond, 7 * kSecond));
  EXPECT_TRUE(idleAt(trim, 133 * kSecond, 7 * kSecond + kSecond / 2));  // a sleep of half a minute
}

TEST(IdleTrim, ABusyWindowIsNotIdle) {
  IdleTrim trim;
  EXPECT_FALSE(idleAt(trim, 100 * kSecond, 0));
  EXPECT_FALSE(idleAt(trim, 103 * kSecond, kSecond / 10));  // more than a 50th of 3 s
  EXPECT_TRUE(idleAt(trim, 106 * kSecond, kSecond / 10 + kSecond / 50));
}

TEST(IdleTrim, TrimsAreFarBetween) {
  IdleTrim trim;
  EXPECT_FALSE(idleAt(trim, 100 * kSecond, 0));
  EXPECT_TRUE(idleAt(trim, 103 * kSecond, 0));
  trim.noteTrim(103 * kSecond);
  EXPECT_FALSE(idleAt(trim, 122 * kSecond, 0));
  EXPECT_TRUE(idleAt(trim, 123 * kSecond, 0));
}

}  // namespace
}  // namespace lodge::translate
