// SPDX-License-Identifier: Apache-2.0
#include "image/randomness.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace lodge::image {

namespace {

constexpr std::size_t kLeast = 4096, kMost = 128 << 10;

/// By the chi-square test: of random bytes the statistic is 255 with a standard deviation of 23, whatever their number.
bool isFlat(std::span<const std::byte> bytes) {
  constexpr double kLimit = 400;
  // Four tables: one counter that is raised twice in a row would wait for itself.
  std::array<std::array<std::uint32_t, 256>, 4> counts{};
  std::size_t whole = bytes.size() & ~std::size_t{3};
  for (std::size_t i = 0; i < whole; i += 4) {
    for (std::size_t table = 0; table < 4; ++table) ++counts[table][std::to_integer<std::size_t>(bytes[i + table])];
  }
  double expected = static_cast<double>(whole) / 256, statistic = 0;
  for (std::size_t value = 0; value < 256; ++value) {
    double off = counts[0][value] + counts[1][value] + counts[2][value] + counts[3][value] - expected;
    statistic += off * off / expected;
  }
  return statistic < kLimit;
}

std::uint64_t wordAt(std::span<const std::byte> bytes, std::size_t at) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes.data() + at, sizeof(word));
  return word;
}

/// Every sixteenth word is kept in a table (where another has its place, it goes); of each half kilobyte, the words at
/// sixteen places in a row are looked up.
bool repeatsItself(std::span<const std::byte> bytes) {
  constexpr std::size_t kStep = 16, kWindow = 512;
  constexpr unsigned kBits = 15;
  std::array<std::uint16_t, std::size_t{1} << kBits> places{};
  auto placeOf = [&places](std::uint64_t word) -> std::uint16_t& {
    return places[word * 0x9e3779b97f4a7c15u >> (64 - kBits)];
  };
  for (std::size_t window = 0; window + kWindow + sizeof(std::uint64_t) <= bytes.size(); window += kWindow) {
    // Only what lies before: a stretch that is said twice is found where it comes again.
    for (std::size_t at = window; at < window + kStep; ++at) {
      std::uint64_t word = wordAt(bytes, at);
      std::size_t place = placeOf(word);
      if (place != 0 && wordAt(bytes, (place - 1) * kStep) == word) return true;
    }
    for (std::size_t at = window; at < window + kWindow; at += kStep)
      placeOf(wordAt(bytes, at)) = static_cast<std::uint16_t>(at / kStep + 1);
  }
  return false;
}

}  // namespace

bool looksRandom(std::span<const std::byte> bytes) {
  if (bytes.size() < kLeast) return false;
  bytes = bytes.first(std::min(bytes.size(), kMost));
  return isFlat(bytes) && !repeatsItself(bytes);
}

}  // namespace lodge::image
