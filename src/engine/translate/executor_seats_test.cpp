// SPDX-License-Identifier: Apache-2.0
#include "engine/translate/executor_seats.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <thread>

namespace lodge::translate {
namespace {

constexpr std::uint64_t kWindow = 100;
constexpr int kNowhere = CPU_SETSIZE - 1;  ///< a processor that there is not

cpu_set_t setOf(std::initializer_list<unsigned> processors) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (unsigned p : processors) CPU_SET(p, &set);
  return set;
}

cpu_set_t affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(::sched_getaffinity(0, sizeof set, &set), 0);
  return set;
}

/// "0 2", or "stays".
std::string better(int now, std::initializer_list<unsigned> allowed, std::initializer_list<int> taken) {
  auto set = ExecutorSeats::better(now, setOf(allowed), std::span(taken.begin(), taken.size()));
  if (!set) return "stays";
  std::string text;
  for (unsigned p = 0; p < CPU_SETSIZE; ++p) {
    if (CPU_ISSET(p, &*set)) text += (text.empty() ? "" : " ") + std::to_string(p);
  }
  return text;
}

TEST(ExecutorSeats, TwoDoNotShareAProcessorWhileAnotherIsFree) {
  EXPECT_EQ(better(0, {0, 1}, {0}), "1");
  EXPECT_EQ(better(1, {0, 1}, {1}), "0");
  EXPECT_EQ(better(0, {0, 1, 2, 3}, {0, 2}), "1 3");
  EXPECT_EQ(better(1023, {0, 1023}, {1023}), "0");
}

TEST(ExecutorSeats, WhoIsAloneStays) {
  EXPECT_EQ(better(0, {0, 1}, {}), "stays");
  EXPECT_EQ(better(0, {0, 1}, {1}), "stays");
  EXPECT_EQ(better(0, {0, 1}, {1, 1, 1}), "stays");
}

TEST(ExecutorSeats, MoreThanThereAreProcessorsAreSpreadEvenly) {
  EXPECT_EQ(better(0, {0, 1}, {0, 1}), "stays");  // to change places would gain nothing
  EXPECT_EQ(better(0, {0, 1}, {0, 0, 1}), "1");
  EXPECT_EQ(better(0, {0, 1, 2}, {0, 0, 1, 2, 2}), "1");
  EXPECT_EQ(better(0, {0, 1, 2}, {0, 0, 0, 1, 2}), "1 2");
}

TEST(ExecutorSeats, OnlyProcessorsThatAreAllowedCount) {
  EXPECT_EQ(better(0, {0}, {0}), "stays");
  EXPECT_EQ(better(3, {2, 3, 5}, {3, 2}), "5");
  EXPECT_EQ(better(0, {}, {0}), "stays");
  EXPECT_EQ(better(0, {1, 2}, {0, 1}), "2");  // taken off it meanwhile
}

/// On a thread of its own, as it changes the thread's processors.
template <class Work>
void onThread(Work work) {
  std::thread(work).join();
}

TEST(ExecutorSeat, GoesToTheOtherProcessorAndMayUseBothAgain) {
  if (cpu_set_t all = affinity(); CPU_COUNT(&all) < 2) GTEST_SKIP() << "one processor";
  onThread([] {
    cpu_set_t before = affinity();
    ExecutorSeats seats;
    ExecutorSeat other(seats, kWindow), mine(seats, kWindow);
    int now = ::sched_getcpu();
    EXPECT_FALSE(other.take(now, 1'000));
    EXPECT_TRUE(mine.take(now, 1'000));
    EXPECT_NE(mine.processor(), now);
    cpu_set_t after = affinity();
    EXPECT_TRUE(CPU_EQUAL(&before, &after));
    EXPECT_FALSE(mine.take(mine.processor(), 1'000 + kWindow));  // it is alone there
  });
}

TEST(ExecutorSeat, KeepsToTheProcessorsThatItWasGiven) {
  if (cpu_set_t all = affinity(); CPU_COUNT(&all) < 2) GTEST_SKIP() << "one processor";
  onThread([] {
    int now = ::sched_getcpu();
    cpu_set_t one = setOf({static_cast<unsigned>(now)});
    ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
    ExecutorSeats seats;
    ExecutorSeat other(seats, kWindow), mine(seats, kWindow);
    other.take(now, 1'000);
    EXPECT_FALSE(mine.take(now, 1'000));
    EXPECT_EQ(::sched_getcpu(), now);
    // What it may use is less than there is after a move, too: the other seat is said to be where nobody is.
    cpu_set_t after = affinity();
    EXPECT_TRUE(CPU_EQUAL(&one, &after));
    other.take(kNowhere, 2'000);
    EXPECT_TRUE(mine.take(kNowhere, 2'000));
    EXPECT_EQ(mine.processor(), now);
    after = affinity();
    EXPECT_TRUE(CPU_EQUAL(&one, &after));
  });
}

TEST(ExecutorSeat, LooksOnceInAWindow) {
  if (cpu_set_t all = affinity(); CPU_COUNT(&all) < 2) GTEST_SKIP() << "one processor";
  onThread([] {
    ExecutorSeats seats;
    ExecutorSeat other(seats, 1'000'000), mine(seats, kWindow);
    int now = ::sched_getcpu();
    EXPECT_FALSE(other.take(kNowhere, 1));
    EXPECT_FALSE(mine.take(now, 1'000));
    EXPECT_FALSE(other.take(now, 1'001));  // it looks later
    EXPECT_FALSE(mine.take(now, 1'000 + kWindow - 1));
    EXPECT_TRUE(mine.take(now, 1'000 + kWindow));
  });
}

TEST(ExecutorSeat, OneThatHasNotRunLatelyDoesNotCount) {
  onThread([] {
    ExecutorSeats seats;
    ExecutorSeat other(seats, kWindow), mine(seats, kWindow);
    int now = ::sched_getcpu();
    other.take(now, 1'000);
    EXPECT_TRUE(other.isTaken(1'000'000));  // it runs
    other.leave(2'000);
    EXPECT_TRUE(other.isTaken(2'000 + kWindow - 1));
    EXPECT_FALSE(other.isTaken(2'000 + kWindow));
    EXPECT_FALSE(mine.take(now, 2'000 + kWindow));
  });
}

TEST(ExecutorSeat, OneThatIsGoneDoesNotCount) {
  onThread([] {
    ExecutorSeats seats;
    ExecutorSeat mine(seats, kWindow);
    int now = ::sched_getcpu();
    {
      ExecutorSeat other(seats, kWindow);
      other.take(now, 1'000);
    }
    EXPECT_FALSE(mine.take(now, 1'000));
  });
}

}  // namespace
}  // namespace lodge::translate
