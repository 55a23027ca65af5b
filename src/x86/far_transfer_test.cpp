// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "x86/test_machine.h"
#include "x86/virtual_memory.h"

namespace lodge::x86 {
namespace {

constexpr std::uint64_t kNext = at::code + 7;

struct Far : testing::Test {
  TestMachine m;
  Raised jump(std::uint16_t selector, std::uint64_t offset, unsigned size = 4) {
    return farJump(*m, selector, offset, size, kNext) ? Raised{} : take(*m);
  }
  Raised call(std::uint16_t selector, std::uint64_t offset, unsigned size = 4) {
    return farCall(*m, selector, offset, size, kNext) ? Raised{} : take(*m);
  }
  Raised ret(unsigned size = 4, std::uint16_t pop = 0) { return farReturn(*m, size, pop) ? Raised{} : take(*m); }
  void callGate(std::uint16_t target, std::uint32_t offset, unsigned access, unsigned parameters = 0,
                std::uint64_t high = 0) {
    m.setDescriptor(sel::gate, TestMachine::gate(target, offset, access, parameters));
    m.store<std::uint64_t>(at::gdt + sel::gate + 8, high);
  }
  template <class T>
  void push(std::initializer_list<T> words) {  // the last lies lowest
    for (T word : words) {
      m.state().gpr[rsp] -= sizeof(T);
      m.store<T>(m.state().gpr[rsp], word);
    }
  }
};

TEST_F(Far, realMode) {
  m.real();
  EXPECT_EQ(jump(0x1234, 0x5678, 2), Raised{});
  EXPECT_EQ(m.state().segment[cs].base, 0x12340u);
  EXPECT_EQ(m.state().rip, 0x5678u);
  EXPECT_EQ(call(0x2000, 0x10, 2), Raised{});
  EXPECT_EQ(m.state().gpr[rsp], at::stack0 - 4);
  EXPECT_EQ(m.load<std::uint16_t>(at::stack0 - 2), 0x1234);
  EXPECT_EQ(m.load<std::uint16_t>(at::stack0 - 4), kNext);
  EXPECT_EQ(ret(2, 6), Raised{});
  EXPECT_EQ(m.state().gpr[rsp], at::stack0 + 6);
  EXPECT_EQ(m.state().segment[cs].selector, 0x1234);
  EXPECT_EQ(m.state().rip, kNext);
  EXPECT_EQ(jump(0x1234, 0x1'0000, 4), gp(0)) << "beyond the limit";
}

TEST_F(Far, jumpRules) {
  m.protected32(0);
  EXPECT_EQ(jump(0, 0), gp(0));
  EXPECT_EQ(jump(0x100, 0), gp(0x100));
  EXPECT_EQ(jump(sel::data0, 0), gp(sel::data0));
  EXPECT_EQ(jump(sel::code3, 0), gp(sel::code3 & ~3)) << "DPL 3 is not CPL 0";
  EXPECT_EQ(jump(sel::code0 | 3, 0), gp(sel::code0)) << "RPL above CPL";
  EXPECT_EQ(jump(sel::code0, 0x123), Raised{});
  EXPECT_EQ(m.state().rip, 0x123u);
  EXPECT_EQ(m.state().segment[cs].selector, sel::code0);
  m.state().gdtr.limit = 0xffff;
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0xfff, 0x1a, 0x4));
  EXPECT_EQ(jump(sel::free, 0), np(sel::free));
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0xfff, 0x9a, 0x4));
  EXPECT_EQ(jump(sel::free, 0x1000), gp(0));
  EXPECT_EQ(jump(sel::free, 0x1'0fff, 2), Raised{}) << "16-bit offsets are truncated";
  m.setCpl(3);
  EXPECT_EQ(jump(sel::conforming, 0x55), Raised{});
  EXPECT_EQ(m.state().segment[cs].selector, sel::conforming | 3);
  EXPECT_EQ(m.state().cpl, 3);
  m.setCpl(0);
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0xfff, 0xfe, 0x4));
  EXPECT_EQ(jump(sel::free, 0), gp(sel::free)) << "conforming code of an outer level";
}

