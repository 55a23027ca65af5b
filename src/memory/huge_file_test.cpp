// SPDX-License-Identifier: Apache-2.0
#include "memory/huge_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "base/units.h"

namespace lodge {
namespace {

constexpr std::size_t kBytes = 6_MiB;

std::uint64_t residentBytes(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 ? static_cast<std::uint64_t>(info.st_blocks) * 512 : 0;
}

bool hostHasHugePages() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
  std::string text;
  return std::getline(file, text) && text.find("[deny]") == std::string::npos;
}

TEST(HugeMemoryFile, ComesInHugePagesWhereTheyAreAskedForOnly) {
  UniqueFd file = makeHugeMemoryFile("test");
  if (!file || !hostHasHugePages()) GTEST_SKIP() << "this process may not mount, or the host has no huge pages or KVM";
  EXPECT_EQ(::fcntl(file.get(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  ASSERT_EQ(::ftruncate(file.get(), kBytes), 0);
  auto* area = static_cast<char*>(::mmap(nullptr, kBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  auto at = (reinterpret_cast<std::uintptr_t>(area) + 2_MiB - 1) & ~(2_MiB - 1);
  char* view = area + (at - reinterpret_cast<std::uintptr_t>(area));
  ASSERT_NE(::mmap(view, 4_MiB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file.get(), 0), MAP_FAILED);
  view[0] = 1;
  EXPECT_EQ(residentBytes(file.get()), 4096u);
  ASSERT_EQ(::madvise(view, 4_MiB, MADV_HUGEPAGE), 0);
  view[2_MiB + 5] = 2;
  EXPECT_EQ(residentBytes(file.get()), 4096u + 2_MiB);
  std::ifstream maps("/proc/self/maps");
  std::string text(std::istreambuf_iterator<char>(maps), {});
  EXPECT_NE(text.find("/memfd:test (deleted)"), std::string::npos);
  ::munmap(area, kBytes);
}

}  // namespace
}  // namespace lodge
