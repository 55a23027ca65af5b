// SPDX-License-Identifier: Apache-2.0
// SDM vol. 3, table 10-1 ("9-1" in older editions).
#include <gtest/gtest.h>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

TEST(Reset, timeStampCounterBeginsAtZeroByTheFactorOfTheEngine) {
  constexpr std::uint64_t kMonth = std::uint64_t{30} * 86400 * 2'500'000'000;
  TestMachine m;
  m.model->tscHz = 2'000'000'000;
  m.model->hostTscHz = 2'500'000'000;
  m.model->tscBase = kMonth;
  m->tscScale = TscScale::between(2'000'000'000, 2'500'050'000);  // 20 parts in a million: 52 s of a month
  ASSERT_NE(m->tscScale.ratio(), m.model->tscScale().ratio());
  m.state().tscOffset = 0;
  resetCpu(*m, false);
  EXPECT_EQ(m->tscAt(kMonth), 0u);
  EXPECT_NEAR(static_cast<double>(m->tscAt(kMonth + 2'500'050'000)), 2e9, 2);
}

TEST(Reset, powerUp) {
  TestMachine m;
  m.model->leaves = {{0, 0, 1, 0, 0, 0, false}, {1, 0, 0x00a1'0f11, 0, 0, 0, false}};
  m.state().gpr[rax] = 5;
  resetCpu(*m, false);
  const CpuState& s = m.state();
  EXPECT_EQ(s.rip, 0xfff0u);
  EXPECT_EQ(s.rflags, 2u);
  EXPECT_EQ(s.cr0, 0x6000'0010u);
  EXPECT_EQ(s.cr4, 0u);
  EXPECT_EQ(s.gpr[rax], 0u);
  EXPECT_EQ(s.gpr[rdx], 0x00a1'0f11u);
  EXPECT_EQ(s.segment[cs].selector, 0xf000);
  EXPECT_EQ(s.segment[cs].base, 0xffff'0000u);
  EXPECT_EQ(s.segment[ds].limit, 0xffffu);
  EXPECT_EQ(s.gdtr.limit, 0xffffu);
  EXPECT_EQ(s.dr[6], 0xffff'0ff0u);
  EXPECT_EQ(s.dr[7], 0x400u);
  EXPECT_EQ(s.xcr0, 1u);
  EXPECT_EQ(s.pat, 0x0007'0406'0007'0406u);
  EXPECT_EQ(s.apicBase, 0xfee0'0900u);
  EXPECT_EQ(s.activity, Activity::running);
  std::uint32_t mxcsr = 0;
  std::memcpy(&mxcsr, s.xsave + 24, 4);
  EXPECT_EQ(mxcsr, 0x1f80u);
  m->index = 3;
  resetCpu(*m, false);
  EXPECT_EQ(s.activity, Activity::waitForSipi);
  EXPECT_EQ(s.apicBase, 0xfee0'0800u);
}

TEST(Reset, initKeepsWhatInitKeeps) {
  TestMachine m;
  m.long64(3);
  CpuState& s = m.state();
  s.cr0 |= cr0::cd;
  s.lstar = 0x1234;
  s.kernelGsBase = 0x5678;
  s.xcr0 = 7;
  s.pat = 0x0606'0606'0606'0606;
  s.mtrrDefType = 0xc06;
  s.tscAdjust = 99;
  s.apicBase = 0xfee0'0d00;
  s.xsave[24] = std::byte{0x77};
  resetCpu(*m, true);
  EXPECT_EQ(s.cr0, 0x4000'0010u);
  EXPECT_EQ(s.efer, 0u);
  EXPECT_EQ(s.cpl, 0);
  EXPECT_EQ(s.rip, 0xfff0u);
  EXPECT_EQ(s.lstar, 0x1234u);
  EXPECT_EQ(s.kernelGsBase, 0x5678u);
  EXPECT_EQ(s.xcr0, 7u);
  EXPECT_EQ(s.pat, 0x0606'0606'0606'0606u);
  EXPECT_EQ(s.mtrrDefType, 0xc06u);
  EXPECT_EQ(s.tscAdjust, 99u);
  EXPECT_EQ(s.apicBase, 0xfee0'0d00u);
  EXPECT_EQ(s.xsave[24], std::byte{0x77});
  EXPECT_EQ(m.environment.localApic.resets, 1);
}

TEST(Reset, theTscRunsThroughAReset) {
  TestMachine m;
  m.real();
  std::uint64_t before = readTsc(*m);
  ASSERT_TRUE(writeMsr(*m, 0x10, before + 1'000'000'000'000));
  resetCpu(*m, false);
  std::uint64_t after = readTsc(*m);
  EXPECT_GE(after, before);
  EXPECT_LT(after - before, 100'000'000'000u) << "what the guest added is gone";
  EXPECT_EQ(m.state().tscAdjust, 0u);
}

}  // namespace
}  // namespace lodge::x86
