// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/code_cache.h"

#include <gtest/gtest.h>
#include <setjmp.h>
#include <signal.h>

#include <cstring>

#include "engine/translate/code_guard.h"
#include "engine/translate/translation.h"

namespace lodge::translate {
namespace {

std::unique_ptr<CodeCache> makeCache() {
  auto made = CodeCache::create(4_MiB);
  EXPECT_TRUE(made) << made.error().message();
  return std::move(*made);
}

TEST(CodeCacheTest, RejectsSizes) {
  EXPECT_EQ(CodeCache::create(4096).error().kind(), ErrorKind::invalidArgument);
  EXPECT_EQ(CodeCache::create(2_GiB).error().kind(), ErrorKind::invalidArgument);
}

TEST(CodeCacheTest, RunsWhatWasWritten) {
  auto cache = makeCache();
  Assembler hot = cache->hot();
  Assembler cold = cache->cold();
  hot.movImmediate(host::rax, 42);
  hot.byte(0xc3);
  std::uint64_t at = hot.start();
  cache->commit(hot, cold);
  EXPECT_LT(at, 4_GiB);
  EXPECT_EQ(reinterpret_cast<int (*)()>(at)(), 42);
}

int fortyThree() {
  return 43;
}

TEST(CodeCacheTest, ThunksReachFarFunctions) {
  auto cache = makeCache();
  std::uint64_t thunk = cache->thunk(reinterpret_cast<const void*>(fortyThree));
  Assembler hot = cache->hot();
  hot.jmpTo(thunk);
  cache->commit(hot, cache->cold());
  EXPECT_EQ(reinterpret_cast<int (*)()>(hot.start())(), 43);
}

TEST(CodeCacheTest, FindsTranslationsByBothKindsOfCode) {
  auto cache = makeCache();
  Translation translations[3] = {};
  std::uint64_t hotAt[3], coldAt[3];
  for (unsigned i = 0; i < 3; ++i) {
    Assembler hot = cache->hot();
    Assembler cold = cache->cold();
    for (unsigned n = 0; n < 20 + i; ++n) hot.byte(0x90);
    for (unsigned n = 0; i != 1 && n < 10; ++n) cold.byte(0x90);  // the second has none
    Translation& t = translations[i];
    t.hot = hotAt[i] = hot.start();
    t.cold = coldAt[i] = cold.start();
    t.hotSize = hot.size();
    t.coldSize = cold.size();
    cache->commit(hot, cold);
    cache->publish(&t);
  }
  EXPECT_EQ(cache->find(hotAt[0]), &translations[0]);
  EXPECT_EQ(cache->find(hotAt[1] + 20), &translations[1]);
  EXPECT_EQ(cache->find(hotAt[0] + 20), nullptr);  // padding
  EXPECT_EQ(cache->find(coldAt[0] + 9), &translations[0]);
  EXPECT_EQ(cache->find(coldAt[2]), &translations[2]);
  EXPECT_EQ(cache->find(hotAt[2] + 22), nullptr);
  EXPECT_EQ(cache->find(0x1000), nullptr);
  EXPECT_EQ(cache->find(cache->runBase()), nullptr);
}

TEST(CodeCacheTest, ResetForgetsAll) {
  auto cache = makeCache();
  while (cache->hasRoom()) {
    Assembler hot = cache->hot();
    for (unsigned n = 0; n < 4096; ++n) hot.byte(0x90);
    cache->commit(hot, cache->cold());
  }
  cache->reset();
  EXPECT_TRUE(cache->hasRoom());
  EXPECT_EQ(cache->usedBytes(), 0u);
  EXPECT_EQ(*cache->hot().bytes(), 0);
}

sigjmp_buf onFault;
volatile std::uint64_t faultAddress;
void catchFault(int, siginfo_t* info, void*) {
  faultAddress = reinterpret_cast<std::uint64_t>(info->si_addr);
  siglongjmp(onFault, 1);
}

class CodeGuardTest : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    struct sigaction action {};
    action.sa_sigaction = catchFault;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &before_[0]);
    sigaction(SIGBUS, &action, &before_[1]);
    memory_ = std::move(*GuestMemory::create(1_MiB));
    guard_ = std::move(*CodeGuard::create(*memory_, GetParam()));
  }
  void TearDown() override {
    sigaction(SIGSEGV, &before_[0], nullptr);
    sigaction(SIGBUS, &before_[1], nullptr);
  }
  bool storeFaults(std::uint64_t offset) {
    if (sigsetjmp(onFault, 1) != 0) return true;
    *reinterpret_cast<volatile char*>(memory_->cpuRw() + offset) = 1;
    return false;
  }
  struct sigaction before_[2];
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<CodeGuard> guard_;
};

TEST_P(CodeGuardTest, StoresToGuardedPagesFault) {
  ASSERT_TRUE(guard_->protect(3));
  EXPECT_TRUE(storeFaults(3 * 4096 + 8));
  EXPECT_TRUE(guard_->covers(faultAddress));
  EXPECT_EQ(guard_->ramPageOf(faultAddress), 3u);
  EXPECT_FALSE(storeFaults(4 * 4096));
  // Devices still write, and the CPU view shows it.
  std::byte value{5};
  ASSERT_TRUE(memory_->write(Gpa{3 * 4096}, {&value, 1}));
  EXPECT_EQ(memory_->cpuRw()[3 * 4096], std::byte{5});
  guard_->unprotect(3);
  EXPECT_FALSE(storeFaults(3 * 4096 + 8));
}

INSTANTIATE_TEST_SUITE_P(Both, CodeGuardTest, testing::Bool());

}  // namespace
}  // namespace lodge::translate
