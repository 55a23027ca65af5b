// SPDX-License-Identifier: Apache-2.0
#include "device/calendar.h"

namespace lodge {

namespace {
constexpr std::int64_t kSecondsPerDay = 86400;
constexpr std::int64_t kDaysPerEra = 146097;  // 400 years

std::int64_t floorDivide(std::int64_t a, std::int64_t b) {
  return a / b - (a % b < 0 ? 1 : 0);
}

bool isLeap(std::int64_t year) {
  return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/// Days before the first of each month in a year that is not a leap year.
constexpr std::int64_t kDaysBefore[12] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};

std::int64_t daysBeforeYear(std::int64_t year) {
  std::int64_t past = year - 1;
  constexpr std::int64_t kEpoch = 719162;  // days before 1970-01-01, counted from 0001-01-01
  return past * 365 + floorDivide(past, 4) - floorDivide(past, 100) + floorDivide(past, 400) - kEpoch;
}
}  // namespace

CivilTime civilFromSeconds(std::int64_t seconds) {
  std::int64_t days = floorDivide(seconds, kSecondsPerDay);
  auto rest = static_cast<unsigned>(seconds - days * kSecondsPerDay);
  CivilTime t{};
  t.hour = rest / 3600;
  t.minute = rest / 60 % 60;
  t.second = rest % 60;
  t.weekday = static_cast<unsigned>((days % 7 + 11) % 7);  // 1970-01-01 was a Thursday
  t.year = 1970 + floorDivide(days * 400, kDaysPerEra);    // off by one at most
  while (daysBeforeYear(t.year) > days) --t.year;
  while (daysBeforeYear(t.year + 1) <= days) ++t.year;
  std::int64_t dayOfYear = days - daysBeforeYear(t.year);
  auto start = [&](unsigned month) { return kDaysBefore[month - 1] + (month > 2 && isLeap(t.year) ? 1 : 0); };
  t.month = 12;
  while (start(t.month) > dayOfYear) --t.month;
  t.day = static_cast<unsigned>(dayOfYear - start(t.month)) + 1;
  return t;
}

std::int64_t secondsFromCivil(const CivilTime& t) {
  std::int64_t months = t.year * 12 + t.month - 1;
  std::int64_t year = floorDivide(months, 12);
  auto month = static_cast<unsigned>(months - year * 12);
  std::int64_t days = daysBeforeYear(year) + kDaysBefore[month] + (month >= 2 && isLeap(year) ? 1 : 0) + t.day - 1;
  return days * kSecondsPerDay + std::int64_t{t.hour} * 3600 + std::int64_t{t.minute} * 60 + t.second;
}

}  // namespace lodge
