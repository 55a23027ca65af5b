// SPDX-License-Identifier: Apache-2.0
#include "machine/saved_machine.h"

#include <gtest/gtest.h>

namespace lodge {
namespace {

using state::Snapshot;

x86::CpuModel modelOf(std::uint64_t guest, std::uint64_t host) {
  x86::CpuModel model;
  model.tscHz = guest;
  model.hostTscHz = host;
  return model;
}

struct Clocks {
  Nanoseconds now = 0, utc = 0;
};

std::vector<std::byte> saved(x86::CpuModel model, std::uint64_t tsc, Clocks clocks) {
  Snapshot out;
  transferClocks(out, model, tsc, clocks.now, clocks.utc);
  auto bytes = out.bytes();
  EXPECT_TRUE(bytes);
  return std::move(*bytes);
}

Status loaded(std::span<const std::byte> bytes, x86::CpuModel& model, std::uint64_t tsc, Clocks& clocks) {
  auto in = Snapshot::parse(bytes);
  EXPECT_TRUE(in);
  // As a machine does: for its model, and again when its clocks are set.
  Clocks first;
  transferClocks(*in, model, tsc - 12345, first.now, first.utc);
  transferClocks(*in, model, tsc, clocks.now, clocks.utc);
  return in->finish();
}

TEST(SavedClocks, TakeTheRateOfTheMachinesCounterToAnotherHost) {
  constexpr std::uint64_t kThere = 2'400'000'000, kHere = 3'600'000'000, kThen = std::uint64_t{1} << 50,
                          kNow = 1'000'000;
  x86::CpuModel there = modelOf(kThere, kThere), here = modelOf(kHere, kHere);
  there.tscBase = kThen - 5'000'000;
  Clocks clocks;
  Status done = loaded(saved(there, kThen, {77, 99}), here, kNow, clocks);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(clocks.now, 77);
  EXPECT_EQ(clocks.utc, 99);
  EXPECT_EQ(here.tscHz, kThere);
  EXPECT_EQ(here.hostTscHz, kHere);
  EXPECT_EQ(here.tscScale()(kNow - here.tscBase), 5'000'000u) << "since the guest's counter was 0";
  // And back: the host that it came from scales nothing.
  x86::CpuModel back = modelOf(kThere + 100'000, kThere + 100'000);
  done = loaded(saved(here, kNow, {78, 100}), back, kThen, clocks);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(back.tscHz, kThere);
  EXPECT_TRUE(back.tscScale().isIdentity());
  EXPECT_EQ(kThen - back.tscBase, 5'000'000u);
}

TEST(SavedClocks, RefuseARateThatNobodyHas) {
  for (std::uint64_t hz : {std::uint64_t{0}, std::uint64_t{999'999}, x86::kMostTscHz + 1, ~std::uint64_t{0}}) {
    Snapshot out;
    out.section("clocks", 2, [&](state::Archive& a) {
      Nanoseconds now = 1, utc = 1;
      std::uint64_t sinceZero = 1;
      a(now, sinceZero, hz, utc);
    });
    auto bytes = out.bytes();
    ASSERT_TRUE(bytes);
    x86::CpuModel here = modelOf(2'500'000'000, 2'500'000'000);
    auto in = Snapshot::parse(*bytes);
    ASSERT_TRUE(in);
    Clocks clocks;
    transferClocks(*in, here, 1, clocks.now, clocks.utc);
    ASSERT_FALSE(in->finish()) << hz;
    EXPECT_NE(in->finish().error().message().find("time stamp counter"), std::string::npos);
    EXPECT_EQ(here.tscHz, 2'500'000'000u);
  }
}

}  // namespace
}  // namespace lodge
