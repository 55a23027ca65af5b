// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <numeric>

#include "x86/test_machine.h"
#include "x86/virtual_memory.h"

namespace lodge::x86 {
namespace {

constexpr std::uint64_t kPage = 0x5'0000;

struct LinearAccess : testing::Test {
  TestMachine m;
  void SetUp() override {
    m.long64();
    m.mapSmallPages();
  }
  void unmap(std::uint64_t linear) { m.store<std::uint64_t>(TestMachine::entryOf(linear), 0); }
  // The page becomes a device's.
  void mapDevice(std::uint64_t linear, std::uint64_t gpa) {
    m.store<std::uint64_t>(TestMachine::entryOf(linear), gpa | 7);
  }
};

TEST_F(LinearAccess, everySizeAndOffsetAcrossAPageEnd) {
  for (unsigned size : {1u, 2u, 4u, 8u}) {
    for (std::uint64_t at = kPage + 0xff8; at <= kPage + 0x1000; ++at) {
      std::uint64_t mask = size == 8 ? ~0ull : (1ull << 8 * size) - 1;
      std::uint64_t value = 0x0102'0304'0506'0708 * at;
      ASSERT_TRUE(writeLinear(*m, at, size, value));
      std::uint64_t got = 0;
      ASSERT_TRUE(readLinear(*m, at, size, got));
      EXPECT_EQ(got, value & mask) << size << " at " << at;
    }
  }
}

TEST_F(LinearAccess, bothPagesAreCheckedBeforeAnythingIsWritten) {
  unmap(kPage + 0x1000);
  m.store<std::uint64_t>(kPage + 0xff8, ~0ull);
  EXPECT_FALSE(writeLinear(*m, kPage + 0xffc, 8, 0));
  EXPECT_EQ(take(*m), pageFault(kPage + 0x1000, pf::write));
  EXPECT_EQ(m.load<std::uint64_t>(kPage + 0xff8), ~0ull);
  std::byte buffer[64] = {};
  EXPECT_FALSE(writeLinearBytes(*m, kPage + 0xfe0, buffer, 64));
  EXPECT_EQ(take(*m), pageFault(kPage + 0x1000, pf::write));
  EXPECT_EQ(m.load<std::uint64_t>(kPage + 0xff8), ~0ull);
  EXPECT_FALSE(probeLinear(*m, kPage + 0xffc, 8, Access::read));
  EXPECT_EQ(take(*m), pageFault(kPage + 0x1000, 0));
  unmap(kPage);
  EXPECT_FALSE(writeLinear(*m, kPage + 0xffc, 8, 0));
  EXPECT_EQ(take(*m), pageFault(kPage + 0xffc, pf::write)) << "the first page's fault comes first";
}

TEST_F(LinearAccess, deviceAccessesAreNaturallyAligned) {
  mapDevice(kPage, 0xfee0'0000);
  std::uint64_t value = 0;
  ASSERT_TRUE(readLinear(*m, kPage + 0x20, 4, value));
  EXPECT_EQ(value, 0x2322'2120u);
  ASSERT_TRUE(readLinear(*m, kPage + 0x23, 8, value));
  EXPECT_EQ(value, 0x2a29'2827'2625'2423u);
  std::vector<std::pair<std::uint64_t, unsigned>> got;
  for (const auto& a : m.environment.accesses) got.emplace_back(a.gpa & 0xfff, a.size);
  EXPECT_EQ(got,
            (std::vector<std::pair<std::uint64_t, unsigned>>{{0x20, 4}, {0x23, 1}, {0x24, 4}, {0x28, 2}, {0x2a, 1}}));
}

TEST_F(LinearAccess, largeOperandsReachDevicesInEights) {
  mapDevice(kPage, 0xd000'0000);
  std::byte buffer[32];
  for (unsigned i = 0; i < 32; ++i) buffer[i] = std::byte(i);
  ASSERT_TRUE(writeLinearBytes(*m, kPage + 0x40, buffer, 32));
  ASSERT_EQ(m.environment.accesses.size(), 4u);
  EXPECT_EQ(m.environment.accesses[3].value, 0x1f1e'1d1c'1b1a'1918u);
  EXPECT_EQ(m.environment.accesses[3].gpa, 0xd000'0058u);
}

TEST_F(LinearAccess, halfRamHalfDevice) {
  mapDevice(kPage + 0x1000, 0xd000'0000);
  ASSERT_TRUE(writeLinear(*m, kPage + 0xffd, 8, 0x8877'6655'4433'2211));
  EXPECT_EQ(m.load<std::uint16_t>(kPage + 0xffd), 0x2211);
  EXPECT_EQ(m.load<std::uint8_t>(kPage + 0xfff), 0x33);
  ASSERT_EQ(m.environment.accesses.size(), 2u);
  EXPECT_EQ(m.environment.accesses[0].value, 0x7766'5544u);
  EXPECT_EQ(m.environment.accesses[1].value, 0x88u);
}

TEST_F(LinearAccess, pointersAreForOneRamPage) {
  std::byte* p = writablePointer(*m, kPage + 8, 8);
  ASSERT_NE(p, nullptr);
  *p = std::byte{0x5a};
  wroteTo(*m, p, 8);
  EXPECT_EQ(m.load<std::uint8_t>(kPage + 8), 0x5a);
  EXPECT_EQ(writablePointer(*m, kPage + 0xffc, 8), nullptr);
  EXPECT_EQ(raised(*m), Raised{}) << "crosses, but may be written";
  mapDevice(kPage + 0x2000, 0xd000'0000);
  EXPECT_EQ(writablePointer(*m, kPage + 0x2000, 8), nullptr);
  EXPECT_EQ(raised(*m), Raised{});
  unmap(kPage + 0x3000);
  EXPECT_EQ(writablePointer(*m, kPage + 0x2ffc, 8), nullptr);
  EXPECT_EQ(take(*m), pageFault(kPage + 0x3000, pf::write));
  EXPECT_EQ(readablePointer(*m, kPage + 0x3000, 8), nullptr);
  EXPECT_EQ(take(*m), pageFault(kPage + 0x3000, 0));
  EXPECT_NE(readablePointer(*m, kPage, 8), nullptr);
}

TEST_F(LinearAccess, alignmentChecks) {
  m.setCpl(3);
  std::uint64_t value = 0;
  ASSERT_TRUE(readLinear(*m, kPage + 1, 4, value)) << "also fills the TLB";
  m.state().cr0 |= cr0::am;
  m.state().rflags |= flag::ac;
  const Raised want{17, 0, 0};
  for (unsigned size : {2u, 4u, 8u}) {
    EXPECT_FALSE(readLinear(*m, kPage + 1, size, value));
    EXPECT_EQ(take(*m), want);
    EXPECT_TRUE(m->exception.hasErrorCode);
    EXPECT_FALSE(writeLinear(*m, kPage + size / 2, size, value));
    EXPECT_EQ(take(*m), want);
    EXPECT_TRUE(writeLinear(*m, kPage + size, size, value));
  }
  EXPECT_TRUE(readLinear(*m, kPage + 1, 1, value));
  EXPECT_EQ(writablePointer(*m, kPage + 2, 4), nullptr);
  EXPECT_EQ(take(*m), want);
  std::byte buffer[16] = {};
  EXPECT_FALSE(writeLinearBytes(*m, kPage + 8, buffer, 16));
  EXPECT_EQ(take(*m), want);
  EXPECT_TRUE(readLinear(*m, kPage + 1, 4, value, Privilege::implicitSupervisor));
  m.setCpl(0);
  EXPECT_TRUE(readLinear(*m, kPage + 1, 4, value)) << "at CPL 3 only";
}

TEST_F(LinearAccess, wholeXsaveAreasAtAnyAlignment) {
  std::vector<std::byte> area(4096), back(4096);
  for (std::size_t i = 0; i < area.size(); ++i) area[i] = std::byte(i * 7);
  for (std::uint64_t at : {kPage, kPage + 1, kPage + 0x801, kPage + 0xfff}) {
    ASSERT_TRUE(writeLinearBytes(*m, at, area.data(), 4096));
    ASSERT_TRUE(readLinearBytes(*m, at, back.data(), 4096));
    EXPECT_EQ(area, back);
  }
}

TEST_F(LinearAccess, fetchStopsAtAFaultOnTheNextPage) {
  std::uint8_t bytes[15];
  CpuState& s = m.state();
  s.rip = kPage + 0xffd;
  EXPECT_EQ(fetchInstruction(*m, bytes), 15u);
  unmap(kPage + 0x1000);
  clearTlb(*m);
  EXPECT_EQ(fetchInstruction(*m, bytes), 3u);
  EXPECT_EQ(raised(*m), Raised{});
  EXPECT_FALSE(probeLinear(*m, kPage + 0x1000, 1, Access::execute));
  EXPECT_EQ(take(*m), pageFault(kPage + 0x1000, pf::fetch));
  s.rip = kPage + 0x1000;
  EXPECT_EQ(fetchInstruction(*m, bytes), 0u);
  EXPECT_EQ(take(*m), pageFault(kPage + 0x1000, pf::fetch));
  s.rip = 0x8000'0000'0000;
  EXPECT_EQ(fetchInstruction(*m, bytes), 0u);
  EXPECT_EQ(take(*m), gp(0));
}

TEST(Fetch, stopsAtTheSegmentLimit) {
  TestMachine m;
  m.protected32();
  std::uint8_t bytes[15];
  m.state().segment[cs].limit = 0xc004;
  EXPECT_EQ(fetchInstruction(*m, bytes), 5u);
  m.state().rip = 0xc005;
  EXPECT_EQ(fetchInstruction(*m, bytes), 0u);
  EXPECT_EQ(take(*m), gp(0));
}

TEST(LinearAddress, segmentRules) {
  TestMachine m;
  m.protected32();
  CpuState& s = m.state();
  std::uint64_t linear = 0;
  auto check = [&](Segment segment, std::uint64_t offset, unsigned size, Access access) {
    return linearAddress(*m, segment, offset, size, access, linear) ? Raised{} : take(*m);
  };
  s.segment[ds] = {0x1000, 0xff, 8, 0x4093};
  EXPECT_EQ(check(ds, 0xfc, 4, Access::write), Raised{});
  EXPECT_EQ(linear, 0x10fcu);
  EXPECT_EQ(check(ds, 0xfd, 4, Access::read), gp(0));
  EXPECT_EQ(check(ds, 0xffff'ffff, 4, Access::read), gp(0)) << "no wrap into the segment";
  s.segment[ss] = s.segment[ds];
  EXPECT_EQ(check(ss, 0xfd, 4, Access::read), ssFault(0));
  s.segment[ds].attributes = 0x4091;  // read-only
  EXPECT_EQ(check(ds, 0, 1, Access::write), gp(0));
  s.segment[ds].attributes = 0x4099;  // execute-only
  EXPECT_EQ(check(ds, 0, 1, Access::read), gp(0));
  s.segment[ds].attributes = 0x409b;  // code, readable
  EXPECT_EQ(check(ds, 0, 1, Access::read), Raised{});
  EXPECT_EQ(check(ds, 0, 1, Access::write), gp(0));
  s.segment[ds] = {0, 0, 0, 0};
  EXPECT_EQ(check(ds, 0, 1, Access::read), gp(0)) << "null";
  s.segment[ds] = {0x1000, 0xfff, 8, 0x4097};  // expand-down, 32 bits
  EXPECT_EQ(check(ds, 0xfff, 1, Access::read), gp(0));
  EXPECT_EQ(check(ds, 0x1000, 4, Access::read), Raised{});
  EXPECT_EQ(check(ds, 0xffff'fffd, 4, Access::read), gp(0));
  s.segment[ds].attributes = 0x0097;  // 16 bits
  EXPECT_EQ(check(ds, 0xfffe, 2, Access::read), Raised{});
  EXPECT_EQ(check(ds, 0xffff, 2, Access::read), gp(0));
  s.segment[ds] = {0xffff'f000, 0xffff'ffff, 8, 0xc093};
  EXPECT_EQ(check(ds, 0x2000, 4, Access::read), Raised{});
  EXPECT_EQ(linear, 0x1000u) << "linear addresses wrap at 4 GiB";
}

TEST(LinearAddress, longModeRules) {
  TestMachine m;
  m.long64();
  CpuState& s = m.state();
  std::uint64_t linear = 0;
  auto check = [&](Segment segment, std::uint64_t offset, unsigned size) {
    return linearAddress(*m, segment, offset, size, Access::write, linear) ? Raised{} : take(*m);
  };
  s.segment[ds] = {0x1000, 0, 0, 0};
  EXPECT_EQ(check(ds, 0x7fff'ffff'fff8, 8), Raised{});
  EXPECT_EQ(linear, 0x7fff'ffff'fff8u) << "DS has no base";
  EXPECT_EQ(check(ds, 0x7fff'ffff'fff9, 8), gp(0));
  EXPECT_EQ(check(ss, 0x8000'0000'0000, 1), ssFault(0));
  EXPECT_EQ(check(ds, 0xffff'8000'0000'0000, 8), Raised{});
  s.segment[gs].base = 0xffff'8000'0000'0000;
  EXPECT_EQ(check(gs, 0x10, 8), Raised{});
  EXPECT_EQ(linear, 0xffff'8000'0000'0010u);
  s.cr4 |= cr4::la57;
  EXPECT_EQ(check(ds, 0x00ff'ffff'ffff'fff8, 8), Raised{});
}

TEST(LinearAddress, realModeKnowsLimitsOnly) {
  TestMachine m;
  m.real();
  CpuState& s = m.state();
  std::uint64_t linear = 0;
  s.segment[cs].attributes = 0x9b;
  EXPECT_TRUE(linearAddress(*m, cs, 0x10, 2, Access::write, linear));
  s.segment[ds].base = 0xffff0;
  EXPECT_TRUE(linearAddress(*m, ds, 0xfffe, 2, Access::read, linear));
  EXPECT_EQ(linear, 0x10ffeeu);
  EXPECT_FALSE(linearAddress(*m, ds, 0xffff, 2, Access::read, linear));
  EXPECT_EQ(take(*m), gp(0));
  EXPECT_FALSE(linearAddress(*m, ss, 0xffff, 2, Access::read, linear));
  EXPECT_EQ(take(*m), ssFault(0));
}

}  // namespace
}  // namespace lodge::x86