TEST_F(Far, callPushesOnlyIfItMay) {
  m.protected32(0);
  m.state().segment[ss].limit = 0x100;
  m.state().segment[ss].base = 0x2'0000;
  m.state().gpr[rsp] = 4;
  EXPECT_EQ(call(sel::code0, 0), ssFault(0));
  EXPECT_EQ(m.state().gpr[rsp], 4u);
  m.state().gpr[rsp] = 0x100;
  EXPECT_EQ(call(sel::code0, 0x77), Raised{});
  EXPECT_EQ(m.state().gpr[rsp], 0xf8u);
  EXPECT_EQ(m.load<std::uint32_t>(0x2'00f8), kNext);
  EXPECT_EQ(m.load<std::uint32_t>(0x2'00fc), sel::code0);
}

TEST_F(Far, sixteenBitStacksWrapInTheirOwnWidth) {
  m.protected32(0);
  m.state().segment[ss].attributes = 0x0093;
  m.state().segment[ss].limit = 0xffff;
  m.state().gpr[rsp] = 0xdead'0000;
  EXPECT_EQ(call(sel::code0, 0x77), Raised{});
  EXPECT_EQ(m.state().gpr[rsp], 0xdead'fff8u);
  EXPECT_EQ(m.load<std::uint32_t>(0xfff8), kNext);
}

TEST_F(Far, callGateToTheInnerLevel) {
  m.protected32(3);
  callGate(sel::code0, 0x1'2345, 0xec, 2);
  push<std::uint32_t>({0xaaaa, 0xbbbb});
  EXPECT_EQ(call(sel::gate | 3, 0xdead), Raised{});
  CpuState& s = m.state();
  EXPECT_EQ(s.cpl, 0);
  EXPECT_EQ(s.segment[cs].selector, sel::code0);
  EXPECT_EQ(s.rip, 0x1'2345u);
  EXPECT_EQ(s.segment[ss].selector, sel::data0);
  EXPECT_EQ(s.gpr[rsp], at::stack0 - 24);
  const std::uint32_t want[] = {kNext, sel::code3, 0xbbbb, 0xaaaa, at::stack3 - 8, sel::data3};
  for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(m.load<std::uint32_t>(at::stack0 - 24 + 4 * i), want[i]) << i;
  // And back, with the parameters removed from both stacks.
  EXPECT_EQ(ret(4, 8), Raised{});
  EXPECT_EQ(s.cpl, 3);
  EXPECT_EQ(s.rip, kNext);
  EXPECT_EQ(s.gpr[rsp], at::stack3);
  EXPECT_EQ(s.segment[ss].selector, sel::data3);
}

TEST_F(Far, sixteenBitCallGates) {
  m.protected32(3);
  callGate(sel::code0, 0x9'2345, 0xe4, 1);
  push<std::uint16_t>({0x1234});
  EXPECT_EQ(call(sel::gate | 3, 0), Raised{});
  EXPECT_EQ(m.state().rip, 0x2345u);
  EXPECT_EQ(m.state().gpr[rsp], at::stack0 - 10);
  EXPECT_EQ(m.load<std::uint16_t>(at::stack0 - 6), 0x1234);
}

TEST_F(Far, callGateRules) {
  m.protected32(3);
  callGate(sel::code0, 0, 0x8c);
  EXPECT_EQ(call(sel::gate, 0), gp(sel::gate)) << "gate DPL 0, CPL 3";
  callGate(sel::code0, 0, 0x6c);
  EXPECT_EQ(call(sel::gate, 0), np(sel::gate));
  callGate(0, 0, 0xec);
  EXPECT_EQ(call(sel::gate, 0), gp(0));
  callGate(0x200, 0, 0xec);
  EXPECT_EQ(call(sel::gate, 0), gp(0x200));
  callGate(sel::data0, 0, 0xec);
  EXPECT_EQ(call(sel::gate, 0), gp(sel::data0));
  callGate(sel::code0, 0, 0xec);
  EXPECT_EQ(jump(sel::gate, 0), gp(sel::code0)) << "JMP may not change the level";
  m.state().gdtr.limit = 0xffff;
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0xfff, 0x1a, 0x4));
  callGate(sel::free, 0, 0xec);
  EXPECT_EQ(call(sel::gate, 0), np(sel::free));
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0xfff, 0x9a, 0x4));
  callGate(sel::free, 0x1000, 0xec);
  EXPECT_EQ(call(sel::gate, 0), gp(0)) << "entry beyond the limit";
  callGate(sel::conforming, 0x99, 0xec);
  EXPECT_EQ(jump(sel::gate, 0), Raised{});
  EXPECT_EQ(m.state().cpl, 3);
  EXPECT_EQ(m.state().rip, 0x99u);
}

TEST_F(Far, innerStackRules) {
  m.protected32(3);
  callGate(sel::code0, 0, 0xec);
  auto ss0 = [&](std::uint32_t selector) { m.store<std::uint32_t>(at::tss + 8, selector); };
  ss0(0);
  EXPECT_EQ(call(sel::gate, 0), ts(0));
  ss0(0x200);
  EXPECT_EQ(call(sel::gate, 0), ts(0x200));
  ss0(sel::data0 | 1);
  EXPECT_EQ(call(sel::gate, 0), ts(sel::data0)) << "RPL";
  ss0(sel::data3 & ~3);
  EXPECT_EQ(call(sel::gate, 0), ts(sel::data3 & ~3)) << "DPL";
  ss0(sel::readOnly);
  EXPECT_EQ(call(sel::gate, 0), ts(sel::readOnly));
  m.state().gdtr.limit = 0xffff;
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0xfff, 0x12, 0x4));
  ss0(sel::free);
  EXPECT_EQ(call(sel::gate, 0), ssFault(sel::free)) << "not present";
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0xfff, 0x92, 0x4));
  EXPECT_EQ(call(sel::gate, 0), ssFault(sel::free)) << "ESP0 beyond its limit";
  ss0(sel::data0);
  m.state().tr.limit = 8;
  EXPECT_EQ(call(sel::gate, 0), ts(sel::tss)) << "TSS too short";
  EXPECT_EQ(m.state().cpl, 3);
  EXPECT_EQ(m.state().gpr[rsp], at::stack3);
}

