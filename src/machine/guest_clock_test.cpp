// SPDX-License-Identifier: Apache-2.0
#include "machine/guest_clock.h"

#include <gtest/gtest.h>

#include <limits>
#include <memory>

namespace lodge {
namespace {

class GuestClock : public testing::Test {
 protected:
  void SetUp() override {
    memory_ = std::move(*GuestMemory::create(4_MiB));
    cpu_ = std::make_unique<x86::Cpu>();
    cpu_->memory = memory_.get();
  }
  template <class T>
  T at(std::uint64_t gpa) {
    T value{};
    EXPECT_TRUE(memory_->readObject(Gpa{gpa}, value));
    return value;
  }
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<x86::Cpu> cpu_;
};

TEST_F(GuestClock, TellsAGuestThatUsesItOfAStandstill) {
  ASSERT_TRUE(memory_->writeObject(Gpa{0x1000 + 29}, std::uint8_t{1}));
  cpu_->state.pvSystemTime = 0x1000;
  noteStandstill(*cpu_);
  EXPECT_EQ(at<std::uint8_t>(0x1000 + 29), 1) << "it is off";
  cpu_->state.pvSystemTime = 0x1001;
  noteStandstill(*cpu_);
  EXPECT_EQ(at<std::uint8_t>(0x1000 + 29), 3) << "TSC_STABLE stays, GUEST_STOPPED is new";
  EXPECT_EQ(at<std::uint32_t>(0x1000), 0u) << "and nothing else";
  cpu_->state.pvSystemTime = (std::uint64_t{1} << 40) | 1;
  noteStandstill(*cpu_);  // nothing is there
}

TEST_F(GuestClock, IsPairedWithTheHosts) {
  cpu_->state.tscOffset = std::uint64_t{0} - 1000;
  std::uint64_t tsc = __builtin_ia32_rdtsc() - 1000;
  Nanoseconds now = hostUtc();
  EXPECT_EQ(pairClocks(*cpu_, 0x2000, 0), 0);
  Nanoseconds said = at<std::int64_t>(0x2000) * kNanosecondsPerSecond + at<std::int64_t>(0x2008);
  EXPECT_GE(said, now);
  EXPECT_LE(said, hostUtc());
  EXPECT_GE(at<std::uint64_t>(0x2010), tsc);
  EXPECT_LE(at<std::uint64_t>(0x2010), __builtin_ia32_rdtsc() - 1000);
  EXPECT_EQ(at<std::uint32_t>(0x2018), 0u);
  cpu_->tscScale = x86::TscScale::between(7, 2);
  tsc = cpu_->tscAt(__builtin_ia32_rdtsc());
  EXPECT_EQ(pairClocks(*cpu_, 0x2000, 0), 0);
  EXPECT_GE(at<std::uint64_t>(0x2010), tsc);
  EXPECT_LE(at<std::uint64_t>(0x2010), cpu_->tscAt(__builtin_ia32_rdtsc()));
  EXPECT_EQ(pairClocks(*cpu_, 0x2000, 1), -95);
  EXPECT_EQ(pairClocks(*cpu_, std::uint64_t{1} << 40, 0), -14);
  EXPECT_EQ(pairClocks(*cpu_, 4_MiB - 32, 0), -14) << "half of it";
}

TEST(GuestTsc, IsATimeOfTheMachines) {
  constexpr std::uint64_t kHz = 2'500'000'000, kHalf = std::uint64_t{1} << 63;
  constexpr Nanoseconds kNow = 7'000, kCentury = 100ll * 365 * 86400 * kNanosecondsPerSecond;
  EXPECT_EQ(timeOfTsc(1000, 1000, kHz, kNow), kNow);
  EXPECT_EQ(timeOfTsc(1, ~std::uint64_t{0}, kHz, kNow), kNow) << "it has passed";
  EXPECT_EQ(timeOfTsc(3500, 1000, kHz, kNow), kNow + 1001);
  // Comparisons are unsigned, whatever lies between.
  EXPECT_GT(timeOfTsc(1000 + kHalf, 1000, kHz, kNow), kNow + kCentury);
  EXPECT_GT(timeOfTsc(~std::uint64_t{0}, 0, kHz, kNow), kNow + kCentury);
  EXPECT_EQ(timeOfTsc(~std::uint64_t{0}, 0, 1000, kNow), std::numeric_limits<Nanoseconds>::max() / 2);
  EXPECT_EQ(timeOfTsc(~std::uint64_t{0}, ~std::uint64_t{0} - 5, 1'000'000'000, kNow), kNow + 6);
}

}  // namespace
}  // namespace lodge
