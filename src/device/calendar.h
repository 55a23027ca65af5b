// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lodge {

/// A civil date and time of day, as a clock chip counts it.
struct CivilTime {
  std::int64_t year;    ///< 1970...
  unsigned month, day;  ///< from 1
  unsigned weekday;     ///< 0 is Sunday
  unsigned hour, minute, second;
};

/// Seconds since 1970-01-01 00:00 (UTC, without leap seconds) to the proleptic Gregorian calendar.
CivilTime civilFromSeconds(std::int64_t seconds);
/// The inverse. Fields out of range carry over into the next larger one; the weekday is not looked at.
std::int64_t secondsFromCivil(const CivilTime& time);

}  // namespace lodge
