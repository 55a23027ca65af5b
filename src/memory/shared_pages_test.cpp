// SPDX-License-Identifier: Apache-2.0
#include "memory/shared_pages.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <thread>
#include <vector>

#include "base/memory_file.h"
#include "memory/lazy_memory.h"

namespace lodge {
namespace {

constexpr std::uint64_t kBytes = 8_MiB;
constexpr std::size_t kPages = kBytes / kPageSize;

/// Pages of a guest: a third zero, a third that every guest has (some of it twice), a third its own.
std::byte expected(unsigned guest, std::uint64_t offset) {
  std::uint64_t page = offset / kPageSize;
  if (page % 3 == 0) return std::byte{0};
  std::uint64_t seed = page % 3 == 1 ? page % 501 : page * 1000 + guest + 1;
  return static_cast<std::byte>((offset % kPageSize + seed) * 2654435761u >> 13 | 1);
}

struct Guest {
  explicit Guest(unsigned number, const std::string& path)
      : store(std::move(*PageStore::open(path))), memory(std::move(*GuestMemory::create(kBytes))), number(number) {
    for (std::uint64_t at = 0; at < kBytes; ++at) memory->deviceView()[at] = expected(number, at);
  }
  void share() {
    report->next = 0;
    ASSERT_TRUE(memory->load(std::make_unique<SharedPages>(*store, report), false, [](const Error&) { FAIL(); }));
  }
  void check() const {
    const std::byte* const views[] = {memory->deviceView(), memory->cpuRw(), memory->cpuRo()};
    for (std::uint64_t at = 0; at < kBytes; at += 61) ASSERT_EQ(views[at % 3][at], expected(number, at)) << at;
  }
  std::uint64_t residentPages() const { return memory->residentBytes() / kPageSize; }

