// SPDX-License-Identifier: Apache-2.0
#include "engine/kvm/tsc_rate.h"

#include <gtest/gtest.h>

namespace lodge::kvm {
namespace {

x86::CpuModel modelOf(std::uint64_t guest, std::uint64_t host) {
  x86::CpuModel model;
  model.tscHz = guest;
  model.hostTscHz = host;
  return model;
}

TEST(KvmTscRate, IsAnyWhereTheProcessorScales) {
  EXPECT_TRUE(judgeTscRate(modelOf(1'000'000'000, 2'500'000'000), true));
  EXPECT_TRUE(judgeTscRate(modelOf(5'000'000'000, 2'500'000'000), true));
}

TEST(KvmTscRate, ElseIsTheHosts) {
  EXPECT_TRUE(judgeTscRate(modelOf(2'500'100'000, 2'500'000'000), false)) << "near enough";
  Status faster = judgeTscRate(modelOf(3'000'000'000, 2'500'000'000), false);
  ASSERT_FALSE(faster);
  EXPECT_EQ(faster.error().kind(), ErrorKind::unsupported);
  EXPECT_EQ(
      faster.error().message(),
      "the guest's time stamp counter runs at 3000.000 MHz and the host's at 2500.000, and this host's KVM cannot "
      "scale it (KVM_CAP_TSC_CONTROL)");
  EXPECT_FALSE(judgeTscRate(modelOf(2'000'000'000, 2'500'000'000), false));
}

TEST(KvmTscRate, OfTheHostsNeedsNoKvm) {
  EXPECT_TRUE(keepsTscRate(modelOf(2'500'000'000, 2'500'000'000), "/dev/none"));
  EXPECT_FALSE(keepsTscRate(modelOf(3'000'000'000, 2'500'000'000), "/dev/none"));
}

TEST(KvmTscRate, IsRoundedAsTheProcessorHasIt) {
  constexpr std::uint64_t kGuest = 2'400'000, kHost = 3'100'007;
  auto exact = (static_cast<unsigned __int128>(kGuest) << 48) / kHost;
  std::uint64_t intel = scaleOfKvm(kGuest, kHost, x86::CpuVendor::intel).ratio();
  std::uint64_t amd = scaleOfKvm(kGuest, kHost, x86::CpuVendor::amd).ratio();
  EXPECT_EQ(intel, static_cast<std::uint64_t>(exact));
  EXPECT_EQ(amd, static_cast<std::uint64_t>(exact) & ~std::uint64_t{0xffff});
  EXPECT_NE(amd, intel);
  EXPECT_EQ(scaleOfKvm(kHost, kGuest, x86::CpuVendor::amd).ratio() & 0xffff, 0u) << "a faster one, too";
  EXPECT_TRUE(scaleOfKvm(2'400'100, 2'400'000, x86::CpuVendor::amd).isIdentity());
}

}  // namespace
}  // namespace lodge::kvm
