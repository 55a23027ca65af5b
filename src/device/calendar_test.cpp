// SPDX-License-Identifier: Apache-2.0
#include "device/calendar.h"

#include <gtest/gtest.h>

#include <ctime>

namespace lodge {
namespace {

TEST(Calendar, AgreesWithTheCLibrary) {
  for (std::int64_t s = -86400 * 3; s < 8'000'000'000; s += 86400 * 13 + 4567) {
    std::time_t t = s;
    std::tm tm{};
    gmtime_r(&t, &tm);
    CivilTime c = civilFromSeconds(s);
    ASSERT_EQ(c.year, tm.tm_year + 1900) << s;
    ASSERT_EQ(c.month, static_cast<unsigned>(tm.tm_mon + 1)) << s;
    ASSERT_EQ(c.day, static_cast<unsigned>(tm.tm_mday)) << s;
    ASSERT_EQ(c.weekday, static_cast<unsigned>(tm.tm_wday)) << s;
    ASSERT_EQ(c.hour, static_cast<unsigned>(tm.tm_hour)) << s;
    ASSERT_EQ(c.minute, static_cast<unsigned>(tm.tm_min)) << s;
    ASSERT_EQ(c.second, static_cast<unsigned>(tm.tm_sec)) << s;
    ASSERT_EQ(secondsFromCivil(c), s);
  }
  EXPECT_EQ(secondsFromCivil({2024, 14, 0, 0, 25, 61, 61}), secondsFromCivil({2025, 2, 1, 0, 2, 2, 1}));
}

}  // namespace
}  // namespace lodge
