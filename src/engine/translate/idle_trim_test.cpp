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
  EXPECT_FALSE(idleAt(trim, 119 * kSecond, 7 * kSecond));
  EXPECT_TRUE(idleAt(trim, 120 * kSecond, 7 * kSecond));
  EXPECT_FALSE(idleAt(trim, 121 * kSecond, 7 * kSecond));
  EXPECT_TRUE(idleAt(trim, 170 * kSecond, 7 * kSecond + kSecond / 2));
}

TEST(IdleTrim, ABusyWindowIsNotIdle) {
  IdleTrim trim;
  EXPECT_FALSE(idleAt(trim, 100 * kSecond, 0));
  EXPECT_FALSE(idleAt(trim, 120 * kSecond, kSecond / 2));  // more than a 50th of 20 s
  EXPECT_TRUE(idleAt(trim, 140 * kSecond, kSecond / 2 + kSecond / 10));
}

}  // namespace
}  // namespace lodge::translate