TEST_F(Far, longModeCallGate) {
  m.long64(3);
  callGate(sel::code64, 0x5678'0000, 0xec, 0, 0xffff'8000);
  EXPECT_EQ(call(sel::gate, 0), Raised{});
  CpuState& s = m.state();
  EXPECT_EQ(s.rip, 0xffff'8000'5678'0000u);
  EXPECT_EQ(s.segment[ss].selector, 0);
  EXPECT_EQ(s.gpr[rsp], at::stack0 - 32);
  const std::uint64_t want[] = {kNext, sel::code64User, at::stack3, sel::data3};
  for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(m.load<std::uint64_t>(at::stack0 - 32 + 8 * i), want[i]) << i;
  EXPECT_EQ(ret(8), Raised{});
  EXPECT_EQ(s.cpl, 3);
  EXPECT_EQ(s.gpr[rsp], at::stack3);
  callGate(sel::code0, 0, 0xec);
  EXPECT_EQ(call(sel::gate, 0), gp(sel::code0)) << "the target must be 64-bit code";
  callGate(sel::code64, 0, 0xe4);
  EXPECT_EQ(call(sel::gate, 0), gp(sel::gate)) << "no 16-bit gates";
  callGate(sel::code64, 0, 0xec, 0, 1ull << 40);
  EXPECT_EQ(call(sel::gate, 0), gp(sel::gate)) << "type bits in the second half";
  callGate(sel::code64, 0, 0xec, 0, 0x8000);
  EXPECT_EQ(call(sel::gate, 0), gp(0)) << "not canonical";
}

TEST_F(Far, betweenCompatibilityAnd64BitMode) {
  m.long64(0);
  EXPECT_EQ(jump(sel::code0, 0x1234), Raised{});
  EXPECT_FALSE(m->mode64());
  EXPECT_EQ(jump(sel::code64, 0x1234), Raised{});
  EXPECT_TRUE(m->mode64());
  m.state().gdtr.limit = 0xffff;
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0xfffff, 0x9a, 0xe));
  EXPECT_EQ(jump(sel::free, 0), gp(sel::free)) << "L and D";
  EXPECT_EQ(jump(sel::tss2, 0), gp(sel::tss2)) << "no task switches";
  EXPECT_EQ(jump(sel::code64, 0x8000'0000'0000, 8), gp(0));
}

