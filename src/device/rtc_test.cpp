// SPDX-License-Identifier: Apache-2.0
#include "device/rtc.h"

#include <gtest/gtest.h>

#include "base/fake_clock.h"
#include "base/units.h"
#include "device/fakes.h"

namespace lodge {
namespace {

constexpr Nanoseconds kSecond = kNanosecondsPerSecond;
constexpr std::int64_t kStart = 1'709'209'799;  // 2024-02-29 12:29:59 UTC, a Thursday

class RtcTest : public testing::Test {
 protected:
  unsigned get(unsigned index) {
    rtc.ports().write(0, 1, index);
    return static_cast<unsigned>(rtc.ports().read(1, 1));
  }
  void put(unsigned index, unsigned value) {
    rtc.ports().write(0, 1, index);
    rtc.ports().write(1, 1, value);
  }
  std::vector<unsigned> now() { return {get(0x32), get(9), get(8), get(7), get(4), get(2), get(0)}; }
  using Time = std::vector<unsigned>;

  Nanoseconds hostBase = kStart * kSecond;
  FakeClock clock;
  FakeLine irq;
  Rtc rtc{{.timers = clock,
           .irq8 = irq,
           .utc = [this] { return hostBase + clock.now(); },
           .lowMemory = 3_GiB,
           .highMemory = 5_GiB,
           .cpus = 4}};
};

TEST_F(RtcTest, TimeInBcdAndBinary) {
  EXPECT_EQ(now(), (Time{0x20, 0x24, 0x02, 0x29, 0x12, 0x29, 0x59}));
  EXPECT_EQ(get(6), 5u) << "Sunday is 1";
  put(0x0b, 6);
  EXPECT_EQ(now(), (Time{20, 24, 2, 29, 12, 29, 59}));
  clock.advance(kSecond);
  EXPECT_EQ(now(), (Time{20, 24, 2, 29, 12, 30, 0}));
  clock.advance(12 * 3600 * kSecond);
  EXPECT_EQ(now(), (Time{20, 24, 3, 1, 0, 30, 0}));
}

TEST_F(RtcTest, TwelveHours) {
  put(0x0b, 0);
  EXPECT_EQ(get(4), 0x92u) << "noon is 12 PM";
  clock.advance(3600 * kSecond);
  EXPECT_EQ(get(4), 0x81u);
  clock.advance(11 * 3600 * kSecond);
  EXPECT_EQ(get(4), 0x12u) << "midnight is 12 AM";
  put(4, 0x83);
  put(0x0b, 2);
  EXPECT_EQ(get(4), 0x15u);
}

TEST_F(RtcTest, SettingTheTimeUnderSet) {
  put(0x0b, 0x82);
  clock.advance(5 * kSecond);
  EXPECT_EQ(get(0), 0x59u) << "SET holds the clock";
  put(7, 0x31);
  put(8, 0x12);
  put(9, 0x99);
  put(0x32, 0x19);
  put(4, 0x23);
  put(2, 0x59);
  put(0, 0x58);
  EXPECT_EQ(get(7), 0x31u);
  put(0x0b, 2);
  EXPECT_EQ(now(), (Time{0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58}));
  clock.advance(2 * kSecond);
  EXPECT_EQ(now(), (Time{0x20, 0x00, 0x01, 0x01, 0x00, 0x00, 0x00}));
  EXPECT_EQ(get(6), 7u);
}

TEST_F(RtcTest, DividerResetStartsHalfASecondBeforeTheUpdate) {
  put(0x0a, 0x70);
  clock.advance(10 * kSecond);
  put(0, 0x10);
  EXPECT_EQ(get(0), 0x10u);
  put(0x0a, 0x26);
  clock.advance(kSecond / 2 - 1);
  EXPECT_EQ(get(0), 0x10u);
  clock.advance(1);
  EXPECT_EQ(get(0), 0x11u);
}

TEST_F(RtcTest, SettingAFieldWhileRunning) {
  put(9, 0x30);
  EXPECT_EQ(now(), (Time{0x20, 0x30, 0x03, 0x01, 0x12, 0x29, 0x59})) << "2030 has no February 29";
}

TEST_F(RtcTest, NonsenseFromTheGuestIsATimeToo) {
  put(0x0b, 0x86);
  for (unsigned index : {0u, 2u, 4u, 6u, 7u, 8u, 9u, 0x32u}) put(index, 0xff);
  put(0x0b, 6);
  EXPECT_EQ(get(0x32), 22u);
  put(0x0b, 0x82);
  for (unsigned index : {0u, 2u, 4u, 6u, 7u, 8u, 9u, 0x32u}) put(index, 0);
  put(0x0b, 2);
  EXPECT_EQ(get(0x32), 0x19u);
  EXPECT_EQ(get(9), 0x70u);
}

TEST_F(RtcTest, UpdateInProgress) {
  clock.advance(kSecond - 244'000 - 1);
  EXPECT_EQ(get(0x0a), 0x26u);
  clock.advance(1);
  EXPECT_EQ(get(0x0a), 0xa6u);
  clock.advance(244'000);
  EXPECT_EQ(get(0x0a), 0x26u);
}

TEST_F(RtcTest, UpdateEndedInterrupt) {
  clock.advance(kSecond / 4);
  put(0x0b, 0x12);
  EXPECT_FALSE(irq.level);
  clock.advance(kSecond * 3 / 4);
  EXPECT_TRUE(irq.level);
  EXPECT_EQ(get(0x0c) & 0x90, 0x90u);
  EXPECT_FALSE(irq.level) << "reading C ends it";
  clock.advance(10 * kSecond);
  EXPECT_EQ(irq.rises, 2) << "still high: nobody read C";
}

TEST_F(RtcTest, PeriodicInterrupt) {
  put(0x0a, 0x2a);  // 64 Hz
  put(0x0b, 0x42);
  int count = 0;
  for (int n = 0; n < 1000; ++n) {
    clock.advance(kSecond / 1000);
    if (irq.level) {
      ++count;
      EXPECT_EQ(get(0x0c) & 0xc0, 0xc0u);
    }
  }
  EXPECT_EQ(count, 64);
  put(0x0a, 0x20);
  clock.advance(kSecond);
  EXPECT_FALSE(irq.level) << "rate 0 is none";
}

TEST_F(RtcTest, PeriodicRates) {
  const std::pair<unsigned, int> rates[] = {{1, 256}, {2, 128}, {3, 8192}, {6, 1024}, {15, 2}};
  put(0x0b, 0x42);
  for (auto [rate, hz] : rates) {
    put(0x0a, 0x20 | rate);
    get(0x0c);
    Nanoseconds period = kSecond / hz;
    int before = irq.rises;
    for (int n = 0; n < 8; ++n) {
      clock.advance(period);
      get(0x0c);
    }
    EXPECT_NEAR(irq.rises - before, 8, 1) << rate;
  }
}

TEST_F(RtcTest, Alarm) {
  put(1, 0x10);
  put(3, 0x30);
  put(5, 0x12);
  put(0x0b, 0x22);
  clock.advance(10 * kSecond);
  EXPECT_FALSE(irq.level);
  clock.advance(kSecond);
  EXPECT_TRUE(irq.level);
  EXPECT_EQ(get(0x0c) & 0xa0, 0xa0u);
  clock.advance(86'399 * kSecond);
  EXPECT_FALSE(irq.level);
  clock.advance(kSecond);
  EXPECT_TRUE(irq.level) << "the next day again";
}

TEST_F(RtcTest, AlarmWildcards) {
  put(1, 0xff);
  put(3, 0xc0);
  put(5, 0xff);
  put(0x0b, 0x22);
  for (int n = 0; n < 5; ++n) {
    clock.advance(kSecond);
    EXPECT_EQ(get(0x0c) & 0xa0, 0xa0u);
  }
  EXPECT_EQ(irq.rises, 5);
}

TEST_F(RtcTest, FlagsWithoutInterrupts) {
  get(0x0c);
  EXPECT_EQ(get(0x0c) & 0x10, 0u);
  clock.advance(kSecond);
  EXPECT_EQ(get(0x0c) & 0x90, 0x10u);
  EXPECT_EQ(irq.rises, 0);
  put(1, 0x05);
  put(3, 0xff);
  put(5, 0xff);
  clock.advance(1'000'000 * kSecond);
  EXPECT_EQ(get(0x0c) & 0x20, 0x20u);
}

TEST_F(RtcTest, CmosBytesForFirmware) {
  EXPECT_EQ(get(0x15) | get(0x16) << 8, 640u);
  EXPECT_EQ(get(0x30) | get(0x31) << 8, 0xffffu);
  EXPECT_EQ(get(0x34) | get(0x35) << 8, (3_GiB - 16_MiB) / 64_KiB);
  EXPECT_EQ(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 5_GiB / 64_KiB);
  EXPECT_EQ(get(0x5f), 3u);
  EXPECT_EQ(get(0x0d), 0x80u);
}

TEST_F(RtcTest, MemoryKeepsAndResetLeavesIt) {
  put(0x0f, 0x0a);
  put(0x8f, 0x0a);
  put(0x7f, 0x55);
  put(0x0b, 0x72);
  clock.advance(kSecond);
  EXPECT_TRUE(irq.level);
  rtc.reset();
  EXPECT_FALSE(irq.level);
  EXPECT_EQ(get(0x0b), 0x02u);
  EXPECT_EQ(get(0x0f), 0x0au);
  EXPECT_EQ(get(0x7f), 0x55u);
  EXPECT_EQ(rtc.ports().read(0, 1), 0xffu);
}

TEST_F(RtcTest, HostTimeSetBackDoesNotHang) {
  put(0x0b, 0x72);
  clock.advance(kSecond);
  hostBase -= 1'000'000 * kSecond;
  clock.advance(kSecond);
  get(0x0c);
  clock.advance(kSecond);
  EXPECT_TRUE(irq.level);
}

TEST_F(RtcTest, SaveAndRestore) {
  put(9, 0x30);
  put(0x0b, 0x12);
  Rtc::State state = rtc.save();
  put(9, 0x40);
  put(0x0b, 0x02);
  rtc.restore(state);
  EXPECT_EQ(get(9), 0x30u);
  clock.advance(kSecond);
  EXPECT_TRUE(irq.level);
}

TEST_F(RtcTest, PeriodicInterruptsThatAreNotAnsweredAreGivenLater) {
  put(0x0a, 0x26);  // 1024 Hz
  get(0x0c);
  put(0x0b, 0x42);
  int answered = 0;
  auto serve = [&](Nanoseconds span) {
    for (Nanoseconds done = 0; done < span; done += 50'000) {
      clock.advance(50'000);
      if (irq.level) answered += (get(0x0c) & 0x40) != 0 ? 1 : 0;
    }
  };
  serve(kSecond / 4);
  clock.advance(kSecond / 4);  // nobody reads register C
  serve(kSecond / 2);
  EXPECT_NEAR(answered, 1024, 1);
  clock.advance(60 * kSecond);
  answered = 0;
  serve(8 * kSecond);
  EXPECT_NEAR(answered, 8 * 1024 + 4 * 1024, 3) << "four seconds' worth at most";
  put(0x0b, 0x02);
  clock.advance(kSecond);
  put(0x0b, 0x42);
  answered = 0;
  serve(kSecond);
  EXPECT_NEAR(answered, 1024, 1);
}

}  // namespace
}  // namespace lodge
