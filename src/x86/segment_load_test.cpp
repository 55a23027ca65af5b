// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

struct Loads : testing::Test {
  TestMachine m;
  Raised load(Segment segment, std::uint16_t selector) {
    return loadSegment(*m, segment, selector) ? Raised{} : take(*m);
  }
  std::uint64_t at(std::uint16_t selector) { return m.load<std::uint64_t>(at::gdt + (selector & 0xfff8u)); }
};

TEST_F(Loads, dataSegmentRules) {
  m.protected32(3);
  EXPECT_EQ(load(ds, sel::data3), Raised{});
  EXPECT_EQ(load(ds, sel::data0), gp(sel::data0)) << "CPL 3 > DPL 0";
  EXPECT_EQ(load(es, sel::data0 | 3), gp(sel::data0)) << "RPL is not in the code";
  EXPECT_EQ(load(ds, sel::conforming | 3), Raised{}) << "conforming code is for all";
  EXPECT_EQ(load(ds, sel::executeOnly), gp(sel::executeOnly));
  EXPECT_EQ(load(ds, sel::tss), gp(sel::tss)) << "a system segment";
  EXPECT_EQ(load(fs, sel::notPresent), np(sel::notPresent));
  EXPECT_EQ(load(ds, 0xc0), gp(0xc0)) << "beyond GDTR's limit";
  EXPECT_EQ(load(ds, 0x104), gp(0x104)) << "beyond LDTR's limit";
  m.setCpl(0);
  EXPECT_EQ(load(ds, sel::data0 | 3), gp(sel::data0)) << "RPL 3 > DPL 0";
  EXPECT_EQ(load(ds, sel::readOnly), Raised{});
  EXPECT_EQ(load(ds, sel::code0), Raised{});
}

TEST_F(Loads, nullMakesUnusable) {
  m.protected32(3);
  for (std::uint16_t selector : {0, 1, 2, 3}) {
    EXPECT_EQ(load(gs, selector), Raised{});
    EXPECT_EQ(m.state().segment[gs].selector, selector);
    EXPECT_FALSE(m.state().segment[gs].present());
    EXPECT_EQ(m.state().segment[gs].base, 0u);
  }
  EXPECT_EQ(load(ss, 0), gp(0));
}

TEST_F(Loads, stackSegmentRules) {
  m.protected32(0);
  EXPECT_EQ(load(ss, sel::data0), Raised{});
  EXPECT_EQ(load(ss, sel::data0 | 1), gp(sel::data0)) << "RPL";
  EXPECT_EQ(load(ss, sel::data3 & ~3), gp(sel::data3 & ~3)) << "DPL";
  EXPECT_EQ(load(ss, sel::readOnly), gp(sel::readOnly));
  EXPECT_EQ(load(ss, sel::code0), gp(sel::code0));
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0xfffff, 0x12, 0xc));
  m.state().gdtr.limit = 0xffff;
  EXPECT_EQ(load(ss, sel::free), ssFault(sel::free)) << "not present";
}

TEST_F(Loads, wrongTypeComesBeforeNotPresent) {
  m.protected32(0);
  m.state().gdtr.limit = 0xffff;
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0, 0x10, 0));  // read-only, not present
  EXPECT_EQ(load(ss, sel::free), gp(sel::free));
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0, 0x18, 0));  // execute-only, not present
  EXPECT_EQ(load(ds, sel::free), gp(sel::free));
}

