// SPDX-License-Identifier: Apache-2.0
#include "x86/debug_registers.h"

#include <gtest/gtest.h>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

constexpr std::uint64_t kData = 0x5'0000;

struct Debug : testing::Test {
  TestMachine m;
  CpuState& s = m.state();
  void SetUp() override { m.long64(0); }
  void arm(unsigned number, std::uint64_t address, unsigned kind, unsigned length) {
    s.dr[number] = address;
    s.dr[7] |= 1ull << 2 * number | std::uint64_t{kind | length << 2} << (16 + 4 * number);
    clearTlb(*m);
  }
  std::uint64_t hits() {
    std::uint64_t bits = s.pendingDebug;
    s.pendingDebug = 0;
    return bits;
  }
  std::uint64_t afterRead(std::uint64_t at, unsigned size) {
    std::uint64_t value = 0;
    EXPECT_TRUE(readLinear(*m, at, size, value));
    return hits();
  }
  std::uint64_t afterWrite(std::uint64_t at, unsigned size) {
    EXPECT_TRUE(writeLinear(*m, at, size, 0));
    return hits();
  }
};

TEST_F(Debug, registersAndTheirNames) {
  std::uint64_t value = 0;
  EXPECT_TRUE(writeDebug(*m, 0, 0x1234'5678'9abc));
  EXPECT_TRUE(readDebug(*m, 0, value));
  EXPECT_EQ(value, 0x1234'5678'9abcu);
  EXPECT_TRUE(writeDebug(*m, 6, 0));
  EXPECT_TRUE(readDebug(*m, 4, value));
  EXPECT_EQ(value, 0xffff'0ff0u) << "DR4 is DR6";
  EXPECT_TRUE(writeDebug(*m, 5, ~0ull & 0xffff'dfff));
  EXPECT_TRUE(readDebug(*m, 7, value));
  EXPECT_EQ(value, 0xffff'07ffu);
  s.dr[7] = 0x400;
  EXPECT_FALSE(writeDebug(*m, 7, 1ull << 32));
  EXPECT_EQ(take(*m), gp(0));
  EXPECT_FALSE(writeDebug(*m, 6, 1ull << 32));
  EXPECT_EQ(take(*m), gp(0));
  s.cr4 |= cr4::de;
  EXPECT_FALSE(readDebug(*m, 4, value));
  EXPECT_EQ(take(*m), ud());
  EXPECT_FALSE(readDebug(*m, 8, value));
  EXPECT_EQ(take(*m), ud());
  m.setCpl(3);
  EXPECT_FALSE(readDebug(*m, 0, value));
  EXPECT_EQ(take(*m), gp(0));
}

TEST_F(Debug, generalDetect) {
  s.dr[7] |= 1 << 13;
  std::uint64_t value = 0;
  EXPECT_FALSE(readDebug(*m, 0, value));
  EXPECT_EQ(m->exception.vector, 1);
  EXPECT_EQ(m->exception.debugStatus, 1u << 13);
}

TEST_F(Debug, dataBreakpointsByKindAndLength) {
  arm(0, kData + 4, 1, 3);  // write, 4 bytes
  EXPECT_EQ(afterRead(kData + 4, 4), 0u);
  EXPECT_EQ(afterWrite(kData + 4, 4), 1u);
  EXPECT_EQ(afterWrite(kData + 7, 1), 1u);
  EXPECT_EQ(afterWrite(kData + 8, 4), 0u);
  EXPECT_EQ(afterWrite(kData, 4), 0u);
  EXPECT_EQ(afterWrite(kData + 1, 4), 1u) << "overlap";
  arm(1, kData + 0x10, 3, 2);  // read or write, 8 bytes
  EXPECT_EQ(afterRead(kData + 0x17, 1), 2u);
  EXPECT_EQ(afterWrite(kData + 0x10, 8), 2u);
  arm(2, kData + 0x11, 3, 0);  // 1 byte
  EXPECT_EQ(afterRead(kData + 0x10, 8), 2u | 4u);
  std::byte buffer[64] = {};
  EXPECT_TRUE(writeLinearBytes(*m, kData, buffer, 64));
  EXPECT_EQ(hits(), 7u);
  arm(3, kData + 0x1000 - 1, 3, 0);
  EXPECT_EQ(afterRead(kData + 0xffc, 8), 8u) << "across pages";
}

TEST_F(Debug, lengthsIgnoreLowAddressBits) {
  arm(0, kData + 7, 1, 3);
  EXPECT_EQ(afterWrite(kData + 4, 1), 1u);
}

TEST_F(Debug, faultingAccessesDoNotHit) {
  m.mapSmallPages();
  arm(0, kData, 3, 0);
  m.store<std::uint64_t>(TestMachine::entryOf(kData), 0);
  std::uint64_t value = 0;
  EXPECT_FALSE(readLinear(*m, kData, 1, value));
  EXPECT_EQ(hits(), 0u);
}

TEST_F(Debug, instructionBreakpoints) {
  arm(0, at::code, 0, 0);
  EXPECT_FALSE(beforeInstruction(*m));
  EXPECT_EQ(m->exception.debugStatus, 1u);
  m->exception.valid = false;
  s.rflags |= flag::rf;
  EXPECT_TRUE(beforeInstruction(*m)) << "RF lets it pass once";
  EXPECT_EQ(s.rflags & flag::rf, 0u);
  EXPECT_FALSE(beforeInstruction(*m));
  s.rip += 1;
  EXPECT_TRUE(beforeInstruction(*m));
  EXPECT_EQ(afterRead(at::code, 1), 0u) << "data accesses do not hit it";
}

TEST_F(Debug, singleStep) {
  s.rflags |= flag::tf;
  afterInstruction(*m, s.rflags, 0);
  EXPECT_EQ(s.rip, 0x1'0001u);
  EXPECT_EQ(s.dr[6], 0xffff'4ff0u);
  EXPECT_EQ(s.rflags & flag::tf, 0u);
  EXPECT_NE(m.load<std::uint64_t>(s.gpr[rsp] + 16) & flag::tf, 0u);
}

TEST_F(Debug, theFlagBeforeTheInstructionCounts) {
  s.rflags |= flag::tf;  // set by POPF just now
  afterInstruction(*m, 2, 0);
  EXPECT_EQ(s.rip, at::code);
}

TEST_F(Debug, movSsHoldsTrapsBack) {
  arm(0, kData, 3, 0);
  s.rflags |= flag::tf;
  afterRead(kData, 1);
  s.pendingDebug = 1;
  s.interruptShadow = 2;  // the instruction was MOV SS, [kData]
  afterInstruction(*m, s.rflags, 0);
  EXPECT_EQ(s.rip, at::code);
  EXPECT_EQ(s.pendingDebug, 1u) << "the data breakpoint waits";
  s.rflags &= ~flag::tf;
  afterInstruction(*m, s.rflags, 2);
  EXPECT_EQ(s.rip, 0x1'0001u);
  EXPECT_EQ(s.dr[6] & 0x400f, 1u);
}

TEST_F(Debug, faultsDropTheHitsOfTheirInstruction) {
  s.pendingDebug = 1;
  raiseGp(*m, 0);
  deliverException(*m);
  EXPECT_EQ(s.pendingDebug, 0u);
}

TEST_F(Debug, portBreakpoints) {
  arm(0, 0x3f8, 2, 1);  // I/O, 2 bytes
  EXPECT_TRUE(checkIoPermission(*m, 0x3f9, 1));
  EXPECT_EQ(hits(), 0u) << "CR4.DE is off";
  s.cr4 |= cr4::de;
  EXPECT_TRUE(checkIoPermission(*m, 0x3f9, 1));
  EXPECT_EQ(hits(), 1u);
  EXPECT_TRUE(checkIoPermission(*m, 0x3fa, 1));
  EXPECT_EQ(hits(), 0u);
}

TEST_F(Debug, hooksAreNeededWhenSomethingIsArmed) {
  EXPECT_FALSE(instructionHooksNeeded(*m));
  s.rflags |= flag::tf;
  EXPECT_TRUE(instructionHooksNeeded(*m));
  s.rflags = 2;
  s.dr[7] |= 2;
  EXPECT_TRUE(instructionHooksNeeded(*m));
  s.dr[7] = 0x400;
  s.interruptShadow = 1;
  EXPECT_TRUE(instructionHooksNeeded(*m));
}

}  // namespace
}  // namespace lodge::x86
