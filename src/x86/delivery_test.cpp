// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

TEST(Delivery, longModePushesTheWholeFrameOnTheInnerStack) {
  TestMachine m;
  m.long64(3);
  CpuState before = m.state();
  raisePageFault(*m, 0x1234, pf::user);
  deliverException(*m);
  CpuState& s = m.state();
  EXPECT_EQ(s.cr2, 0x1234u);
  EXPECT_EQ(s.cpl, 0);
  EXPECT_EQ(s.rip, 0x1000eu);
  EXPECT_EQ(s.segment[cs].selector, sel::code64);
  EXPECT_EQ(s.segment[ss].selector, 0);
  EXPECT_EQ(s.gpr[rsp], at::stack0 - 48);
  EXPECT_EQ(m.load<std::uint64_t>(at::stack0 - 48), pf::user);
  EXPECT_EQ(m.load<std::uint64_t>(at::stack0 - 40), before.rip);
  EXPECT_EQ(m.load<std::uint64_t>(at::stack0 - 32), sel::code64User);
  EXPECT_EQ(m.load<std::uint64_t>(at::stack0 - 24), before.rflags | flag::rf);
  EXPECT_EQ(m.load<std::uint64_t>(at::stack0 - 16), at::stack3);
  EXPECT_EQ(m.load<std::uint64_t>(at::stack0 - 8), sel::data3);
}

}  // namespace
}  // namespace lodge::x86
