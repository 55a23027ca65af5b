// SPDX-License-Identifier: Apache-2.0
#include "memory/huge_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>

#include "base/units.h"
#include "memory/guest_memory.h"

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

std::uint64_t pagesOfHost(const char* what) {
  std::ifstream file(std::string("/sys/kernel/mm/hugepages/hugepages-2048kB/") + what);
  std::uint64_t pages = 0;
  return file >> pages ? pages : 0;
}

/// What is done in a process of its own, all of whose guest memory is of reserved pages; 0 if it went well.
int inOtherProcess(int (*work)()) {
  pid_t child = ::fork();
  if (child == 0) {
    takeReservedHugePages();
    ::_exit(work());
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(ReservedHugePages, TooFewAreAnErrorWithTheNumbers) {
  if (UniqueFd file = makeReservedHugeFile("test"); !file) GTEST_SKIP() << "the host's kernel has no hugetlbfs";
  int done = inOtherProcess([] {
    std::uint64_t bytes = (pagesOfHost("nr_hugepages") + 100) * kHugePage;
    auto memory = GuestMemory::create(bytes);
    if (memory) return 1;
    if (memory.error().kind() != ErrorKind::outOfMemory) return 2;
    if (!contains(memory.error().message(), "needs " + std::to_string(bytes / kHugePage) + " huge pages of 2M"))
      return 3;
    return contains(memory.error().hint(), "sysctl vm.nr_hugepages=") ? 0 : 4;
  });
  EXPECT_EQ(done, 0);
}

TEST(ReservedHugePages, AreClearedAndNotGivenBack) {
  pid_t child = ::fork();
  if (child == 0) {
    auto memory = GuestMemory::create(2 * kHugePage);  // the same of small pages: hosts have seldom set any aside
    takeReservedHugePages();
    static_cast<void>((*memory)->fill(Gpa{0}, std::byte{0x55}, 2 * kHugePage));
    (*memory)->discard(Gpa{kPageSize}, kHugePage);
    std::byte first{}, last{};
    static_cast<void>((*memory)->readObject(Gpa{kPageSize}, first));
    static_cast<void>((*memory)->readObject(Gpa{kPageSize + kHugePage}, last));
    if (first != std::byte{0} || last != std::byte{0x55}) ::_exit(1);
    ::_exit((*memory)->residentBytes() == 2 * kHugePage ? 0 : 2);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
}

TEST(ReservedHugePages, AreMemoryLikeAnyOther) {
  if (pagesOfHost("free_hugepages") < pagesOfHost("resv_hugepages") + 2)
    GTEST_SKIP() << "the host has set no huge pages aside";
  int done = inOtherProcess([] {
    auto memory = GuestMemory::create(3_MiB, {.rom = 64_KiB});
    if (!memory) return 0;  // somebody else has taken them meanwhile
    std::uint64_t value = 4711, back = 0, seen = 0;
    if (!(*memory)->writeObject(Gpa{3_MiB - 8}, value) || !(*memory)->readObject(Gpa{3_MiB - 8}, back)) return 1;
    std::memcpy(&seen, (*memory)->cpuRo() + 3_MiB - 8, sizeof seen);
    if (back != value || seen != value) return 2;
    return (*memory)->residentBytes() == kHugePage ? 0 : 3;
  });
  EXPECT_EQ(done, 0);
}

}  // namespace
}  // namespace lodge
