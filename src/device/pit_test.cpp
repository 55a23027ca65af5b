// SPDX-License-Identifier: Apache-2.0
#include "device/pit.h"

#include <gtest/gtest.h>

#include "base/fake_clock.h"
#include "device/fakes.h"

namespace lodge {
namespace {

class PitTest : public testing::Test {
 protected:
  void control(unsigned counter, unsigned access, unsigned mode, unsigned bcd = 0) {
    pit.counters().write(3, 1, counter << 6 | access << 4 | mode << 1 | bcd);
  }
  void load(unsigned counter, unsigned value) {
    pit.counters().write(counter, 1, value & 0xff);
    pit.counters().write(counter, 1, value >> 8);
  }
  unsigned read8(unsigned counter) { return static_cast<unsigned>(pit.counters().read(counter, 1)); }
  unsigned read16(unsigned counter) {
    unsigned low = read8(counter);
    return low | read8(counter) << 8;
  }
  bool output2() { return (pit.systemControl().read(0, 1) & 0x20) != 0; }
  void gate2(bool high) { pit.systemControl().write(0, 1, high ? 1 : 0); }
  /// To the first nanosecond at which `total` ticks have passed since the start of the test.
  void ticksTo(std::uint64_t total) {
    auto at = static_cast<Nanoseconds>((total * 1'000'000'000ull + PitChannel::kHz - 1) / PitChannel::kHz);
    clock.advance(at - clock.now());
  }

  FakeClock clock;
  FakeLine irq;
  Pit pit{clock, irq};
};

TEST_F(PitTest, Mode2GivesOneInterruptAPeriod) {
  control(0, 3, 2);
  load(0, 11932);  // 10 ms
  int before = irq.rises;
  ticksTo(11931);
  EXPECT_EQ(irq.rises, before);
  ticksTo(11932);
  EXPECT_EQ(irq.rises, before + 1);
  clock.advance(kNanosecondsPerSecond);
  EXPECT_EQ(irq.rises, before + 100) << "no drift";
  EXPECT_TRUE(irq.level);
}

TEST_F(PitTest, Mode0InterruptsOnceAtTerminalCount) {
  control(0, 3, 0);
  EXPECT_FALSE(irq.level);
  load(0, 1000);
  ticksTo(999);
  EXPECT_EQ(irq.rises, 0);
  ticksTo(1000);
  EXPECT_EQ(irq.rises, 1);
  clock.advance(kNanosecondsPerSecond);
  EXPECT_EQ(irq.rises, 1);
  load(0, 1000);
  EXPECT_FALSE(irq.level) << "a new count sets OUT low";
}

TEST_F(PitTest, CountZeroIs65536) {
  control(0, 3, 2);
  load(0, 0);
  int before = irq.rises;
  ticksTo(65535);
  EXPECT_EQ(irq.rises, before);
  ticksTo(65536);
  EXPECT_EQ(irq.rises, before + 1);
}

TEST_F(PitTest, TinyCountsAreLimited) {
  control(0, 3, 2);
  load(0, 2);
  int before = irq.rises;
  clock.advance(20 * Pit::kMinimumPeriod);
  EXPECT_LE(irq.rises - before, 21);
  EXPECT_GE(irq.rises - before, 19);
}

TEST_F(PitTest, AccessModes) {
  control(2, 1, 2);
  pit.counters().write(2, 1, 0x34);
  EXPECT_EQ(read8(2), 0x34u);
  EXPECT_EQ(read8(2), 0x34u) << "low byte only";
  control(2, 2, 2);
  pit.counters().write(2, 1, 0x12);
  EXPECT_EQ(read8(2), 0x12u);
  control(2, 3, 2);
  load(2, 0x1234);
  EXPECT_EQ(read16(2), 0x1234u);
  EXPECT_EQ(read8(3), 0xffu);
}

TEST_F(PitTest, LatchHoldsTheCount) {
  gate2(true);
  control(2, 3, 0);
  load(2, 5000);
  ticksTo(100);
  control(2, 0, 0);
  ticksTo(200);
  control(2, 0, 0);
  EXPECT_EQ(read16(2), 4900u) << "the first latch counts";
  EXPECT_EQ(read16(2), 4800u);
}

TEST_F(PitTest, LatchDoesNotDisturbHalfReads) {
  control(1, 3, 2);
  load(1, 0x1234);
  EXPECT_EQ(read8(1), 0x34u);
  EXPECT_EQ(read8(1), 0x12u);
}

TEST_F(PitTest, ReadBackStatusAndCount) {
  gate2(true);
  control(2, 3, 3);
  pit.counters().write(3, 1, 0xe8);  // status of counter 2
  EXPECT_EQ(read8(2), 0xf6u) << "OUT high, null count, both bytes, mode 3";
  load(2, 1000);
  pit.counters().write(3, 1, 0xc8);  // count and status
  EXPECT_EQ(read8(2), 0xb6u);
  EXPECT_EQ(read16(2), 1000u);
  control(0, 1, 2, 1);
  pit.counters().write(3, 1, 0xe2);
  EXPECT_EQ(read8(0), 0xd5u);
}

TEST_F(PitTest, Mode0OnCounter2IsSeenAtPort61) {
  control(2, 3, 0);
  load(2, 100);
  ticksTo(200);
  EXPECT_FALSE(output2()) << "the gate is low";
  gate2(true);
  ticksTo(299);
  EXPECT_FALSE(output2());
  ticksTo(300);
  EXPECT_TRUE(output2());
  EXPECT_EQ(pit.systemControl().read(0, 1) & 0x0f, 1u);
}

TEST_F(PitTest, Mode0GatePausesTheCount) {
  gate2(true);
  control(2, 3, 0);
  load(2, 1000);
  ticksTo(400);
  gate2(false);
  ticksTo(900);
  EXPECT_EQ(read16(2), 600u);
  gate2(true);
  ticksTo(1000);
  EXPECT_NEAR(read16(2), 500u, 1);
}

TEST_F(PitTest, Mode0FirstByteStopsTheCount) {
  gate2(true);
  control(2, 3, 0);
  load(2, 100);
  pit.counters().write(2, 1, 50);
  ticksTo(500);
  EXPECT_FALSE(output2());
  pit.counters().write(2, 1, 0);
  ticksTo(549);
  EXPECT_FALSE(output2());
  ticksTo(551);
  EXPECT_TRUE(output2());
}

TEST_F(PitTest, Mode1IsARetriggerableOneShot) {
  control(2, 3, 1);
  load(2, 100);
  EXPECT_TRUE(output2());
  gate2(true);
  EXPECT_FALSE(output2());
  ticksTo(50);
  gate2(false);
  gate2(true);
  ticksTo(149);
  EXPECT_FALSE(output2());
  ticksTo(151);
  EXPECT_TRUE(output2());
  load(2, 10);
  EXPECT_TRUE(output2()) << "a count waits for the trigger";
}

TEST_F(PitTest, Mode2OutputIsLowForTheLastTick) {
  gate2(true);
  control(2, 3, 2);
  load(2, 4);
  const bool expected[] = {true, true, true, false, true, true, true, false, true};
  for (unsigned n = 0; n < 9; ++n) {
    ticksTo(n);
    EXPECT_EQ(output2(), expected[n]) << n;
  }
  ticksTo(15);
  gate2(false);
  EXPECT_TRUE(output2());
}

TEST_F(PitTest, Mode2TakesANewCountAtThePeriodsEnd) {
  gate2(true);
  control(2, 3, 2);
  load(2, 100);
  ticksTo(250);
  load(2, 1000);
  EXPECT_EQ(read16(2), 50u);
  ticksTo(310);
  EXPECT_NEAR(read16(2), 990, 1);
}

TEST_F(PitTest, Mode3IsSquare) {
  gate2(true);
  control(2, 3, 3);
  load(2, 5);
  const bool expected[] = {true, true, true, false, false, true, true, true, false, false};
  for (unsigned n = 0; n < 10; ++n) {
    ticksTo(n);
    EXPECT_EQ(output2(), expected[n]) << n;
  }
  load(2, 5);
}

TEST_F(PitTest, Mode3CountsByTwo) {
  gate2(true);
  control(2, 3, 3);
  load(2, 1000);
  ticksTo(10);
  EXPECT_EQ(read16(2), 980u);
  ticksTo(510);
  EXPECT_EQ(read16(2), 980u);
}

TEST_F(PitTest, Mode4StrobesOnce) {
  gate2(true);
  control(2, 3, 4);
  load(2, 10);
  ticksTo(9);
  EXPECT_TRUE(output2());
  ticksTo(10);
  EXPECT_FALSE(output2());
  ticksTo(11);
  EXPECT_TRUE(output2());
  control(0, 3, 4);
  int before = irq.rises;
  load(0, 100);
  clock.advance(kNanosecondsPerSecond);
  EXPECT_EQ(irq.rises, before + 1);
}

TEST_F(PitTest, Mode5StrobesAfterATrigger) {
  control(2, 3, 5);
  load(2, 10);
  ticksTo(50);
  gate2(true);
  ticksTo(61);
  EXPECT_TRUE(output2());
  gate2(false);
  gate2(true);
  ticksTo(71);
  EXPECT_FALSE(output2());
}

TEST_F(PitTest, BcdCounts) {
  gate2(true);
  control(2, 3, 2, 1);
  load(2, 0x1000);
  ticksTo(1);
  EXPECT_EQ(read16(2), 0x0999u);
  control(2, 3, 0, 1);
  load(2, 0);
  ticksTo(2);
  EXPECT_EQ(read16(2), 0x9999u);
}

TEST_F(PitTest, RefreshBitToggles) {
  unsigned changes = 0;
  std::uint64_t last = pit.systemControl().read(0, 1) & 0x10;
  for (int n = 0; n < 100; ++n) {
    clock.advance(10'000);
    std::uint64_t bit = pit.systemControl().read(0, 1) & 0x10;
    changes += bit != last;
    last = bit;
  }
  EXPECT_NEAR(changes, 66, 2);
}

TEST_F(PitTest, ResetStopsAndRestoreGoesOn) {
  control(0, 3, 2);
  load(0, 11932);
  ticksTo(6000);
  Pit::State state = pit.save();
  pit.reset();
  clock.advance(kNanosecondsPerSecond);
  int before = irq.rises;
  pit.restore(state);
  clock.advance(5'000'000);
  EXPECT_EQ(irq.rises, before + 1);
}

TEST_F(PitTest, TicksThatFindTheLastOneWaitingAreGivenLater) {
  control(0, 3, 2);
  load(0, 11932);  // 10 ms
  clock.advance(105'000'000);
  int before = irq.rises;
  irq.busy = true;
  clock.advance(200'000'000);
  EXPECT_EQ(irq.rises, before);
  irq.busy = false;
  clock.advance(5'000'000);
  EXPECT_LT(irq.rises, before + 10) << "not all at once";
  EXPECT_GT(irq.rises, before + 6) << "a machine that runs a tenth of the time gets all its ticks";
  clock.advance(90'000'000);
  clock.advance(200'000'000);
  EXPECT_EQ(irq.rises, before + 49);
  load(0, 11932);
  irq.busy = true;
  clock.advance(60 * kNanosecondsPerSecond);
  irq.busy = false;
  before = irq.rises;
  clock.advance(100 * kNanosecondsPerSecond);
  EXPECT_NEAR(irq.rises - before, 10000 + 400, 2) << "four seconds' worth at most";
}

TEST_F(PitTest, WhatIsOwedEndsWithANewCount) {
  control(0, 3, 2);
  load(0, 11932);
  irq.busy = true;
  clock.advance(kNanosecondsPerSecond);
  irq.busy = false;
  load(0, 0);
  int before = irq.rises;
  clock.advance(40'000'000);
  EXPECT_EQ(irq.rises, before + 1) << "the end of the last period of 10 ms";
}

TEST(PitClock, ALineThatWaitsIsNotAskedAllTheTime) {
  struct WaitingLine : FakeLine {
    bool waits() const override { return ++asked < 100'000; }
    mutable int asked = 0;
  };
  constexpr Nanoseconds kWaited = 100 * Pit::kMinimumPeriod;
  // One-shots and periods, of counts that end soon or at once.
  for (unsigned mode : {0u, 2u, 3u, 4u}) {
    for (unsigned count : {2u, 20u, 500u}) {
      FakeClock clock;
      WaitingLine irq;
      Pit pit{clock, irq};
      for (int n = 0; n < 2; ++n) {
        pit.counters().write(3, 1, 0x30 | mode << 1);
        pit.counters().write(0, 1, count & 0xff);
        pit.counters().write(0, 1, count >> 8);
        irq.asked = 0;
        clock.advance(kWaited);
        EXPECT_GE(irq.asked, 10) << mode << " " << count << ": the tick is owed";
        EXPECT_LE(irq.asked, 110) << mode << " " << count;
      }
    }
  }
}

TEST(PitClock, ALateTimerOwesTheTicksBetween) {
  struct LateClock : FakeClock {
    Nanoseconds now() const override { return FakeClock::now() + late; }
    Nanoseconds late = 0;
  } clock;
  FakeLine irq;
  Pit pit{clock, irq};
  pit.counters().write(3, 1, 0x34);
  pit.counters().write(0, 1, 11932 & 0xff);
  pit.counters().write(0, 1, 11932 >> 8);
  int before = irq.rises;
  clock.late = 95'000'000;
  clock.advance(10'100'000);
  EXPECT_EQ(irq.rises, before + 1);
  clock.late = 0;
  clock.advance(95'000'000);  // the same moment again
  EXPECT_EQ(irq.rises, before + 1);
  clock.advance(200'000'000);
  EXPECT_EQ(irq.rises, before + 30);
}

}  // namespace
}  // namespace lodge
