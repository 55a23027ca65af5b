// SPDX-License-Identifier: Apache-2.0
// The fuzz driver's hostile guest with plain random bytes; LODGE_RANDOM_GUESTS sets how many.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "x86/system_fuzz.h"

namespace lodge::x86 {
namespace {

TEST(RandomGuests, breakNothing) {
  const char* wanted = std::getenv("LODGE_RANDOM_GUESTS");
  unsigned count = wanted ? static_cast<unsigned>(std::atoi(wanted)) : 3000;
  SystemFuzzer fuzzer;
  std::mt19937_64 random(2026);
  std::vector<std::uint8_t> bytes(1200);
  for (unsigned i = 0; i < count; ++i) {
    for (std::uint8_t& b : bytes) b = static_cast<std::uint8_t>(random());
    fuzzer.run(bytes.data(), bytes.size());
  }
}

}  // namespace
}  // namespace lodge::x86