TEST_F(Far, returnRules) {
  m.protected32(0);
  push<std::uint32_t>({0, 0x10});
  EXPECT_EQ(ret(), gp(0)) << "null";
  push<std::uint32_t>({0x200, 0x10});
  EXPECT_EQ(ret(), gp(0x200));
  push<std::uint32_t>({sel::data0, 0x10});
  EXPECT_EQ(ret(), gp(sel::data0));
  m.setCpl(3);
  push<std::uint32_t>({sel::code0, 0x10});
  EXPECT_EQ(ret(), gp(sel::code0)) << "inwards";
  m.setCpl(0);
  push<std::uint32_t>({sel::code3 & ~3, 0x10});
  EXPECT_EQ(ret(), gp(sel::code3 & ~3)) << "DPL is not RPL";
  push<std::uint32_t>({0, 0x9000, sel::code3, 0x10});
  EXPECT_EQ(ret(), gp(0)) << "null SS";
  push<std::uint32_t>({sel::data0, 0x9000, sel::code3, 0x10});
  EXPECT_EQ(ret(), gp(sel::data0)) << "SS of another level";
  EXPECT_EQ(m.state().cpl, 0);
}

TEST_F(Far, returningOutwardsDropsInnerSegments) {
  m.protected32(0);
  ASSERT_TRUE(loadSegment(*m, es, sel::conforming));
  ASSERT_TRUE(loadSegment(*m, fs, sel::data3));
  push<std::uint32_t>({sel::data3, 0x9000, sel::code3, 0x10});
  EXPECT_EQ(ret(), Raised{});
  const CpuState& s = m.state();
  EXPECT_EQ(s.segment[ds].selector, 0);
  EXPECT_FALSE(s.segment[ds].present());
  EXPECT_EQ(s.segment[es].selector, sel::conforming);
  EXPECT_EQ(s.segment[fs].selector, sel::data3);
  EXPECT_EQ(s.segment[gs].selector, 0);
  EXPECT_EQ(s.gpr[rsp], 0x9000u);
}

TEST_F(Far, returnsLookAtTheStacksLimitFirst) {
  m.protected32(0);
  push<std::uint32_t>({0, 0x10});
  m.state().segment[ss].limit = static_cast<std::uint32_t>(m.state().gpr[rsp] + 6);
  EXPECT_EQ(ret(), ssFault(0)) << "CS ends behind it";
  m.state().segment[ss].limit += 1;
  EXPECT_EQ(ret(), gp(0)) << "null";
}

/// With paging: a stack whose words from here on are in a page that is not there.
constexpr std::uint64_t kNoPage = 4_MiB;

struct FarAtABadPage : Far {
  FarAtABadPage() {
    m.protected32(0);
    m.store<std::uint32_t>(at::pageTables, 0x83);  // 4 MiB, present, writable
    m.store<std::uint32_t>(at::pageTables + 4, 0);
    m.state().cr3 = at::pageTables;
    m.state().cr4 |= cr4::pse;
    m.state().cr0 |= cr0::pg;
    flushTlbEverything(*m);
  }
  /// The words end at the page that is not there, and SS `bytes` behind that.
  void frame(std::initializer_list<std::uint32_t> words, std::uint32_t bytes) {
    m.state().gpr[rsp] = kNoPage;
    push(words);
    m.state().segment[ss].limit = static_cast<std::uint32_t>(kNoPage - 1) + bytes;
  }
  Raised iret() { return interruptReturn(*m, 4, kNext) ? Raised{} : take(*m); }
};

