// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

struct Control : testing::Test {
  TestMachine m;
  CpuState& s = m.state();
  Raised write(unsigned number, std::uint64_t value) { return writeControl(*m, number, value) ? Raised{} : take(*m); }
};

TEST_F(Control, whoAndWhich) {
  m.long64(0);
  std::uint64_t value = 0;
  for (unsigned number : {1u, 5u, 6u, 7u, 9u, 15u}) {
    EXPECT_FALSE(readControl(*m, number, value));
    EXPECT_EQ(take(*m), ud());
    EXPECT_EQ(write(number, 0), ud());
  }
  m.setCpl(3);
  EXPECT_EQ(write(0, 0), gp(0));
  EXPECT_FALSE(readControl(*m, 3, value));
  EXPECT_EQ(take(*m), gp(0));
}

TEST_F(Control, cr0) {
  m.protected32(0);
  EXPECT_EQ(write(0, cr0::pg), gp(0)) << "PG without PE";
  EXPECT_EQ(write(0, cr0::pe | cr0::nw), gp(0)) << "NW without CD";
  EXPECT_EQ(write(0, 1ull << 32 | cr0::pe), gp(0));
  EXPECT_EQ(write(0, cr0::pe | 0x1ff0'0000), Raised{});
  EXPECT_EQ(s.cr0, cr0::pe | cr0::et) << "undefined bits stay 0, ET 1";
  m.listener = {};
  EXPECT_EQ(write(0, cr0::pe | cr0::wp), Raised{});
  EXPECT_EQ(m.listener.allGlobal, 1);
  EXPECT_EQ(write(0, cr0::pe | cr0::wp | cr0::ts), Raised{});
  EXPECT_EQ(m.listener.allGlobal, 1) << "TS changes no translation";
  EXPECT_EQ(m.listener.modes, 2);
}

TEST_F(Control, enteringAndLeavingLongMode) {
  m.long64(0);  // for the tables
  s.cr0 = cr0::pe | cr0::et;
  s.efer = efer::lme;
  s.segment[cs] = {0, 0xffff'ffff, sel::code0, 0xc09b};
  s.cr4 = 0;
  EXPECT_EQ(write(0, cr0::pe | cr0::pg), gp(0)) << "needs PAE";
  s.cr4 = cr4::pae;
  s.segment[cs].attributes = 0xa09b;
  EXPECT_EQ(write(0, cr0::pe | cr0::pg), gp(0)) << "CS.L is set";
  s.segment[cs].attributes = 0xc09b;
  s.tr.attributes = 0x83;
  EXPECT_EQ(write(0, cr0::pe | cr0::pg), gp(0)) << "a 16-bit TSS is loaded";
  s.tr.attributes = 0x8b;
  EXPECT_EQ(write(0, cr0::pe | cr0::pg), Raised{});
  EXPECT_TRUE(m->longMode());
  EXPECT_FALSE(m->mode64());
  EXPECT_EQ(write(4, 0), gp(0)) << "PAE must stay";
  s.segment[cs].attributes = 0xa09b;
  EXPECT_EQ(write(0, cr0::pe), gp(0)) << "not from 64-bit code";
  s.segment[cs].attributes = 0xc09b;
  EXPECT_EQ(write(0, cr0::pe), Raised{});
  EXPECT_FALSE(m->longMode());
  EXPECT_EQ(s.efer, efer::lme);
}

TEST_F(Control, cr3) {
  m.long64(0);
  EXPECT_EQ(write(3, 1ull << 40), gp(0)) << "beyond the model's 40 bits";
  EXPECT_EQ(write(3, 1ull << 63 | at::pageTables), gp(0)) << "no PCIDE";
  EXPECT_EQ(write(3, at::pageTables | 0x18), Raised{});
  EXPECT_EQ(m.listener.switches, 1);
  s.cr4 |= cr4::pcide;
  EXPECT_EQ(write(3, 1ull << 63 | at::pageTables | 5), Raised{});
  EXPECT_EQ(s.cr3, at::pageTables | 5);
  EXPECT_EQ(m.listener.switchesNoFlush, 1);
  m.protected32(0);
  s.cr4 = 0;
  s.efer = 0;
  EXPECT_EQ(write(3, ~0ull), Raised{});
  EXPECT_EQ(s.cr3, 0xffff'ffffu);
}

TEST_F(Control, cr4) {
  m.long64(0);
  m.model->cr4Supported &= ~cr4::umip;
  std::uint64_t base = s.cr4;
  EXPECT_EQ(write(4, base | cr4::umip), gp(0));
  EXPECT_EQ(write(4, base | 1ull << 40), gp(0));
  EXPECT_EQ(write(4, base | cr4::la57), gp(0)) << "not in long mode";
  s.cr3 |= 1;
  EXPECT_EQ(write(4, base | cr4::pcide), gp(0)) << "CR3 has a PCID";
  s.cr3 &= ~0xfffull;
  m.listener = {};
  EXPECT_EQ(write(4, base | cr4::pcide), Raised{});
  EXPECT_EQ(write(0, s.cr0 & ~cr0::pg), gp(0));
  EXPECT_EQ(m.listener.everything, 1);
  EXPECT_EQ(write(4, base | cr4::pcide | cr4::smap), Raised{});
  EXPECT_EQ(m.listener.allGlobal, 1);
  EXPECT_EQ(write(4, base | cr4::pcide | cr4::smap | cr4::osxsave), Raised{});
  EXPECT_EQ(m.listener.allGlobal, 1);
  m.protected32(0);
  s.efer = 0;
  s.cr4 = 0;
  EXPECT_EQ(write(4, cr4::pcide), gp(0)) << "PCIDs are long mode's";
}

TEST_F(Control, cr8) {
  m.long64(0);
  EXPECT_EQ(write(8, 16), gp(0));
  EXPECT_EQ(write(8, 9), Raised{});
  std::uint64_t value = 0;
  EXPECT_TRUE(readControl(*m, 8, value));
  EXPECT_EQ(value, 9u);
  EXPECT_EQ(m->events.load(), 0u);
  m.environment.localApic.pendingVectors = {0x41};
  EXPECT_EQ(write(8, 0), Raised{});
  EXPECT_EQ(m->events.load(), event::interrupt);
}

TEST_F(Control, xcr0) {
  m.long64(0);
  auto set = [&](std::uint32_t number, std::uint64_t value) {
    return writeXcr(*m, number, value) ? Raised{} : take(*m);
  };
  EXPECT_EQ(set(0, 1), ud()) << "CR4.OSXSAVE is off";
  s.cr4 |= cr4::osxsave;
  EXPECT_EQ(set(1, 1), gp(0));
  EXPECT_EQ(set(0, 2), gp(0)) << "x87 must be on";
  EXPECT_EQ(set(0, 5), gp(0)) << "AVX needs SSE";
  EXPECT_EQ(set(0, 0xf), gp(0)) << "not offered";
  EXPECT_EQ(set(0, 7), Raised{});
  EXPECT_EQ(s.xcr0, 7u);
  m.setCpl(3);
  EXPECT_EQ(set(0, 7), gp(0));
}

// System calls live by registers alone.
TEST_F(Control, syscallAndSysret) {
  m.long64(3);
  s.star = 0x0020'0028ull << 32 | 0x9999;
  s.star = std::uint64_t{0x20} << 48 | std::uint64_t{0x28} << 32;
  s.lstar = 0xffff'8000'0000'1000;
  s.cstar = 0xffff'8000'0000'2000;
  s.sfmask = flag::if_ | flag::tf | flag::ac;
  s.rflags = 2 | flag::if_ | flag::rf | flag::cf | flag::ac;
  EXPECT_TRUE(syscallInstruction(*m, 0x1234));
  EXPECT_EQ(s.rip, 0xffff'8000'0000'1000u);
  EXPECT_EQ(s.gpr[rcx], 0x1234u);
  EXPECT_EQ(s.gpr[r11], 2 | flag::if_ | flag::cf | flag::ac);
  EXPECT_EQ(s.rflags, 2 | flag::cf);
  EXPECT_EQ(s.segment[cs].selector, 0x28);
  EXPECT_EQ(s.segment[ss].selector, 0x30);
  EXPECT_EQ(s.cpl, 0);
  EXPECT_TRUE(m->mode64());
  EXPECT_TRUE(sysretInstruction(*m, 8));
  EXPECT_EQ(s.rip, 0x1234u);
  EXPECT_EQ(s.segment[cs].selector, 0x33);
  EXPECT_EQ(s.segment[ss].selector, 0x2b);
  EXPECT_EQ(s.cpl, 3);
  EXPECT_EQ(s.rflags, 2 | flag::if_ | flag::cf | flag::ac);
  EXPECT_EQ(s.segment[ss].dpl(), 3u);
  EXPECT_FALSE(sysretInstruction(*m, 8));
  EXPECT_EQ(take(*m), gp(0)) << "CPL 3";
  m.setCpl(0);
  s.gpr[rcx] = 0xffff'ffff'1234;
  EXPECT_TRUE(sysretInstruction(*m, 4));
  EXPECT_EQ(s.rip, 0xffff'1234u);
  EXPECT_EQ(s.segment[cs].selector, 0x23);
  EXPECT_FALSE(m->mode64());
  EXPECT_TRUE(syscallInstruction(*m, 0x55)) << "AMD's, from compatibility mode";
  EXPECT_EQ(s.rip, 0xffff'8000'0000'2000u);
  s.efer &= ~efer::sce;
  EXPECT_FALSE(syscallInstruction(*m, 0));
  EXPECT_EQ(take(*m), ud());
}

TEST(ControlIntel, vendorDifferences) {
  TestMachine m(CpuVendor::intel);
  CpuState& s = m.state();
  m.long64(0);
  s.gpr[rcx] = 0x8000'0000'0000;
  EXPECT_FALSE(sysretInstruction(*m, 8));
  EXPECT_EQ(take(*m), gp(0));
  s.segment[cs] = {0, 0xffff'ffff, sel::code3, 0xc0fb};
  EXPECT_FALSE(syscallInstruction(*m, 0));
  EXPECT_EQ(take(*m), ud());
  s.sysenterCs = 0x28;
  s.sysenterEip = 0xffff'8000'0000'3000;
  s.sysenterEsp = 0xffff'8000'0000'4000;
  EXPECT_TRUE(sysenterInstruction(*m));
  EXPECT_EQ(s.rip, 0xffff'8000'0000'3000u);
  EXPECT_EQ(s.gpr[rsp], 0xffff'8000'0000'4000u);
  EXPECT_TRUE(m->mode64());
  s.gpr[rcx] = 0x7000;
  s.gpr[rdx] = 0x6000;
  EXPECT_TRUE(sysexitInstruction(*m, 8));
  EXPECT_EQ(s.segment[cs].selector, (0x28 + 32) | 3);
  EXPECT_EQ(s.segment[ss].selector, (0x28 + 40) | 3);
  EXPECT_EQ(s.rip, 0x6000u);
  EXPECT_EQ(s.gpr[rsp], 0x7000u);
  EXPECT_FALSE(sysexitInstruction(*m, 8));
  EXPECT_EQ(take(*m), gp(0));
  s.sysenterCs = 3;
  EXPECT_FALSE(sysenterInstruction(*m));
  EXPECT_EQ(take(*m), gp(0));
}

TEST_F(Control, sysenterOnAmd) {
  m.long64(3);
  s.sysenterCs = 8;
  EXPECT_FALSE(sysenterInstruction(*m));
  EXPECT_EQ(take(*m), ud()) << "not in long mode";
  m.protected32(3);
  s.efer = 0;
  s.sysenterEip = 0x3000;
  s.sysenterEsp = 0x4000;
  s.rflags |= flag::if_;
  EXPECT_TRUE(sysenterInstruction(*m));
  EXPECT_EQ(s.cpl, 0);
  EXPECT_EQ(s.segment[ss].selector, 0x10);
  EXPECT_EQ(s.rflags & flag::if_, 0u);
  s.gpr[rcx] = 0x7000;
  s.gpr[rdx] = 0x6000;
  EXPECT_TRUE(sysexitInstruction(*m, 4));
  EXPECT_EQ(s.segment[cs].selector, (8 + 16) | 3);
  EXPECT_EQ(s.cpl, 3);
}

}  // namespace
}  // namespace lodge::x86
