// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

constexpr std::uint64_t kNext = at::code + 7;

struct Tasks : testing::Test {
  TestMachine m;
  CpuState& s = m.state();

  void SetUp() override {
    m.protected32(0);
    m.setDescriptor(sel::tss, TestMachine::descriptor(at::tss, 0x2067, 0x8b, 0));
    for (unsigned i = 0; i < 8; ++i) s.gpr[i] = 0x1000 + i;
    s.gpr[rsp] = at::stack0;
    fill(at::tss2);
  }
  void fill(std::uint64_t tss) {
    m.store<std::uint32_t>(tss + 28, 0);
    m.store<std::uint32_t>(tss + 32, 0x7000);
    m.store<std::uint32_t>(tss + 36, 0x202);
    for (std::uint32_t i = 0; i < 8; ++i) m.store<std::uint32_t>(tss + 40 + 4 * i, 0x2000 + i);
    m.store<std::uint32_t>(tss + 40 + 16, 0x8800);
    const std::uint16_t selectors[] = {sel::data0, sel::code0, sel::data0, sel::data0, 0, 0};
    for (unsigned i = 0; i < 6; ++i) m.store<std::uint32_t>(tss + 72 + 4 * i, selectors[i]);
    m.store<std::uint32_t>(tss + 96, sel::ldt);
    m.store<std::uint32_t>(tss + 100, 0);
  }
  Raised jump() { return farJump(*m, sel::tss2, 0, 4, kNext) ? Raised{} : take(*m); }
  Raised call() { return farCall(*m, sel::tss2, 0, 4, kNext) ? Raised{} : take(*m); }
  unsigned type(std::uint16_t selector) { return m.load<std::uint8_t>(at::gdt + (selector & ~7u) + 5) & 15; }
};

