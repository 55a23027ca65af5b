// SPDX-License-Identifier: Apache-2.0
#include "memory/huge_window.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "base/memory_file.h"
#include "memory/huge_file.h"

namespace lodge {
namespace {

constexpr std::uint64_t kFileBytes = 8_MiB;

std::vector<std::byte> partOf(int fd, std::uint64_t offset) {
  std::vector<std::byte> bytes(HugeWindow::kBytes);
  EXPECT_EQ(::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset)), static_cast<ssize_t>(bytes.size()));
  return bytes;
}

TEST(HugeWindow, WhatIsWrittenThroughItIsInTheFile) {
  UniqueFd file = makeHugeMemoryFile("test");
  if (!file) GTEST_SKIP() << "this process may not mount, or the host has no huge pages or KVM";
  ASSERT_EQ(::ftruncate(file.get(), kFileBytes), 0);
  HugeWindow window;
  for (std::uint64_t offset : {4_MiB, 0_MiB, 6_MiB}) {
    std::span<std::byte> part = window.at(file.get(), offset);
    if (part.empty()) GTEST_SKIP() << "the host gives no huge page now";
    ASSERT_EQ(part.size(), HugeWindow::kBytes);
    std::memset(part.data(), static_cast<int>(1 + offset / 1_MiB), part.size());
  }
  for (std::uint64_t offset = 0; offset < kFileBytes; offset += HugeWindow::kBytes) {
    auto value = offset == 2_MiB ? std::byte{0} : static_cast<std::byte>(1 + offset / 1_MiB);
    EXPECT_EQ(partOf(file.get(), offset), std::vector<std::byte>(HugeWindow::kBytes, value)) << offset;
  }
}

TEST(HugeWindow, AFileItCannotShowIsNotTriedAgain) {
  UniqueFd file = makeMemoryFile("test");
  ASSERT_TRUE(file);
  HugeWindow window;
  EXPECT_TRUE(window.at(-1, 0).empty());
  ASSERT_EQ(::ftruncate(file.get(), kFileBytes), 0);
  EXPECT_TRUE(window.at(file.get(), 0).empty());
  struct stat info {};
  ASSERT_EQ(::fstat(file.get(), &info), 0);
  EXPECT_EQ(info.st_blocks, 0) << "nobody has touched it";
}

}  // namespace
}  // namespace lodge