TEST_F(Loads, hiddenPart) {
  m.protected32(0);
  m.state().gdtr.limit = 0xffff;
  m.setDescriptor(sel::free, TestMachine::descriptor(0x8765'4321, 0x12345, 0x92, 0x4));
  ASSERT_EQ(load(ds, sel::free), Raised{});
  const SegmentRegister& r = m.state().segment[ds];
  EXPECT_EQ(r.base, 0x8765'4321u);
  EXPECT_EQ(r.limit, 0x12345u);
  EXPECT_EQ(r.attributes, 0x4093);
  EXPECT_EQ(at(sel::free) >> 40 & 1, 1u) << "accessed";
  m.setDescriptor(sel::free, TestMachine::descriptor(0, 0x12345, 0x92, 0xc));
  ASSERT_EQ(load(ds, sel::free), Raised{});
  EXPECT_EQ(r.limit, 0x1234'5fffu);
}

TEST_F(Loads, ldtSelectors) {
  m.protected32(0);
  m.setDescriptor(0x14, TestMachine::descriptor(0x77, 0xf, 0x92, 0));
  EXPECT_EQ(load(ds, 0x14), Raised{});
  EXPECT_EQ(m.state().segment[ds].base, 0x77u);
  EXPECT_EQ(loadLdtr(*m, 0), true);
  EXPECT_EQ(load(ds, 0x14), gp(0x14)) << "no LDT";
}

TEST_F(Loads, accessedBitWritesFaultLikeStores) {
  m.long64(0);
  m.mapSmallPages();
  m.state().gdtr = {0x2'0000, 0xff, 0};
  m.store<std::uint64_t>(0x2'0010, TestMachine::descriptor(0, 0xfffff, 0x92, 0xc));
  m.store<std::uint64_t>(TestMachine::entryOf(0x2'0000), 0x2'0000 | 1);
  EXPECT_EQ(load(ds, 0x10), pageFault(0x2'0015, pf::present | pf::write));
  m.store<std::uint64_t>(0x2'0010, TestMachine::descriptor(0, 0xfffff, 0x93, 0xc));
  EXPECT_EQ(load(ds, 0x10), Raised{}) << "nothing to write";
}

TEST_F(Loads, descriptorReadsFaultAsSupervisor) {
  m.long64(3, false);
  m.mapSmallPages();
  m.store<std::uint64_t>(at::pageTables + 0x2000, (at::pageTables + 0x4000) | 7);
  for (std::uint64_t entry : {at::pageTables, at::pageTables + 0x1000})
    m.store(entry, m.load<std::uint64_t>(entry) | 7);
  m.store<std::uint64_t>(TestMachine::entryOf(at::gdt), 0);
  EXPECT_EQ(load(ds, sel::data3), pageFault(at::gdt + (sel::data3 & ~7), 0));
}

TEST_F(Loads, realAndVirtual8086Mode) {
  m.real();
  m.state().segment[ds].limit = 0xffff'ffff;
  EXPECT_EQ(load(ds, 0x1234), Raised{});
  EXPECT_EQ(m.state().segment[ds].base, 0x12340u);
  EXPECT_EQ(m.state().segment[ds].limit, 0xffff'ffffu) << "unreal mode";
  m.protected32(3);
  m.state().rflags |= flag::vm;
  EXPECT_EQ(load(ds, 0x1234), Raised{});
  EXPECT_EQ(m.state().segment[ds].limit, 0xffffu);
  EXPECT_EQ(m.state().segment[ds].attributes, 0xf3);
}

TEST_F(Loads, longModeStacks) {
  m.long64(0);
  EXPECT_EQ(load(ss, 0), Raised{}) << "null is a stack below CPL 3";
  EXPECT_EQ(load(ss, 1), gp(0)) << "but RPL must be CPL";
  m.setCpl(3);
  EXPECT_EQ(load(ss, 3), gp(0));
}

TEST_F(Loads, taskRegister) {
  m.protected32(0);
  auto ltr = [&](std::uint16_t selector) { return loadTr(*m, selector) ? Raised{} : take(*m); };
  EXPECT_EQ(ltr(0), gp(0));
  EXPECT_EQ(ltr(sel::tss | 4), gp(sel::tss | 4));
  EXPECT_EQ(ltr(sel::data0), gp(sel::data0));
  EXPECT_EQ(ltr(sel::tss2), Raised{});
  EXPECT_EQ(at(sel::tss2) >> 40 & 0xff, 0x8bu) << "busy";
  EXPECT_EQ(ltr(sel::tss2), gp(sel::tss2));
  m.setDescriptor(sel::tss2, TestMachine::descriptor(0, 0x67, 0x09, 0));
  EXPECT_EQ(ltr(sel::tss2), np(sel::tss2));
  m.setDescriptor(sel::tss2, TestMachine::descriptor(0, 0x2b, 0x81, 0));
  EXPECT_EQ(ltr(sel::tss2), Raised{}) << "16-bit";
  m.setCpl(3);
  EXPECT_EQ(ltr(sel::tss), gp(0));
  m.state().rflags |= flag::vm;
  EXPECT_EQ(ltr(sel::tss), ud());
}

TEST_F(Loads, longModeSystemDescriptorsHaveSixteenBytes) {
  m.long64(0);
  auto ltr = [&](std::uint16_t selector) { return loadTr(*m, selector) ? Raised{} : take(*m); };
  m.setDescriptor(sel::tss2, TestMachine::descriptor(0x8765'0000, 0x67, 0x89, 0), 0xffff'8000);
  EXPECT_EQ(ltr(sel::tss2), Raised{});
  EXPECT_EQ(m.state().tr.base, 0xffff'8000'8765'0000u);
  m.setDescriptor(sel::tss2, TestMachine::descriptor(0, 0x67, 0x89, 0), 0x0000'8000);
  EXPECT_EQ(ltr(sel::tss2), gp(sel::tss2)) << "not canonical";
  m.setDescriptor(sel::tss2, TestMachine::descriptor(0, 0x67, 0x89, 0), 1ull << 40);
  EXPECT_EQ(ltr(sel::tss2), gp(sel::tss2)) << "type bits in the second half";
  m.setDescriptor(sel::tss2, TestMachine::descriptor(0, 0x2b, 0x81, 0), 0);
  EXPECT_EQ(ltr(sel::tss2), gp(sel::tss2)) << "no 16-bit TSS";
  m.state().gdtr.limit = sel::ldt + 7;
  EXPECT_FALSE(loadLdtr(*m, sel::ldt)) << "half of it is outside the table";
  EXPECT_EQ(take(*m), gp(sel::ldt));
}

TEST_F(Loads, localDescriptorTable) {
  m.protected32(0);
  auto lldt = [&](std::uint16_t selector) { return loadLdtr(*m, selector) ? Raised{} : take(*m); };
  EXPECT_EQ(lldt(sel::ldt), Raised{});
  EXPECT_EQ(m.state().ldtr.base, at::ldt);
  EXPECT_EQ(lldt(sel::ldt | 4), gp(sel::ldt | 4));
  EXPECT_EQ(lldt(sel::tss), gp(sel::tss));
  m.setDescriptor(sel::ldt, TestMachine::descriptor(0, 0, 0x02, 0));
  EXPECT_EQ(lldt(sel::ldt), np(sel::ldt));
  m.real();
  m.state().cr0 &= ~cr0::pe;
  EXPECT_EQ(lldt(sel::ldt), ud());
}

// LAR, LSL, VERR, VERW: at every pair of privilege levels, against the rule in words.
TEST_F(Loads, queriesAreBlindToWhatTheCallerMayNotSee) {
  m.protected32(3);
  m.state().gdtr.limit = 0xffff;
  for (unsigned dpl = 0; dpl < 4; ++dpl) {
    for (unsigned rplValue = 0; rplValue < 4; ++rplValue) {
      for (unsigned cpl : {0u, 3u}) {
        m.state().cpl = static_cast<std::uint8_t>(cpl);
        m.setDescriptor(sel::free, TestMachine::descriptor(0, 0x1234, 0x92 | dpl << 5, 0));
        auto selector = static_cast<std::uint16_t>(sel::free | rplValue);
        bool seen = cpl <= dpl && rplValue <= dpl, ok = false;
        std::uint32_t value = 0;
        ASSERT_TRUE(loadAccessRights(*m, selector, ok, value));
        EXPECT_EQ(ok, seen);
        if (seen) {
          EXPECT_EQ(value, (0x92 | dpl << 5) << 8);
        }
        ASSERT_TRUE(loadLimit(*m, selector, ok, value));
        EXPECT_EQ(ok, seen);
        if (seen) {
          EXPECT_EQ(value, 0x1234u);
        }
        ASSERT_TRUE(verifySegment(*m, selector, true, ok));
        EXPECT_EQ(ok, seen);
        m.setDescriptor(sel::free, TestMachine::descriptor(0, 0x1234, 0x9e | dpl << 5, 0));
        ASSERT_TRUE(verifySegment(*m, selector, false, ok));
        EXPECT_TRUE(ok) << "conforming";
        ASSERT_TRUE(verifySegment(*m, selector, true, ok));
        EXPECT_FALSE(ok) << "code is not writable";
      }
    }
  }
}

TEST_F(Loads, queriesOfSystemDescriptors) {
  for (bool wide : {false, true}) {
    if (wide) {
      m.long64(0);
    } else {
      m.protected32(0);
    }
    m.state().gdtr.limit = 0xffff;
    for (unsigned type = 0; type < 16; ++type) {
      m.setDescriptor(sel::free, TestMachine::descriptor(0, 0x10, 0x80 | type, 0));
      bool lar = false, lsl = false, verr = true;
      std::uint32_t value = 0;
      ASSERT_TRUE(loadAccessRights(*m, sel::free, lar, value));
      ASSERT_TRUE(loadLimit(*m, sel::free, lsl, value));
      ASSERT_TRUE(verifySegment(*m, sel::free, false, verr));
      bool segment = type == 2 || type == 9 || type == 11 || (!wide && (type == 1 || type == 3));
      bool gate = type == 12 || (!wide && (type == 4 || type == 5));
      EXPECT_EQ(lar, segment || gate) << type;
      EXPECT_EQ(lsl, segment) << type;
      EXPECT_FALSE(verr);
    }
    bool ok = true;
    std::uint32_t value = 0;
    EXPECT_TRUE(loadLimit(*m, 0, ok, value));
    EXPECT_FALSE(ok) << "null";
    ok = true;
    m.state().gdtr.limit = 0x17;
    EXPECT_TRUE(loadLimit(*m, 0x18, ok, value));
    EXPECT_FALSE(ok) << "outside";
  }
  m.real();
  m.state().cr0 = cr0::et;
  bool ok = false;
  EXPECT_FALSE(verifySegment(*m, 8, false, ok));
  EXPECT_EQ(take(*m), ud());
}

}  // namespace
}  // namespace lodge::x86
