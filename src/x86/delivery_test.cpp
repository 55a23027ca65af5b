// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

struct Delivery : testing::Test {
  TestMachine m;
  CpuState& s = m.state();
  void deliver(Vector vector) {
    raise(*m, vector);
    deliverException(*m);
  }
  void deliver(Vector vector, std::uint32_t code) {
    raise(*m, vector, code);
    deliverException(*m);
  }
  Raised software(unsigned vector, SoftwareInterrupt kind = SoftwareInterrupt::intN) {
    bool ok = softwareInterrupt(*m, static_cast<std::uint8_t>(vector), s.rip + 2, kind);
    return ok ? Raised{} : take(*m);
  }
  template <class T>
  std::vector<std::uint64_t> stack(unsigned words) {
    std::vector<std::uint64_t> values;
    for (unsigned i = 0; i < words; ++i) values.push_back(m.load<T>(s.gpr[rsp] + i * sizeof(T)));
    return values;
  }
  using Words = std::vector<std::uint64_t>;
};

TEST_F(Delivery, realMode) {
  m.real();
  s.rflags = 0x4'0302;  // AC, IF, TF
  m.store<std::uint32_t>(13 * 4, 0x1234'5678);
  deliver(Vector::gp, 0x50);
  EXPECT_EQ(s.segment[cs].base, 0x12340u);
  EXPECT_EQ(s.rip, 0x5678u);
  EXPECT_EQ(s.rflags, 2u);
  EXPECT_EQ(stack<std::uint16_t>(3), (Words{at::code, 0, 0x0302})) << "and no error code";
}

TEST_F(Delivery, realModeTableLimit) {
  m.real();
  s.idtr.limit = 0x20 * 4 - 1;
  m.store<std::uint32_t>(13 * 4, 0x1000'0042);
  EXPECT_EQ(software(0x20), gp(0x20 * 8 + 2));
  deliverInterrupt(*m, 0x20);
  EXPECT_EQ(s.rip, 0x42u) << "#GP instead";
  s.idtr.limit = 0;
  deliverInterrupt(*m, 0x20);
  EXPECT_EQ(s.activity, Activity::shutdown);
}

TEST_F(Delivery, protectedSameLevel) {
  m.protected32(0);
  s.rflags = 0x4302;
  deliver(Vector::np, 0x123);
  EXPECT_EQ(s.rip, 0x1'000bu);
  EXPECT_EQ(s.rflags, 2u) << "TF, NT, IF cleared";
  EXPECT_EQ(stack<std::uint32_t>(4), (Words{0x123, at::code, sel::code0, 0x1'4302})) << "RF set by a fault";
}

TEST_F(Delivery, trapGatesKeepInterruptsOn) {
  m.protected32(0);
  m.setGate(3, sel::code0, 0x9000, 0x8f);
  s.rflags = 0x202;
  EXPECT_EQ(software(3, SoftwareInterrupt::int3OrInto), Raised{});
  EXPECT_EQ(s.rflags, 0x202u);
  EXPECT_EQ(stack<std::uint32_t>(3), (Words{at::code + 2, sel::code0, 0x202}));
}

TEST_F(Delivery, protectedInnerLevel) {
  m.protected32(3);
  deliver(Vector::gp, 0x10);
  EXPECT_EQ(s.cpl, 0);
  EXPECT_EQ(s.segment[ss].selector, sel::data0);
  EXPECT_EQ(s.gpr[rsp], at::stack0 - 24);
  EXPECT_EQ(stack<std::uint32_t>(6), (Words{0x10, at::code, sel::code3, 0x1'0002, at::stack3, sel::data3}));
}

TEST_F(Delivery, toLevelOneThroughTheTss) {
  m.protected32(3);
  m.setGate(13, sel::code1, 0x7777, 0x8e);
  deliver(Vector::gp, 0);
  EXPECT_EQ(s.cpl, 1);
  EXPECT_EQ(s.segment[cs].selector, sel::code1 | 1);
  EXPECT_EQ(s.segment[ss].selector, sel::data1 | 1);
}

TEST_F(Delivery, sixteenBitGates) {
  m.protected32(0);
  m.setGate(6, sel::code0, 0x9'1234, 0x86);
  deliver(Vector::ud);
  EXPECT_EQ(s.rip, 0x1234u);
  EXPECT_EQ(stack<std::uint16_t>(3), (Words{at::code, sel::code0, 2}));
}

TEST_F(Delivery, gateRulesOfSoftwareInterrupts) {
  m.protected32(3);
  EXPECT_EQ(software(0x80), gp(0x80 * 8 + 2)) << "gate DPL 0";
  EXPECT_EQ(software(3, SoftwareInterrupt::int3OrInto), gp(3 * 8 + 2));
  m.setGate(0x80, sel::code0, 0x4000, 0xee);
  EXPECT_EQ(software(0x80), Raised{});
  m.setCpl(3);
  m.setGate(0x80, sel::code0, 0x4000, 0x6e);
  EXPECT_EQ(software(0x80), np(0x80 * 8 + 2));
  m.setGate(0x80, sel::code0, 0x4000, 0xec);
  EXPECT_EQ(software(0x80), gp(0x80 * 8 + 2)) << "a call gate";
  m.setGate(0x80, 0, 0x4000, 0xee);
  EXPECT_EQ(software(0x80), gp(0));
  m.setGate(0x80, 0x300, 0x4000, 0xee);
  EXPECT_EQ(software(0x80), gp(0x300));
  m.setGate(0x80, sel::data0, 0x4000, 0xee);
  EXPECT_EQ(software(0x80), gp(sel::data0));
  s.idtr.limit = 0x80 * 8 + 6;
  EXPECT_EQ(software(0x80), gp(0x80 * 8 + 2));
  s.idtr.limit = 0x7ff;
  EXPECT_EQ(software(1, SoftwareInterrupt::int1), Raised{}) << "INT1 asks no DPL";
}

// An event's own descriptor troubles have EXT set, but for INT n.
TEST_F(Delivery, externalBit) {
  m.protected32(0);
  m.setGate(0x30, 0x300, 0, 0x8e);
  deliverInterrupt(*m, 0x30);
  EXPECT_EQ(s.rip, 0x1'000du);
  EXPECT_EQ(stack<std::uint32_t>(1), Words{0x301});
  EXPECT_EQ(software(0x30), gp(0x300));
  m.setGate(1, 0, 0, 0x8e);
  EXPECT_EQ(software(1, SoftwareInterrupt::int1), gp(1));
}

TEST_F(Delivery, doubleAndTripleFaults) {
  m.long64(0);
  m.mapSmallPages();
  // #GP whose gate is not present: #NP while delivering #GP is a double fault.
  m.setGate(13, sel::code64, 0, 0x0e);
  deliver(Vector::gp, 0);
  EXPECT_EQ(s.rip, 0x1'0008u);
  EXPECT_EQ(stack<std::uint64_t>(2), (Words{0, at::code}));
  m.setGate(8, sel::code64, 0, 0x0e);
  deliver(Vector::gp, 0);
  EXPECT_EQ(s.activity, Activity::shutdown);
}

TEST_F(Delivery, mergingTable) {
  // Whose gate is broken decides the second exception: not present gives #NP, an IDT page that is away gives #PF.
  struct Case {
    Vector first;
    bool pageFault;
    unsigned delivered;
  };
  // Gates of vectors below 16 lie in the page at::idt, the others may lie in the next.
  const Case cases[] = {{Vector::ud, false, 11}, {Vector::gp, false, 8},  {Vector::ts, false, 8},
                        {Vector::pf, false, 8},  {Vector::db, false, 11}, {Vector::mf, false, 11}};
  for (const Case& c : cases) {
    TestMachine machine;
    machine.long64(0);
    machine.setGate(static_cast<unsigned>(c.first), sel::code64, 0, 0x0e);
    if (c.first == Vector::pf) {
      raisePageFault(*machine, 0x1234, 0);
    } else {
      raise(*machine, c.first);
    }
    deliverException(*machine);
    EXPECT_EQ(machine.state().rip, 0x1'0000u + c.delivered) << static_cast<unsigned>(c.first);
  }
}

TEST_F(Delivery, pageFaultWhileDelivering) {
  for (bool contributory : {true, false}) {
    TestMachine machine;
    machine.long64(3);
    machine.mapSmallPages();
    // The inner stack is not mapped; #PF itself uses an IST stack that is.
    machine.store<std::uint64_t>(TestMachine::entryOf(at::stack0 - 1), 0);
    machine.setGate(14, sel::code64, 0x1'000e, 0x8e, 1);
    machine.setGate(8, sel::code64, 0x1'0008, 0x8e, 1);
    if (contributory) {
      raiseGp(*machine, 0);
    } else {
      machine.setGate(14, sel::code64, 0x1'000e, 0x8e);
      raisePageFault(*machine, 0x1234, pf::user);
    }
    deliverException(*machine);
    EXPECT_EQ(machine.state().rip, contributory ? 0x1'000eu : 0x1'0008u)
        << "#GP then #PF is serial, #PF then #PF double";
    EXPECT_EQ(machine.state().cr2, at::stack0 - 8);
  }
}

TEST_F(Delivery, longModePushesTheWholeFrameOnTheInnerStack) {
  m.long64(3);
  s.rflags |= flag::if_;
  CpuState before = s;
  raisePageFault(*m, 0x1234, pf::user);
  deliverException(*m);
  EXPECT_EQ(s.cr2, 0x1234u);
  EXPECT_EQ(s.cpl, 0);
  EXPECT_EQ(s.rip, 0x1'000eu);
  EXPECT_EQ(s.segment[cs].selector, sel::code64);
  EXPECT_EQ(s.segment[ss].selector, 0);
  EXPECT_EQ(s.gpr[rsp], at::stack0 - 48);
  EXPECT_EQ(stack<std::uint64_t>(6),
            (Words{pf::user, before.rip, sel::code64User, before.rflags | flag::rf, at::stack3, sel::data3}));
  EXPECT_EQ(s.rflags & flag::if_, 0u);
}

TEST_F(Delivery, longModeAlignsTheStackAndKeepsItsSegment) {
  m.long64(0);
  s.gpr[rsp] = at::stack0 - 3;
  deliver(Vector::ud);
  EXPECT_EQ(s.gpr[rsp], at::stack0 - 16 - 40);
  EXPECT_EQ(m.load<std::uint64_t>(s.gpr[rsp] + 24), at::stack0 - 3);
  EXPECT_EQ(s.segment[ss].selector, sel::data0);
}

TEST_F(Delivery, interruptStackTable) {
  m.long64(0);
  m.setGate(2, sel::code64, 0x5555, 0x8e, 1);
  deliverInterrupt(*m, 2);
  EXPECT_EQ(s.gpr[rsp], at::ist - 40);
  m.setGate(2, sel::code64, 0x5555, 0x8e, 7);
  m.store<std::uint64_t>(at::tss + 0x24 + 48, 0x8000'0000'0000);
  deliverInterrupt(*m, 2);
  EXPECT_EQ(s.rip, 0x1'000cu) << "#SS";
  EXPECT_EQ(stack<std::uint64_t>(1), Words{1});
}

TEST_F(Delivery, longModeGateRules) {
  m.long64(3);
  m.setGate(0x80, sel::code0, 0x4000, 0xee);
  EXPECT_EQ(software(0x80), gp(sel::code0)) << "not 64-bit code";
  m.setGate(0x80, sel::code64, 0x4000, 0xe6);
  EXPECT_EQ(software(0x80), gp(0x80 * 8 + 2)) << "16-bit gate";
  m.setGate(0x80, sel::code64, 0x4000, 0xe5);
  EXPECT_EQ(software(0x80), gp(0x80 * 8 + 2)) << "task gate";
  m.setGate(0x80, sel::code64, 0x8000'0000'0000, 0xee);
  EXPECT_EQ(software(0x80), gp(0)) << "entry not canonical";
  m.setGate(0x80, sel::code64, 0x4000, 0xee);
  s.idtr.limit = 0x80 * 16 + 14;
  EXPECT_EQ(software(0x80), gp(0x80 * 8 + 2));
  s.idtr.limit = 0xfff;
  s.tr.limit = 10;
  EXPECT_EQ(software(0x80), ts(sel::tss));
}

TEST_F(Delivery, fromCompatibilityMode) {
  m.long64(3);
  s.segment[cs] = {0, 0xffff'ffff, sel::code3, 0xc0fb};
  deliver(Vector::de);
  EXPECT_TRUE(m->mode64());
  EXPECT_EQ(stack<std::uint64_t>(5), (Words{at::code, sel::code3, 0x1'0002, at::stack3, sel::data3}));
}

TEST_F(Delivery, nothingIsPushedIfOneSlotCannotBe) {
  m.long64(0);
  m.mapSmallPages();
  s.gpr[rsp] = 0x5'1010;
  m.store<std::uint64_t>(TestMachine::entryOf(0x5'0000), 0);
  m.store<std::uint64_t>(0x5'1008, 0x77);
  EXPECT_EQ(software(0x80), pageFault(0x5'0fe8 + 0x10, pf::write));
  EXPECT_EQ(m.load<std::uint64_t>(0x5'1008), 0x77u);
  EXPECT_EQ(s.gpr[rsp], 0x5'1010u);
}

TEST_F(Delivery, debugStatus) {
  m.long64(0);
  s.dr[7] |= 1 << 13;
  s.dr[6] = 0xffff'0ff0 | 0x4001;
  raiseDebug(*m, 1 << 13);
  deliverException(*m);
  EXPECT_EQ(s.dr[6], 0xffff'0ff0u | 0x6000) << "hits are replaced, BD and BS collect";
  EXPECT_EQ(s.dr[7] & (1 << 13), 0u) << "GD goes off in the handler";
  EXPECT_EQ(m.load<std::uint64_t>(s.gpr[rsp] + 16), 2u) << "no RF in a debug exception's image";
}

struct Virtual8086 : Delivery {
  void SetUp() override {
    m.protected32(3);
    for (SegmentRegister& r : s.segment) r = {0, 0xffff, 0, 0xf3};
    s.gpr[rsp] = at::stack3;
    s.rip = at::code;
    s.rflags = 2 | flag::vm;
    m.store<std::uint32_t>(0x21 * 4, 0x1000'2222);
    m.setGate(0x21, sel::code0, 0x4444, 0xee);
    // The redirection map lies below the I/O map, which starts at 0x88.
    m.store<std::uint16_t>(at::tss + 102, 0x88);
    for (unsigned i = 0; i < 32; ++i) m.store<std::uint8_t>(at::tss + 0x68 + i, 0xff);
  }
  void redirect(unsigned vector) {
    m.store<std::uint8_t>(at::tss + 0x68 + vector / 8, static_cast<std::uint8_t>(~(1u << vector % 8)));
  }
};

TEST_F(Virtual8086, intNeedsIopl3) {
  EXPECT_EQ(software(0x21), gp(0));
  s.rflags |= flag::iopl;
  EXPECT_EQ(software(0x21), Raised{});
  EXPECT_EQ(s.rip, 0x4444u);
  EXPECT_EQ(s.cpl, 0);
  EXPECT_EQ(stack<std::uint32_t>(9), (Words{at::code + 2, 0, 2 | flag::vm | flag::iopl, at::stack3, 0, 0, 0, 0, 0}));
}

TEST_F(Virtual8086, int3IsNotSensitive) {
  m.setGate(3, sel::code0, 0x4444, 0xee);
  EXPECT_EQ(software(3, SoftwareInterrupt::int3OrInto), Raised{});
  EXPECT_EQ(s.rip, 0x4444u);
}

TEST_F(Virtual8086, handlersMustBeAtLevelZero) {
  s.rflags |= flag::iopl;
  m.setGate(0x21, sel::code1, 0x4444, 0xee);
  EXPECT_EQ(software(0x21), gp(sel::code1));
  m.setGate(0x21, sel::conforming, 0x4444, 0xee);
  EXPECT_EQ(software(0x21), gp(sel::conforming));
}

TEST_F(Virtual8086, redirectionToTheProgram) {
  s.cr4 = cr4::vme;
  EXPECT_EQ(software(0x21), gp(0)) << "bit set, IOPL 0";
  redirect(0x21);
  s.rflags |= flag::vif | flag::tf;
  EXPECT_EQ(software(0x21), Raised{});
  EXPECT_TRUE(m->virtual8086());
  EXPECT_EQ(s.segment[cs].base, 0x10000u);
  EXPECT_EQ(s.rip, 0x2222u);
  EXPECT_EQ(s.rflags, 2 | flag::vm) << "VIF and TF cleared";
  EXPECT_EQ(stack<std::uint16_t>(3), (Words{at::code + 2, 0, 0x3302})) << "IF shows VIF, IOPL 3";
  s.rflags = 2 | flag::vm | flag::iopl | flag::if_;
  EXPECT_EQ(software(0x21), Raised{});
  EXPECT_EQ(s.rflags, 2 | flag::vm | flag::iopl);
}

TEST_F(Virtual8086, redirectionMapBeyondTheLimit) {
  s.cr4 = cr4::vme;
  s.tr.limit = 0x67;
  EXPECT_EQ(software(0x21), gp(0));
}

}  // namespace
}  // namespace lodge::x86
