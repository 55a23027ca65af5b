// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

struct Flags : testing::Test {
  TestMachine m;
  CpuState& s = m.state();
  void enter(unsigned cpl, unsigned iopl, std::uint64_t more = 0) {
    m.protected32(cpl);
    s.rflags = 2 | iopl << 12 | more;
    s.interruptShadow = 0;
  }
  Raised pop(std::uint64_t value, unsigned size) { return popFlags(*m, value, size) ? Raised{} : take(*m); }
  Raised sti(bool value) { return setInterruptFlag(*m, value) ? Raised{} : take(*m); }
};

TEST_F(Flags, popByPrivilege) {
  enter(0, 0, flag::rf);
  EXPECT_EQ(pop(~0ull, 4), Raised{});
  EXPECT_EQ(s.rflags, 0x24'7fd7u) << "no VM, RF, VIF, VIP";
  enter(3, 0);
  EXPECT_EQ(pop(~0ull, 4), Raised{});
  EXPECT_EQ(s.rflags, 0x24'4dd7u) << "no IOPL, no IF";
  enter(3, 3);
  EXPECT_EQ(pop(~0ull, 4), Raised{});
  EXPECT_EQ(s.rflags, 0x24'7fd7u);
  enter(0, 0, flag::ac | flag::id);
  EXPECT_EQ(pop(0, 2), Raised{});
  EXPECT_EQ(s.rflags, flag::ac | flag::id | 2) << "16 bits touch the lower half";
}

TEST_F(Flags, virtual8086) {
  enter(3, 0, flag::vm);
  std::uint64_t image = 0;
  EXPECT_EQ(pop(0, 2), gp(0));
  EXPECT_FALSE(pushFlags(*m, 2, image));
  EXPECT_EQ(take(*m), gp(0));
  EXPECT_EQ(sti(true), gp(0));
  s.cr4 = cr4::vme;
  EXPECT_EQ(pop(0x202, 2), Raised{});
  EXPECT_EQ(s.rflags, flag::vm | flag::vif | 2);
  EXPECT_TRUE(pushFlags(*m, 2, image));
  EXPECT_EQ(image & 0xffff, 0x3202u);
  EXPECT_FALSE(pushFlags(*m, 4, image));
  take(*m);
  EXPECT_EQ(pop(0x202, 4), gp(0));
  EXPECT_EQ(pop(0x102, 2), gp(0)) << "TF";
  EXPECT_EQ(sti(false), Raised{});
  EXPECT_EQ(s.rflags, flag::vm | 2);
  EXPECT_EQ(sti(true), Raised{});
  EXPECT_EQ(s.rflags, flag::vm | flag::vif | 2);
  s.rflags |= flag::vip;
  EXPECT_EQ(sti(true), gp(0));
  EXPECT_EQ(pop(0x202, 2), gp(0));
  enter(3, 3, flag::vm);
  EXPECT_EQ(pop(0x3202, 2), Raised{});
  EXPECT_EQ(s.rflags, flag::vm | flag::iopl | flag::if_ | 2);
}

TEST_F(Flags, interruptFlag) {
  enter(3, 0);
  EXPECT_EQ(sti(true), gp(0));
  EXPECT_EQ(sti(false), gp(0));
  s.cr4 = cr4::pvi;
  EXPECT_EQ(sti(true), Raised{});
  EXPECT_EQ(s.rflags, flag::vif | 2);
  s.rflags |= flag::vip;
  EXPECT_EQ(sti(true), gp(0));
  enter(0, 0);
  EXPECT_EQ(sti(true), Raised{});
  EXPECT_EQ(s.interruptShadow, 1);
  s.interruptShadow = 0;
  EXPECT_EQ(sti(true), Raised{});
  EXPECT_EQ(s.interruptShadow, 0) << "it was on already";
}

TEST_F(Flags, openingTheWindowGivesDeferredEventsBack) {
  enter(0, 0);
  m->deferredEvents = event::interrupt;
  EXPECT_EQ(pop(0x202, 4), Raised{});
  EXPECT_EQ(m->events.load(), event::interrupt);
  EXPECT_EQ(m->deferredEvents, 0u);
}

TEST_F(Flags, accessCheckTellsTheListener) {
  m.long64(0);
  m.listener = {};
  setAccessCheck(*m, true);
  EXPECT_EQ(m.listener.modes, 1);
  EXPECT_NE(s.rflags & flag::ac, 0u);
  setAccessCheck(*m, true);
  EXPECT_EQ(m.listener.modes, 1);
}

TEST_F(Flags, userModeInstructionPrevention) {
  m.long64(3);
  EXPECT_TRUE(checkUmip(*m));
  s.cr4 |= cr4::umip;
  EXPECT_FALSE(checkUmip(*m));
  EXPECT_EQ(take(*m), gp(0));
  m.setCpl(0);
  EXPECT_TRUE(checkUmip(*m));
}

TEST_F(Flags, portPermissions) {
  enter(3, 0);
  auto check = [&](std::uint16_t port, unsigned size) {
    return checkIoPermission(*m, port, size) ? Raised{} : take(*m);
  };
  for (unsigned i = 0; i < 0x2000; i += 8) m.store<std::uint64_t>(at::tss + 104 + i, 0);
  EXPECT_EQ(check(0x3f8, 4), Raised{});
  m.store<std::uint8_t>(at::tss + 104 + 0x3f9 / 8, 1 << (0x3f9 % 8));
  EXPECT_EQ(check(0x3f8, 1), Raised{});
  EXPECT_EQ(check(0x3f8, 2), gp(0));
  EXPECT_EQ(check(0x3f9, 1), gp(0));
  m.store<std::uint8_t>(at::tss + 104 + 0x3f9 / 8, 0);
  m.store<std::uint8_t>(at::tss + 104 + 0x400 / 8, 1);
  EXPECT_EQ(check(0x3ff, 2), gp(0)) << "the range crosses a byte";
  EXPECT_EQ(check(0xfff8, 1), gp(0)) << "the byte after the last must be there, too";
  s.tr.limit = 0x2068;
  EXPECT_EQ(check(0xfff8, 1), Raised{});
  s.tr.limit = 0x66;
  EXPECT_EQ(check(0x3f8, 1), gp(0));
  s.tr = {at::tss, 0x2067, sel::tss, 0x83};
  EXPECT_EQ(check(0x3f8, 1), gp(0)) << "a 16-bit TSS has no map";
  s.rflags |= flag::iopl;
  EXPECT_EQ(check(0x3f8, 1), Raised{});
  s.rflags |= flag::vm;
  EXPECT_EQ(check(0x3f8, 1), gp(0)) << "virtual-8086 mode always asks the map";
  s.cr0 = cr0::et;
  s.rflags = 2;
  EXPECT_EQ(check(0x3f8, 1), Raised{});
}

}  // namespace
}  // namespace lodge::x86
