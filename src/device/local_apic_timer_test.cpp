// SPDX-License-Identifier: Apache-2.0
#include "device/local_apic_timer.h"

#include <gtest/gtest.h>

#include "base/fake_clock.h"

namespace lodge {
namespace {

using Mode = LocalApicTimer::Mode;

class LocalApicTimerTest : public testing::Test {
 protected:
  /// The guest's TSC runs at 2 GHz and `tscAhead` ticks ahead.
  std::uint64_t tscAhead = 0;
  int expiries = 0;
  FakeClock clock;
  LocalApicTimer timer{
      clock, [this](std::uint64_t tsc) { return tsc < tscAhead ? 0 : static_cast<Nanoseconds>((tsc - tscAhead) / 2); },
      [this] { ++expiries; }};
};

TEST_F(LocalApicTimerTest, OneShotCountsDownOnce) {
  timer.setDivide(0xb);  // by 1
  timer.setInitialCount(1000);
  EXPECT_EQ(timer.currentCount(), 1000u);
  EXPECT_EQ(timer.nextDeadline(), 1000);
  clock.advance(400);
  EXPECT_EQ(timer.currentCount(), 600u);
  clock.advance(599);
  EXPECT_EQ(expiries, 0);
  EXPECT_EQ(timer.currentCount(), 1u);
  clock.advance(1);
  EXPECT_EQ(expiries, 1);
  EXPECT_EQ(timer.currentCount(), 0u);
  EXPECT_EQ(timer.initialCount(), 1000u);
  EXPECT_EQ(timer.nextDeadline(), LocalApicTimer::kNever);
  clock.advance(100'000);
  EXPECT_EQ(expiries, 1);
}

TEST_F(LocalApicTimerTest, DivideConfiguration) {
  const std::pair<std::uint32_t, Nanoseconds> table[] = {{0, 2},  {1, 4},  {2, 8},    {3, 16},
                                                         {8, 32}, {9, 64}, {10, 128}, {11, 1}};
  for (auto [code, divisor] : table) {
    timer.setDivide(code);
    timer.setInitialCount(100);
    EXPECT_EQ(timer.nextDeadline() - clock.now(), 100 * divisor) << code;
  }
}

TEST_F(LocalApicTimerTest, DivideChangeScalesTheRest) {
  timer.setDivide(0xb);
  timer.setInitialCount(1000);
  clock.advance(500);
  timer.setDivide(0);
  EXPECT_EQ(timer.currentCount(), 500u);
  clock.advance(999);
  EXPECT_EQ(expiries, 0);
  clock.advance(1);
  EXPECT_EQ(expiries, 1);
}

TEST_F(LocalApicTimerTest, PeriodicKeepsItsPhase) {
  timer.setMode(Mode::periodic);
  timer.setDivide(0xb);
  timer.setInitialCount(100'000);
  clock.advance(350'000);
  EXPECT_EQ(expiries, 3);
  EXPECT_EQ(timer.currentCount(), 50'000u);
  timer.setInitialCount(0);
  clock.advance(1'000'000);
  EXPECT_EQ(expiries, 3);
  EXPECT_EQ(timer.currentCount(), 0u);
}

TEST_F(LocalApicTimerTest, TinyPeriodsAreLimited) {
  timer.setMode(Mode::periodic);
  timer.setDivide(0xb);
  timer.setInitialCount(1);
  clock.advance(10 * LocalApicTimer::kMinimumPeriod);
  EXPECT_LE(expiries, 11);
  EXPECT_GE(expiries, 9);
}

TEST_F(LocalApicTimerTest, ModeChangesAsOnHardware) {
  timer.setDivide(0xb);
  timer.setInitialCount(100'000);
  clock.advance(60'000);
  timer.setMode(Mode::periodic);
  EXPECT_EQ(timer.currentCount(), 40'000u) << "one-shot to periodic counts on";
  clock.advance(50'000);
  EXPECT_EQ(expiries, 1);
  EXPECT_EQ(timer.currentCount(), 90'000u);
  timer.setMode(Mode::oneShot);
  clock.advance(90'000);
  EXPECT_EQ(expiries, 2);
  timer.setMode(Mode::periodic);
  EXPECT_EQ(timer.currentCount(), 0u) << "an expired one-shot does not start again";
  clock.advance(200'000);
  EXPECT_EQ(expiries, 2);
  timer.setInitialCount(100'000);
  timer.setMode(Mode::tscDeadline);
  EXPECT_EQ(timer.currentCount(), 0u);
  clock.advance(200'000);
  EXPECT_EQ(expiries, 2) << "disarmed";
}

TEST_F(LocalApicTimerTest, TscDeadline) {
  timer.setTscDeadline(1000);
  EXPECT_EQ(timer.tscDeadline(), 0u) << "another mode: reads 0, writes are ignored";
  timer.setMode(Mode::tscDeadline);
  timer.setInitialCount(5);
  EXPECT_EQ(timer.initialCount(), 0u);
  timer.setTscDeadline(1000);
  EXPECT_EQ(timer.tscDeadline(), 1000u);
  EXPECT_EQ(timer.nextDeadline(), 500);
  clock.advance(499);
  EXPECT_EQ(expiries, 0);
  clock.advance(1);
  EXPECT_EQ(expiries, 1);
  EXPECT_EQ(timer.tscDeadline(), 0u);
  timer.setTscDeadline(10);
  EXPECT_EQ(expiries, 2) << "a deadline in the past fires at once";
  EXPECT_EQ(timer.tscDeadline(), 0u);
}

TEST_F(LocalApicTimerTest, TscDeadlineIsMovedAndCancelled) {
  timer.setMode(Mode::tscDeadline);
  timer.setTscDeadline(1000);
  timer.setTscDeadline(3000);
  clock.advance(1400);
  EXPECT_EQ(expiries, 0);
  timer.setTscDeadline(2900);
  clock.advance(50);
  EXPECT_EQ(expiries, 1);
  timer.setTscDeadline(4000);
  timer.setTscDeadline(0);
  clock.advance(10'000);
  EXPECT_EQ(expiries, 1);
  timer.setTscDeadline(~std::uint64_t{0});
  EXPECT_EQ(expiries, 1);
}

TEST_F(LocalApicTimerTest, TscChangeMovesTheDeadline) {
  timer.setMode(Mode::tscDeadline);
  timer.setTscDeadline(2000);
  tscAhead = 1000;
  timer.tscChanged();
  EXPECT_EQ(timer.nextDeadline(), 500);
  tscAhead = 5000;
  timer.tscChanged();
  EXPECT_EQ(expiries, 1);
}

TEST_F(LocalApicTimerTest, PollExpiresWithoutTheHostTimer) {
  timer.setMode(Mode::tscDeadline);
  timer.setTscDeadline(2000);
  timer.poll();
  EXPECT_EQ(expiries, 0);
  clock.advance(1000);
  timer.poll();
  EXPECT_EQ(expiries, 1);
}

TEST_F(LocalApicTimerTest, SaveAndRestore) {
  timer.setMode(Mode::periodic);
  timer.setDivide(0xb);
  timer.setInitialCount(100'000);
  clock.advance(30'000);
  LocalApicTimer::State state = timer.save();
  timer.reset();
  EXPECT_EQ(timer.nextDeadline(), LocalApicTimer::kNever);
  clock.advance(500'000);
  timer.restore(state);
  EXPECT_EQ(timer.currentCount(), 70'000u);
  clock.advance(170'000);
  EXPECT_EQ(expiries, 2);
}

}  // namespace
}  // namespace lodge