TEST_F(Tasks, jumpSavesAndLoadsEverything) {
  s.rflags = 0x4002;
  EXPECT_EQ(jump(), Raised{});
  EXPECT_EQ(m.load<std::uint32_t>(at::tss + 32), kNext);
  EXPECT_EQ(m.load<std::uint32_t>(at::tss + 36), 0x4002u);
  EXPECT_EQ(m.load<std::uint32_t>(at::tss + 40), 0x1000u);
  EXPECT_EQ(m.load<std::uint32_t>(at::tss + 40 + 28), 0x1007u);
  EXPECT_EQ(m.load<std::uint16_t>(at::tss + 76), sel::code0);
  EXPECT_EQ(s.rip, 0x7000u);
  EXPECT_EQ(s.rflags, 0x202u);
  EXPECT_EQ(s.gpr[rdi], 0x2007u);
  EXPECT_EQ(s.gpr[rsp], 0x8800u);
  EXPECT_EQ(s.segment[ds].selector, sel::data0);
  EXPECT_EQ(s.segment[ds].limit, 0xffff'ffffu);
  EXPECT_FALSE(s.segment[fs].present());
  EXPECT_EQ(s.ldtr.selector, sel::ldt);
  EXPECT_EQ(s.tr.selector, sel::tss2);
  EXPECT_NE(s.cr0 & cr0::ts, 0u);
  EXPECT_EQ(type(sel::tss), 9u) << "available again";
  EXPECT_EQ(type(sel::tss2), 11u);
}

TEST_F(Tasks, callNestsAndIretReturns) {
  EXPECT_EQ(call(), Raised{});
  EXPECT_EQ(s.rflags, 0x4202u) << "NT";
  EXPECT_EQ(m.load<std::uint16_t>(at::tss2), sel::tss);
  EXPECT_EQ(type(sel::tss), 11u);
  EXPECT_TRUE(interruptReturn(*m, 4, s.rip + 1));
  EXPECT_EQ(s.rip, kNext);
  EXPECT_EQ(s.tr.selector, sel::tss);
  EXPECT_EQ(m.load<std::uint32_t>(at::tss2 + 36), 0x202u) << "NT is cleared in the task that ends";
  EXPECT_EQ(m.load<std::uint32_t>(at::tss2 + 32), 0x7001u);
  EXPECT_EQ(type(sel::tss2), 9u);
}

TEST_F(Tasks, iretRules) {
  s.rflags |= flag::nt;
  auto iret = [&] { return interruptReturn(*m, 4, 0) ? Raised{} : take(*m); };
  m.store<std::uint16_t>(at::tss, sel::tss2);
  EXPECT_EQ(iret(), ts(sel::tss2)) << "not busy";
  m.store<std::uint16_t>(at::tss, sel::tss2 | 4);
  EXPECT_EQ(iret(), ts(sel::tss2 | 4));
  m.store<std::uint16_t>(at::tss, sel::data0);
  EXPECT_EQ(iret(), ts(sel::data0));
}

TEST_F(Tasks, privilegeAndTypeRules) {
  EXPECT_EQ(farJump(*m, sel::tss, 0, 4, kNext) ? Raised{} : take(*m), gp(sel::tss)) << "busy";
  m.setDescriptor(sel::tss2, TestMachine::descriptor(at::tss2, 0x67, 0x09, 0));
  EXPECT_EQ(jump(), np(sel::tss2));
  m.setDescriptor(sel::tss2, TestMachine::descriptor(at::tss2, 0x66, 0x89, 0));
  EXPECT_EQ(jump(), ts(sel::tss2)) << "too short";
  m.setDescriptor(sel::tss2, TestMachine::descriptor(at::tss2, 0x67, 0x89, 0));
  m.setCpl(3);
  EXPECT_EQ(jump(), gp(sel::tss2)) << "DPL 0";
  m.state().gdtr.limit = 0xffff;
  m.setDescriptor(sel::taskGate, TestMachine::gate(sel::tss2, 0, 0xe5));
  EXPECT_EQ(farCall(*m, sel::taskGate | 3, 0, 4, kNext) ? Raised{} : take(*m), Raised{})
      << "through a gate, the TSS's DPL is moot";
  EXPECT_EQ(s.cpl, 0);
}

TEST_F(Tasks, interruptsThroughTaskGates) {
  m.setGate(13, sel::tss2, 0, 0x85);
  raiseGp(*m, 0x77);
  deliverException(*m);
  EXPECT_EQ(s.rip, 0x7000u);
  EXPECT_EQ(s.gpr[rsp], 0x8800u - 4);
  EXPECT_EQ(m.load<std::uint32_t>(0x8800 - 4), 0x77u) << "error code on the new task's stack";
  EXPECT_EQ(m.load<std::uint32_t>(at::tss + 32), at::code);
  EXPECT_EQ(s.rflags, 0x4202u);
  EXPECT_EQ(m.load<std::uint16_t>(at::tss2), sel::tss);
}

TEST_F(Tasks, segmentTroubleBelongsToTheNewTask) {
  struct Case {
    unsigned slot;
    std::uint16_t selector;
    Raised want;
  };
  const Case cases[] = {{76, 0, ts(0)},
                        {76, sel::data0, ts(sel::data0)},
                        {80, 0, ts(0)},
                        {80, sel::data3, ts(sel::data3 & ~3)},
                        {84, sel::executeOnly, ts(sel::executeOnly)},
                        {88, sel::notPresent, np(sel::notPresent)},
                        {96, sel::data0, ts(sel::data0)},
                        {96, 0x24, ts(0x24)}};
  for (const Case& c : cases) {
    SetUp();
    s.tr = {at::tss, 0x2067, sel::tss, 0x8b};
    m.setDescriptor(sel::tss2, TestMachine::descriptor(at::tss2, 0x67, 0x89, 0));
    m.store<std::uint16_t>(at::tss2 + c.slot, c.selector);
    EXPECT_EQ(jump(), c.want) << c.slot;
    EXPECT_EQ(s.tr.selector, sel::tss2);
    EXPECT_EQ(s.rip, 0x7000u);
  }
}

TEST_F(Tasks, sixteenBitTasks) {
  constexpr std::uint64_t kTss16 = 0x6000;
  m.setDescriptor(sel::tss2, TestMachine::descriptor(kTss16, 0x2b, 0x81, 0));
  m.store<std::uint16_t>(kTss16 + 14, 0x7000);
  m.store<std::uint16_t>(kTss16 + 16, 0x202);
  for (std::uint16_t i = 0; i < 8; ++i)
    m.store<std::uint16_t>(kTss16 + 18 + 2 * i, static_cast<std::uint16_t>(0x300 + i));
  const std::uint16_t selectors[] = {sel::data0, sel::code0, sel::data0, sel::data0};
  for (unsigned i = 0; i < 4; ++i) m.store<std::uint16_t>(kTss16 + 34 + 2 * i, selectors[i]);
  EXPECT_EQ(jump(), Raised{});
  EXPECT_EQ(s.rip, 0x7000u);
  EXPECT_EQ(s.gpr[rdi], 0x307u);
  EXPECT_EQ(s.segment[ds].selector, sel::data0);
  EXPECT_EQ(farJump(*m, sel::tss, 0, 4, 0x7009) ? Raised{} : take(*m), Raised{});
  EXPECT_EQ(m.load<std::uint16_t>(kTss16 + 14), 0x7009);
}

TEST_F(Tasks, addressSpaceAndDebugTrap) {
  s.cr3 = 0x1000;
  m.store<std::uint32_t>(at::tss2 + 28, at::pageTables);
  m.store<std::uint32_t>(at::pageTables, 0x83);  // 4 MiB page at 0
  m.store<std::uint32_t>(at::pageTables + 0x8000, 0x83);
  s.cr3 = at::pageTables + 0x8000;
  s.cr4 = cr4::pse;
  s.cr0 |= cr0::pg;
  s.dr[7] |= 0x3;
  m.store<std::uint32_t>(at::tss2 + 100, 1);
  EXPECT_EQ(jump(), (Raised{1, 0, 0}));
  EXPECT_EQ(s.cr3, at::pageTables);
  EXPECT_EQ(m.listener.switches, 1);
  EXPECT_EQ(s.dr[7] & 3, 2u) << "local breakpoints end with the task";
}

TEST_F(Tasks, nothingHappensIfTheOldTaskCannotBeSaved) {
  s.tr.limit = 0x50;
  EXPECT_EQ(jump(), ts(sel::tss));
  EXPECT_EQ(s.tr.selector, sel::tss);
  EXPECT_EQ(type(sel::tss2), 9u);
}

}  // namespace
}  // namespace lodge::x86
