// SPDX-License-Identifier: Apache-2.0
#include "x86/cpu_model.h"

#include <gtest/gtest.h>

#include <set>
#include <tuple>

#include "x86/model/feature_bits.h"
#include "x86/model/host_cpu.h"
#include "x86/system.h"

namespace lodge::x86 {
namespace {

struct Leaf {
  std::uint32_t r[4];
};
Leaf ask(const CpuModel& model, unsigned index, std::uint32_t leaf, std::uint32_t subleaf = 0) {
  auto cpu = std::make_unique<Cpu>();
  cpu->model = &model;
  cpu->index = index;
  cpu->state.xcr0 = 7;
  cpu->state.apicBase = 0xfee00900;
  Leaf l{};
  cpuid(*cpu, leaf, subleaf, l.r);
  return l;
}

TEST(CpuModel, tableHasNoBitTwice) {
  std::set<std::tuple<std::uint32_t, std::uint32_t, int, int>> seen;
  for (const FeatureBit& b : featureBits()) {
    EXPECT_TRUE(seen.emplace(b.leaf, b.subleaf, static_cast<int>(b.reg), b.bit).second) << b.name;
  }
}

TEST(CpuModel, leavesAreSortedAndUnique) {
  for (const std::string& name : cpuModelNames()) {
    auto model = makeCpuModel(name, 4);
    if (!model && name == "x86-64-v4") continue;  // needs a host with AVX-512
    ASSERT_TRUE(model) << model.error().message();
    const auto& leaves = (*model)->leaves;
    for (std::size_t i = 1; i < leaves.size(); ++i) {
      EXPECT_LT(std::tie(leaves[i - 1].leaf, leaves[i - 1].subleaf), std::tie(leaves[i].leaf, leaves[i].subleaf))
          << name;
    }
  }
}

TEST(CpuModel, levelsOfferTheirFeaturesAndNoMore) {
  auto v2 = makeCpuModel("x86-64-v2", 1);
  auto v3 = makeCpuModel("x86-64-v3", 1);
  ASSERT_TRUE(v2 && v3);
  EXPECT_TRUE((*v2)->has(Feature::sse42));
  EXPECT_FALSE((*v2)->has(Feature::avx));
  EXPECT_TRUE((*v3)->has(Feature::avx2));
  EXPECT_FALSE((*v3)->has(Feature::avx512));
  EXPECT_EQ(ask(**v2, 0, 1).r[2] >> 28 & 1, 0u);
  EXPECT_EQ(ask(**v3, 0, 1).r[2] >> 28 & 1, 1u);
  EXPECT_EQ(ask(**v3, 0, 1).r[2] >> 31, 1u) << "a hypervisor is there";
}

TEST(CpuModel, noOtherFeatureThanTheHostsIsOffered) {
  auto host = makeCpuModel("host", 1);
  ASSERT_TRUE(host);
  for (const FeatureBit& b : featureBits()) {
    if (b.carrier == Carrier::lodge) continue;
    if (b.vendor == OnlyFor::amd && (*host)->vendor != CpuVendor::amd) continue;
    CpuidResult native = hostCpu().cpuid(b.leaf, b.subleaf);
    Leaf guest = ask(**host, 0, b.leaf, b.subleaf);
    int where = static_cast<int>(b.reg);
    EXPECT_EQ(guest.r[where] >> b.bit & 1, native[b.reg] >> b.bit & 1) << b.name;
  }
}

TEST(CpuModel, topologyNumbersTheCpus) {
  auto model = makeCpuModel("x86-64-v3", 6);
  ASSERT_TRUE(model);
  EXPECT_EQ(ask(**model, 5, 0xb, 0).r[3], 5u);
  Leaf core = ask(**model, 5, 0xb, 1);
  EXPECT_EQ(core.r[0], 3u) << "bits to shift for six CPUs";
  EXPECT_EQ(core.r[1], 6u);
  EXPECT_EQ(ask(**model, 5, 1).r[1] >> 24, 5u);
}

TEST(CpuModel, xsaveSizesFollowXcr0) {
  auto model = makeCpuModel("x86-64-v3", 1);
  ASSERT_TRUE(model);
  Leaf l = ask(**model, 0, 0xd, 0);
  EXPECT_EQ(l.r[0], 7u);
  EXPECT_EQ(l.r[1], 832u);
  EXPECT_EQ(l.r[2], 832u);
}

TEST(CpuModel, unknownNameIsRefusedWithTheList) {
  auto model = makeCpuModel("pentium", 1);
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().kind(), ErrorKind::notFound);
  EXPECT_EQ(model.error().hint(), "known models: x86-64-v2, x86-64-v3, x86-64-v4, host");
}

TEST(HostCpu, tscRateIsPlausible) {
  std::uint64_t hz = hostCpu().tscHz();
  EXPECT_GT(hz, 500'000'000u);
  EXPECT_LT(hz, 10'000'000'000u);
}

}  // namespace
}  // namespace lodge::x86
