// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>

namespace lodge {

inline constexpr std::uint64_t operator""_KiB(unsigned long long n) {
  return n << 10;
}
inline constexpr std::uint64_t operator""_MiB(unsigned long long n) {
  return n << 20;
}
inline constexpr std::uint64_t operator""_GiB(unsigned long long n) {
  return n << 30;
}
inline constexpr std::uint64_t operator""_TiB(unsigned long long n) {
  return n << 40;
}

/// Nanoseconds, of a point on a clock or of a span.
using Nanoseconds = std::int64_t;
inline constexpr Nanoseconds kNanosecondsPerSecond = 1'000'000'000;

/// A guest-physical address in bytes.
enum class Gpa : std::uint64_t {};
inline constexpr std::uint64_t raw(Gpa a) {
  return static_cast<std::uint64_t>(a);
}
inline constexpr Gpa operator+(Gpa a, std::uint64_t n) {
  return Gpa{raw(a) + n};
}

/// A guest-virtual (linear, in the SDM's word) address in bytes.
enum class Gva : std::uint64_t {};
inline constexpr std::uint64_t raw(Gva a) {
  return static_cast<std::uint64_t>(a);
}
inline constexpr Gva operator+(Gva a, std::uint64_t n) {
  return Gva{raw(a) + n};
}

inline constexpr std::uint64_t kPageSize = 4096;
inline constexpr std::uint64_t kPageMask = kPageSize - 1;

inline constexpr std::uint64_t alignDown(std::uint64_t value, std::uint64_t alignment) {
  return value & ~(alignment - 1);
}
inline constexpr std::uint64_t alignUp(std::uint64_t value, std::uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace lodge