  std::unique_ptr<PageStore> store;
  std::unique_ptr<GuestMemory> memory;
  std::shared_ptr<SharedPages::Report> report = std::make_shared<SharedPages::Report>();
  unsigned number;
};

struct SharedPagesTest : testing::Test {
  SharedPagesTest() {
    char name[] = "/tmp/lodge-pages-XXXXXX";
    folder = ::mkdtemp(name);
    if (!LazyMemory::isPossible()) return;
    one = std::make_unique<Guest>(1, folder + "/.pages");
    two = std::make_unique<Guest>(2, folder + "/.pages");
  }
  void SetUp() override {
    if (!one) GTEST_SKIP() << "this host has no userfaultfd";
  }
  ~SharedPagesTest() override {
    one.reset();
    two.reset();
    std::filesystem::remove_all(folder);
  }
  void shareBoth() {
    one->share();
    two->share();
    one->share();
  }
  std::string folder;
  std::unique_ptr<Guest> one, two;
};

TEST_F(SharedPagesTest, WhatIsEqualGoesAndComesAgain) {
  one->share();
  EXPECT_EQ(one->residentPages(), kPages - (kPages + 2) / 3);
  EXPECT_EQ(one->report->away, 0u);
  EXPECT_FALSE(one->memory->isLoading());
  two->share();
  one->share();
  for (Guest* guest : {one.get(), two.get()}) {
    EXPECT_EQ(guest->residentPages(), kPages / 3);
    EXPECT_EQ(guest->report->away, (kPages + 1) / 3);
    EXPECT_TRUE(guest->memory->isLoading());
  }
  EXPECT_LE(one->store->count(), 501u);
  one->check();
  two->check();
  ASSERT_TRUE(two->memory->finishLoading());
  EXPECT_FALSE(two->memory->isLoading());
  two->check();
}

TEST_F(SharedPagesTest, WhatWasStoredStaysItsOwn) {
  shareBoth();
  // A page that is away, one that is zero, one that is there; by every way.
  for (std::uint64_t page : {1u, 3u, 5u, 301u}) {
    one->memory->cpuRw()[page * kPageSize + 7] = std::byte{0x77};
    ASSERT_TRUE(one->memory->writeObject(Gpa{(page + 6) * kPageSize + 9}, std::uint8_t{0x99}));
    one->memory->deviceView()[(page + 12) * kPageSize + 11] = std::byte{0xbb};
  }
  two->check();
  for (int round = 0; round < 2; ++round) {
    for (std::uint64_t page : {1u, 3u, 5u, 301u}) {
      EXPECT_EQ(one->memory->cpuRo()[page * kPageSize + 7], std::byte{0x77});
      EXPECT_EQ(one->memory->cpuRo()[page * kPageSize + 8], expected(1, page * kPageSize + 8));
      EXPECT_EQ(one->memory->cpuRo()[(page + 6) * kPageSize + 9], std::byte{0x99});
      EXPECT_EQ(one->memory->cpuRo()[(page + 12) * kPageSize + 11], std::byte{0xbb});
    }
    one->share();
  }
}

TEST_F(SharedPagesTest, TheKernelReadsAndWritesWhatIsAway) {
  shareBoth();
  UniqueFd file = makeMemoryFile("pages-test");
  std::vector<std::byte> bytes(12 * kPageSize, std::byte{0x5a});
  ASSERT_EQ(::pwrite(file.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  // As disks do: from the middle of one page to the middle of another.
  std::uint64_t at = 100 * kPageSize + 100;
  iovec span{one->memory->span(Gpa{at}, bytes.size()), bytes.size()};
  ASSERT_EQ(::preadv(file.get(), &span, 1, 0), static_cast<ssize_t>(bytes.size()));
  span.iov_base = one->memory->span(Gpa{at + bytes.size()}, bytes.size());
  ASSERT_EQ(::pwritev(file.get(), &span, 1, 0), static_cast<ssize_t>(bytes.size()));
  ASSERT_EQ(::pread(file.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    ASSERT_EQ(one->memory->cpuRo()[at + i], std::byte{0x5a}) << i;
    ASSERT_EQ(bytes[i], expected(1, at + bytes.size() + i)) << i;
  }
  EXPECT_EQ(one->memory->cpuRo()[at - 1], expected(1, at - 1));
  // A page that the guest gives back is zero, and the kernel finds it, too.
  one->memory->discard(Gpa{100 * kPageSize}, 30 * kPageSize);
  span = {one->memory->span(Gpa{101 * kPageSize}, kPageSize), kPageSize};
  ASSERT_EQ(::preadv(file.get(), &span, 1, 0), static_cast<ssize_t>(kPageSize));
  EXPECT_EQ(one->memory->cpuRo()[129 * kPageSize + 3], std::byte{0});
  EXPECT_EQ(one->memory->cpuRo()[130 * kPageSize + 3], expected(1, 130 * kPageSize + 3));
}

TEST_F(SharedPagesTest, RoundsWhileThreadsStoreInBetween) {
  shareBoth();
  std::vector<std::uint8_t> stored(kPages);
  for (unsigned round = 0; round < 8; ++round) {
    std::vector<std::thread> threads;
    for (unsigned seed = 0; seed < 3; ++seed) {
      threads.emplace_back([&, seed] {
        std::mt19937 random(round * 3 + seed);
        for (unsigned n = 0; n < 100; ++n) {
          std::uint64_t page = random() % kPages / 3 * 3 + seed;  // each thread has pages of its own
          if (page >= kPages) continue;
          stored[page] = static_cast<std::uint8_t>(random() | 1);
          std::byte* view = n % 2 != 0 ? one->memory->cpuRw()
                                       : one->memory->span(Gpa{page * kPageSize}, kPageSize) - page * kPageSize;
          view[page * kPageSize + 1000] = static_cast<std::byte>(stored[page]);
        }
      });
    }
    for (auto& thread : threads) thread.join();
    one->share();
    two->share();
  }
  for (std::uint64_t page = 0; page < kPages; ++page) {
    std::uint64_t at = page * kPageSize + 1000;
    std::byte wanted = stored[page] != 0 ? static_cast<std::byte>(stored[page]) : expected(1, at);
    ASSERT_EQ(one->memory->cpuRo()[at], wanted) << page;
    ASSERT_EQ(one->memory->cpuRo()[at + 1], expected(1, at + 1)) << page;
  }
  two->check();
}

TEST_F(SharedPagesTest, WhatCameBackAndWasClearedStaysZero) {
  shareBoth();
  for (unsigned round = 0; round < 20; ++round) {
    // The loader is at work when the next round begins, which looks at the first pages only.
    one->memory->hurryLoading();
    std::this_thread::sleep_for(std::chrono::microseconds(100 * round));
    std::uint64_t page = 1 + 3 * round;  // one that all have
    std::memset(one->memory->cpuRw() + page * kPageSize, 0, kPageSize);
    one->share();
    ASSERT_EQ(one->memory->cpuRo()[page * kPageSize + 5], std::byte{0}) << round;
    for (std::uint64_t other = page + 3; other < kPages; other += 3)
      ASSERT_EQ(one->memory->cpuRo()[other * kPageSize + 5], expected(1, other * kPageSize + 5)) << other;
    two->share();
    one->share();
  }
}

TEST_F(SharedPagesTest, AnEngineThatWatchesMemoryAfterwardsGoesOnDoingSo) {
  shareBoth();
  one->memory->hurryLoading();
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (one->memory->isLoading() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  ASSERT_FALSE(one->memory->isLoading());
  // Another watch of the same memory, as the translator's.
  UniqueFd watch(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)));
  uffdio_api api{};
  api.api = UFFD_API;
  ASSERT_EQ(::ioctl(watch.get(), UFFDIO_API, &api), 0);
  uffdio_register range{};
  range.range = {reinterpret_cast<std::uint64_t>(one->memory->cpuRw()), kBytes};
  range.mode = UFFDIO_REGISTER_MODE_MISSING;
  ASSERT_EQ(::ioctl(watch.get(), UFFDIO_REGISTER, &range), 0);
  ASSERT_TRUE(one->memory->finishLoading());
  // Still its own: another may not have it.
  UniqueFd other(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)));
  ASSERT_EQ(::ioctl(other.get(), UFFDIO_API, &api), 0);
  EXPECT_NE(::ioctl(other.get(), UFFDIO_REGISTER, &range), 0);
}

TEST_F(SharedPagesTest, ABusyMachineGetsAllBack) {
  shareBoth();
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  // Zero pages that are touched count, too; each once.
  for (std::uint64_t page = 0; one->memory->isLoading() && std::chrono::steady_clock::now() < deadline; ++page) {
    one->memory->cpuRw()[page % kPages * kPageSize] = expected(1, page % kPages * kPageSize);
    if (page % kPages == kPages - 1) one->share();
  }
  if (one->memory->isLoading()) GTEST_SKIP() << "this host is too slow to look busy";
  EXPECT_EQ(one->report->away, 0u);
  one->check();
}

}  // namespace
}  // namespace lodge