TEST_F(FarAtABadPage, theLimitComesBeforeThePage) {
  frame({sel::code3, 0x10}, 7);
  EXPECT_EQ(ret(), ssFault(0)) << "SS ends behind it";
  frame({sel::code3, 0x10}, 8);
  EXPECT_EQ(ret(), pageFault(kNoPage, 0));
  frame({0x202, sel::code3, 0x10}, 7);
  EXPECT_EQ(iret(), ssFault(0));
  frame({0x202, sel::code3, 0x10}, 8);
  EXPECT_EQ(iret(), pageFault(kNoPage, 0));
  frame({0x2'3202, 0x1000, 0x44}, 23);
  EXPECT_EQ(iret(), ssFault(0)) << "to virtual-8086 mode: GS ends behind it";
  frame({0x2'3202, 0x1000, 0x44}, 24);
  EXPECT_EQ(iret(), pageFault(kNoPage, 0));
}

struct Iret : Far {
  Raised iret(unsigned size) { return interruptReturn(*m, size, kNext) ? Raised{} : take(*m); }
};

TEST_F(Iret, realMode) {
  m.real();
  push<std::uint16_t>({0xffff, 0x1000, 0x20});
  EXPECT_EQ(iret(2), Raised{});
  EXPECT_EQ(m.state().rflags, 0x7fd7u);
  EXPECT_EQ(m.state().rip, 0x20u);
  push<std::uint32_t>({0xffff'ffff, 0x1000, 0x20});
  EXPECT_EQ(iret(4), Raised{});
  EXPECT_EQ(m.state().rflags, 0x25'7fd7u);
  push<std::uint32_t>({2, 0x1000, 0x1'0000});
  EXPECT_EQ(iret(4), gp(0));
}

TEST_F(Iret, flagsByPrivilege) {
  for (unsigned ioplValue : {0u, 3u}) {
    m.protected32(3);
    m.state().rflags = 2 | ioplValue << 12;
    m.state().gpr[rsp] = at::stack3;
    push<std::uint32_t>({0xffff'ffff & ~0x2'0000, sel::code3, 0x10});
    EXPECT_EQ(iret(4), Raised{});
    std::uint64_t ifMayChange = ioplValue == 3 ? flag::if_ : 0;
    EXPECT_EQ(m.state().rflags, (0x25'4dd7u | ioplValue << 12 | ifMayChange)) << "IOPL, VIF, VIP stay";
  }
  m.protected32(0);
  m.state().rflags = 2;
  m.state().gpr[rsp] = at::stack0;
  push<std::uint32_t>({0xffff'ffff & ~0x2'0000, sel::code0, 0x10});
  EXPECT_EQ(iret(4), Raised{});
  EXPECT_EQ(m.state().rflags, 0x3d'7fd7u);
}

TEST_F(Iret, toVirtual8086ModeAndItsInterrupts) {
  m.protected32(0);
  push<std::uint32_t>({0x6000, 0x5000, 0x4000, 0x3000, 0x2000, 0x800, 0x2'3202, 0x1000, 0x44});
  EXPECT_EQ(iret(4), Raised{});
  CpuState& s = m.state();
  EXPECT_TRUE(m->virtual8086());
  EXPECT_EQ(s.cpl, 3);
  EXPECT_EQ(s.segment[cs].base, 0x10000u);
  EXPECT_EQ(s.segment[ss].selector, 0x2000);
  EXPECT_EQ(s.segment[es].selector, 0x3000);
  EXPECT_EQ(s.segment[ds].selector, 0x4000);
  EXPECT_EQ(s.segment[fs].selector, 0x5000);
  EXPECT_EQ(s.segment[gs].selector, 0x6000);
  EXPECT_EQ(s.gpr[rsp], 0x800u);
  // A fault comes back to level 0 with the segments on the stack.
  raiseGp(*m, 0);
  deliverException(*m);
  EXPECT_EQ(s.cpl, 0);
  EXPECT_FALSE(m->virtual8086());
  EXPECT_EQ(s.gpr[rsp], at::stack0 - 40);
  const std::uint32_t want[] = {0, 0x44, 0x1000, 0x3'3202, 0x800, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000};
  for (unsigned i = 0; i < 10; ++i) EXPECT_EQ(m.load<std::uint32_t>(at::stack0 - 40 + 4 * i), want[i]) << i;
  EXPECT_FALSE(s.segment[ds].present());
}

TEST_F(Iret, longModeAlwaysPopsTheStack) {
  m.long64(0);
  push<std::uint64_t>({0, 0x8888, 0x202, sel::code64, 0x1234});
  EXPECT_EQ(iret(8), Raised{}) << "null SS at level 0";
  EXPECT_EQ(m.state().gpr[rsp], 0x8888u);
  EXPECT_EQ(m.state().rflags, 0x202u);
  push<std::uint64_t>({3, 0x8888, 0x202, sel::code64User, 0x1234});
  EXPECT_EQ(iret(8), gp(0)) << "but not at level 3";
  push<std::uint64_t>({sel::data3, 0xffff'8888'0000, 0x202, sel::code64User, 0x8000'0000'0000});
  EXPECT_EQ(iret(8), gp(0));
  push<std::uint64_t>({sel::data3, 0x8888, 0x4202, sel::code64User, 0x1234});
  EXPECT_EQ(iret(8), Raised{});
  EXPECT_EQ(m.state().cpl, 3);
  EXPECT_EQ(m.state().rip, 0x1234u);
  m.setCpl(0);
  m.state().rflags |= flag::nt;
  EXPECT_EQ(iret(8), gp(0)) << "NT in long mode";
}

TEST_F(Iret, toCompatibilityModeCutsTheStackPointer) {
  m.long64(0);
  push<std::uint64_t>({sel::data3, 0x1'0000'9000, 0x202, sel::code3, 0x1234});
  EXPECT_EQ(iret(8), Raised{});
  EXPECT_FALSE(m->mode64());
  EXPECT_EQ(m.state().gpr[rsp], 0x9000u);
}

TEST_F(Iret, outwardsClearsTheLevelOfNullSelectors) {
  m.long64(0);
  ASSERT_TRUE(loadSegment(*m, ds, 3));
  ASSERT_TRUE(loadSegment(*m, gs, 2));
  m.state().segment[gs].base = 0x1234'5678'9000;
  push<std::uint64_t>({sel::data3, 0x9000, 0x202, sel::code3, 0x1234});
  EXPECT_EQ(iret(8), Raised{});
  EXPECT_EQ(m.state().segment[ds].selector, 0);
  EXPECT_EQ(m.state().segment[gs].selector, 0);
  EXPECT_EQ(m.state().segment[gs].base, 0x1234'5678'9000u) << "as 64-bit systems need it";
}

TEST_F(Iret, unblocksNmis) {
  m.long64(0);
  m.state().nmiBlocked = 1;
  m->deferredEvents = event::nmi;
  push<std::uint64_t>({0, 0x8888, 2, sel::code64, 0x1234});
  EXPECT_EQ(iret(8), Raised{});
  EXPECT_EQ(m.state().nmiBlocked, 0);
  EXPECT_EQ(m->events.load(), event::nmi);
}

TEST_F(Iret, inVirtual8086Mode) {
  auto enter = [&](std::uint64_t flags, std::uint64_t cr4Value) {
    m.protected32(3);
    for (SegmentRegister& r : m.state().segment) r = {0, 0xffff, 0, 0xf3};
    m.state().gpr[rsp] = at::stack3;
    m.state().rflags = 2 | flag::vm | flags;
    m.state().cr4 = cr4Value;
  };
  enter(0, 0);
  EXPECT_EQ(iret(2), gp(0)) << "IOPL 0";
  enter(flag::iopl, 0);
  push<std::uint16_t>({0x0202, 0x100, 0x10});
  EXPECT_EQ(iret(2), Raised{});
  EXPECT_EQ(m.state().rflags, flag::vm | flag::iopl | 0x202) << "IOPL is not loaded";
  enter(0, cr4::vme);
  push<std::uint16_t>({0x0202, 0x100, 0x10});
  EXPECT_EQ(iret(2), Raised{});
  EXPECT_EQ(m.state().rflags, flag::vm | flag::vif | 2);
  enter(flag::vip, cr4::vme);
  push<std::uint16_t>({0x0202, 0x100, 0x10});
  EXPECT_EQ(iret(2), gp(0));
  EXPECT_EQ(iret(4), gp(0));
  enter(0, cr4::vme);
  push<std::uint16_t>({0x0102, 0x100, 0x10});
  EXPECT_EQ(iret(2), gp(0)) << "TF";
}

}  // namespace
}  // namespace lodge::x86
