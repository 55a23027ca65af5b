// SPDX-License-Identifier: Apache-2.0
#include "base/futex_mutex.h"

#include <gtest/gtest.h>

#include <mutex>
#include <thread>
#include <vector>

namespace lodge {
namespace {

TEST(FutexMutexTest, OneAtATime) {
  FutexMutex mutex;
  unsigned long count = 0;
  constexpr unsigned kThreads = 4, kRounds = 20000;
  {
    std::vector<std::jthread> threads;
    for (unsigned n = 0; n < kThreads; ++n) {
      threads.emplace_back([&] {
        for (unsigned round = 0; round < kRounds; ++round) {
          std::lock_guard lock(mutex);
          count = count + 1;
          if (round % 1000 == 0) std::this_thread::yield();  // others come to wait
        }
      });
    }
  }
  EXPECT_EQ(count, kThreads * kRounds);
  EXPECT_TRUE(mutex.try_lock());
  EXPECT_FALSE(mutex.try_lock());
  mutex.unlock();
}

TEST(FutexMutexTest, WhoWaitsIsWoken) {
  FutexMutex mutex;
  mutex.lock();
  std::atomic<bool> taken{false};
  std::jthread waiter([&] {
    std::lock_guard lock(mutex);
    taken = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(taken);
  mutex.unlock();
  waiter.join();
  EXPECT_TRUE(taken);
}

}  // namespace
}  // namespace lodge
