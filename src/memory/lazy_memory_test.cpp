// SPDX-License-Identifier: Apache-2.0
#include "memory/lazy_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/memory_file.h"

namespace lodge {
namespace {

constexpr std::size_t kPiece = 16 * kPageSize;
constexpr std::uint64_t kBytes = 4_MiB + 3 * kPageSize;

/// The byte at an offset: zero in every fourth piece, and in odd pages of the others.
std::byte expected(std::uint64_t offset, unsigned pattern = 0) {
  if (offset / kPiece % 4 == 3 || offset / kPageSize % 2 == 1) return std::byte{0};
  return std::byte(((offset * 2654435761u >> 13) + 2 * pattern) | 1);
}

struct PatternSource : MemorySource {
  std::size_t pieceBytes() const override { return kPiece; }
  bool isZero(std::size_t piece) const override { return piece % 4 == 3; }
  Status load(std::size_t piece, std::span<std::byte> to) const override {
    ++loads;
    if (piece == broken) return Error(ErrorKind::corrupt, "a broken piece");
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = expected(piece * kPiece + i, pattern);
    return {};
  }
  explicit PatternSource(std::atomic<int>& count, std::size_t bad = ~std::size_t{0}, unsigned which = 0)
      : loads(count), broken(bad), pattern(which) {}
  std::atomic<int>& loads;
  std::size_t broken;
  unsigned pattern;
};

struct LazyMemoryTest : testing::Test {
  std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(kBytes));
  std::atomic<int> loads{0}, failures{0};
  void load(std::size_t broken = ~std::size_t{0}, unsigned pattern = 0) {
    ASSERT_TRUE(memory->load(std::make_unique<PatternSource>(loads, broken, pattern), false,
                             [this](const Error&) { ++failures; }));
  }
  void waitUntilLoaded() const {
    auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (memory->isLoading() && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_FALSE(memory->isLoading());
  }
};

TEST_F(LazyMemoryTest, EveryViewSeesWhatTheSourceHas) {
  load();
  std::mt19937 random(1);
  std::byte* const views[] = {memory->deviceView(), memory->cpuRw(), memory->cpuRo()};
  for (int i = 0; i < 2000; ++i) {
    std::uint64_t at = random() % kBytes;
    ASSERT_EQ(views[i % 3][at], expected(at)) << at;
  }
  waitUntilLoaded();
  for (std::uint64_t at = 0; at < kBytes; at += 97) ASSERT_EQ(views[at % 3][at], expected(at)) << at;
}

TEST_F(LazyMemoryTest, WhatWasStoredStays) {
  memory->deviceView()[5 * kPiece] = std::byte{0x99};  // of before: gone
  load();
  memory->cpuRw()[0] = std::byte{0x55};
  memory->cpuRw()[kPageSize] = std::byte{0x56};
  ASSERT_TRUE(memory->writeObject(Gpa{9 * kPiece}, std::uint8_t{0x57}));
  memory->discard(Gpa{8 * kPiece}, kPageSize);
  waitUntilLoaded();
  EXPECT_EQ(memory->cpuRo()[0], std::byte{0x55});
  EXPECT_EQ(memory->cpuRo()[1], expected(1));
  EXPECT_EQ(memory->cpuRo()[kPageSize], std::byte{0x56});
  EXPECT_EQ(memory->cpuRo()[kPageSize + 1], std::byte{0});
  EXPECT_EQ(memory->cpuRo()[9 * kPiece], std::byte{0x57});
  EXPECT_EQ(memory->cpuRo()[9 * kPiece + 1], expected(9 * kPiece + 1));
  EXPECT_EQ(memory->cpuRo()[8 * kPiece], std::byte{0});
  EXPECT_EQ(memory->cpuRo()[5 * kPiece], expected(5 * kPiece));
}

TEST_F(LazyMemoryTest, TouchesFromManyThreads) {
  load();
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      for (int i = 0; i < 3000; ++i) {
        std::uint64_t at = random() % kBytes;
        std::byte got = i % 2 != 0 ? memory->cpuRo()[at] : *memory->span(Gpa{at}, 1);
        if (got != expected(at)) ADD_FAILURE() << at;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  ASSERT_TRUE(memory->finishLoading());
}

// A touch that comes just when the watch of memory ends must not wait for somebody who is gone.
TEST_F(LazyMemoryTest, TouchesWhileTheLoadingEnds) {
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);  // of the rounds that follow the first
  for (int round = 0; round == 0 || (round < 100 && std::chrono::steady_clock::now() < deadline); ++round) {
    load();
    memory->hurryLoading();
    std::vector<std::thread> threads;
    for (std::byte* view : {memory->cpuRw(), memory->deviceView()}) {
      threads.emplace_back([this, view] {
        for (std::uint64_t at = kPageSize; at < kBytes && memory->isLoading(); at += 2 * kPageSize) {
          if (view[at] != std::byte{0}) ADD_FAILURE() << at;  // zero: nobody loads it
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
}

TEST_F(LazyMemoryTest, AnotherLoadEndsTheOneBefore) {
  for (unsigned pattern = 0; pattern < 4; ++pattern) {
    load(~std::size_t{0}, pattern);
    if (pattern % 2 != 0) memory->hurryLoading();
    EXPECT_EQ(memory->cpuRw()[8 * kPiece], expected(8 * kPiece, pattern));
  }
  for (std::uint64_t at = 0; at < kBytes; at += 97) ASSERT_EQ(memory->cpuRo()[at], expected(at, 3)) << at;
  EXPECT_TRUE(memory->finishLoading());
  EXPECT_FALSE(memory->isLoading());
  EXPECT_EQ(failures, 0);
}

/// Flags of the mapping at an address, as /proc/self/smaps has them: " rd wr sh ".
std::string flagsOfMapping(const std::byte* at) {
  std::ifstream smaps("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(smaps, line);) {
    std::uintptr_t start = 0, end = 0;
    auto address = reinterpret_cast<std::uintptr_t>(at);
    if (std::sscanf(line.c_str(), "%zx-%zx ", &start, &end) == 2) here = start <= address && address < end;
    if (here && line.starts_with("VmFlags:")) return line.substr(8) + " ";
  }
  return {};
}

TEST_F(LazyMemoryTest, NoHugePageFillsWhatIsMissing) {
  bool possible = ::madvise(memory->cpuRw(), kPageSize, MADV_HUGEPAGE) == 0;  // as the engine kvm did
  load();
  if (!possible || !memory->isLoading()) GTEST_SKIP() << "this host has no userfaultfd, or no huge pages";
  for (const std::byte* view : {memory->deviceView(), memory->cpuRw(), memory->cpuRo()}) {
    std::string flags = flagsOfMapping(view);
    if (flags.empty()) GTEST_SKIP() << "this host does not tell of mappings";
    EXPECT_NE(flags.find(" nh "), std::string::npos) << flags;
    EXPECT_EQ(flags.find(" hg "), std::string::npos) << flags;
  }
}

// The host's kernel, which may not be able to wait, finds every page then, also one that is zero and was never touched.
TEST_F(LazyMemoryTest, NothingIsWatchedWhenAllIsLoaded) {
  load();
  bool watched = memory->isLoading();
  ASSERT_TRUE(memory->finishLoading());
  EXPECT_FALSE(memory->isLoading());
  if (!watched) GTEST_SKIP() << "this host has no userfaultfd";
  UniqueFd other(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)));
  uffdio_api api{};
  api.api = UFFD_API;
  ASSERT_EQ(::ioctl(other.get(), UFFDIO_API, &api), 0);
  // Memory that somebody watches cannot be watched by another.
  for (std::byte* view : {memory->deviceView(), memory->cpuRw(), memory->cpuRo()}) {
    uffdio_register range{};
    range.range = {reinterpret_cast<std::uint64_t>(view), kBytes};
    range.mode = UFFDIO_REGISTER_MODE_MISSING;
    EXPECT_EQ(::ioctl(other.get(), UFFDIO_REGISTER, &range), 0);
  }
  other.reset();
  UniqueFd file = makeMemoryFile("test");
  std::byte* page = memory->deviceView() + 3 * kPiece;
  EXPECT_EQ(::write(file.get(), page, kPageSize), static_cast<ssize_t>(kPageSize));
  EXPECT_EQ(::pread(file.get(), page + kPageSize, kPageSize, 0), static_cast<ssize_t>(kPageSize));
}

TEST_F(LazyMemoryTest, AFailureIsToldAndNobodyHangs) {
  load(2);
  if (!memory->isLoading()) GTEST_SKIP() << "this host has no userfaultfd";
  EXPECT_EQ(memory->cpuRw()[2 * kPiece + 10], std::byte{0});
  EXPECT_EQ(failures, 1);
  EXPECT_FALSE(memory->finishLoading());
  EXPECT_FALSE(memory->finishLoading());
}

TEST_F(LazyMemoryTest, ItMayGoBeforeAllIsLoaded) {
  load();
  EXPECT_EQ(memory->cpuRw()[0], expected(0));
  memory.reset();
}

}  // namespace
}  // namespace lodge
