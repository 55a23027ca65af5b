// SPDX-License-Identifier: Apache-2.0
#include "base/program_pages.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdint>

#include "base/file.h"
#include "base/units.h"

namespace lodge {
namespace {

/// Whether the process has the page (proc(5), pagemap's bit 63).
bool hasPage(const volatile std::uint8_t& byte) {
  UniqueFd map(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  std::uint64_t entry = 0;
  auto at = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(&byte) / 4096 * sizeof entry);
  EXPECT_EQ(::pread(map.get(), &entry, sizeof entry, at), static_cast<ssize_t>(sizeof entry));
  return entry >> 63 != 0;
}

TEST(ProgramPages, GoAndComeBack) {
  static constexpr std::array<std::uint8_t, 8_MiB> kConstants = {1, 2, 3};
  static std::uint8_t variable = 0;
  const volatile std::uint8_t& constant = kConstants[4_MiB];
  variable = 7;
  EXPECT_EQ(constant, 0);
  ASSERT_TRUE(hasPage(constant));
  releaseProgramPages();
  EXPECT_FALSE(hasPage(constant));
  EXPECT_EQ(kConstants[2], 3);
  EXPECT_EQ(constant, 0);
  EXPECT_TRUE(hasPage(constant));
  EXPECT_EQ(variable, 7) << "what was written stays";
}

}  // namespace
}  // namespace lodge
