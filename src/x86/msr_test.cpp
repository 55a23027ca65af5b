// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "x86/paravirt.h"
#include "x86/test_machine.h"

namespace lodge::x86 {
namespace {

struct Msr : testing::Test {
  TestMachine m;
  CpuState& s = m.state();
  void SetUp() override { m.long64(0); }
  Raised write(std::uint32_t number, std::uint64_t value) { return writeMsr(*m, number, value) ? Raised{} : take(*m); }
  std::uint64_t read(std::uint32_t number) {
    std::uint64_t value = 0;
    EXPECT_TRUE(readMsr(*m, number, value)) << std::hex << number;
    return value;
  }
  bool exists(std::uint32_t number) {
    std::uint64_t value = 0;
    bool ok = readMsr(*m, number, value);
    m->exception.valid = false;
    return ok;
  }
};

TEST_F(Msr, unknownOnesFault) {
  for (std::uint32_t number : {0x12345u, 0x40000000u, 0xc0000fffu, 0xc0020000u, 0xffffffffu, 0x4b564d02u}) {
    EXPECT_FALSE(exists(number)) << std::hex << number;
    EXPECT_EQ(write(number, 0), gp(0));
  }
  m.setCpl(3);
  EXPECT_FALSE(exists(0x10));
  EXPECT_EQ(write(0xc000'0080, 0), gp(0));
}

TEST_F(Msr, efer) {
  EXPECT_EQ(write(0xc000'0080, s.efer | 1 << 14), gp(0)) << "FFXSR is not offered";
  EXPECT_EQ(write(0xc000'0080, s.efer & ~efer::lme), gp(0)) << "paging is on";
  m.listener = {};
  EXPECT_EQ(write(0xc000'0080, efer::lme | efer::sce), Raised{});
  EXPECT_EQ(s.efer, efer::lme | efer::lma | efer::sce) << "LMA stays by itself";
  EXPECT_EQ(m.listener.everything, 1) << "NXE changed";
  s.cr0 &= ~cr0::pg;
  s.efer = 0;
  EXPECT_EQ(write(0xc000'0080, efer::lme | efer::lma), Raised{});
  EXPECT_EQ(s.efer, efer::lme);
}

TEST_F(Msr, addressesAreCanonical) {
  m.model->linearAddressBits = 48;
  for (std::uint32_t number : {0x175u, 0x176u, 0xc0000082u, 0xc0000083u, 0xc0000100u, 0xc0000101u, 0xc0000102u}) {
    EXPECT_EQ(write(number, 0x8000'0000'0000), gp(0)) << std::hex << number;
    EXPECT_EQ(write(number, 0xffff'8000'0000'1234), Raised{});
    EXPECT_EQ(read(number), 0xffff'8000'0000'1234u);
  }
  EXPECT_EQ(s.segment[gs].base, 0xffff'8000'0000'1234u);
  EXPECT_EQ(write(0xc000'0081, ~0ull), Raised{});
  EXPECT_EQ(read(0xc000'0081), ~0ull);
}

TEST_F(Msr, memoryTypes) {
  EXPECT_EQ(read(0x277), 0x0007'0406'0007'0406u);
  EXPECT_EQ(write(0x277, 0x0007'0406'0007'0402), gp(0)) << "type 2";
  EXPECT_EQ(write(0x277, 0x0107'0506'0007'0406), Raised{});
  EXPECT_EQ(read(0xfe), 0x508u);
  EXPECT_EQ(write(0xfe, 0), gp(0));
  EXPECT_EQ(write(0x2ff, 0xc06), Raised{});
  EXPECT_EQ(write(0x2ff, 0xc07), gp(0));
  EXPECT_EQ(write(0x2ff, 0x1000), gp(0));
  EXPECT_EQ(write(0x200, 0x1006), Raised{});
  EXPECT_EQ(write(0x200, 0x1106), gp(0));
  EXPECT_EQ(write(0x201, 0xff'ffff'f800), Raised{});
  EXPECT_EQ(write(0x201, 1ull << 40), gp(0));
  EXPECT_EQ(write(0x201, 0x400), gp(0));
  EXPECT_TRUE(exists(0x20f));
  EXPECT_FALSE(exists(0x210));
  for (std::uint32_t number : {0x250u, 0x258u, 0x259u, 0x268u, 0x26fu}) {
    EXPECT_EQ(write(number, 0x0606'0606'0606'0606), Raised{});
    EXPECT_EQ(write(number, 0x0707'0606'0606'0606), gp(0));
    EXPECT_EQ(read(number), 0x0606'0606'0606'0606u);
  }
  EXPECT_FALSE(exists(0x251));
}

TEST_F(Msr, apicRegistersGoToTheApic) {
  FakeApic& apic = m.environment.localApic;
  EXPECT_EQ(write(0x1b, 0xfee0'0d00), Raised{});
  EXPECT_EQ(s.apicBase, 0xfee0'0d00u) << "the CPU's own copy follows";
  EXPECT_EQ(write(0x80b, 7), Raised{});
  EXPECT_EQ(apic.last, 7u);
  EXPECT_EQ(write(0x6e0, 99), Raised{});
  EXPECT_EQ(apic.last, 99u);
  EXPECT_EQ(write(0x8ff, 0), gp(0));
  EXPECT_FALSE(exists(0x8ff));
}

TEST_F(Msr, timeStampCounter) {
  m.model->tscBase = 0;
  EXPECT_EQ(write(0x10, 1'000'000'000'000), Raised{});
  std::uint64_t now = read(0x10);
  EXPECT_GE(now, 1'000'000'000'000u);
  EXPECT_LT(now, 1'010'000'000'000u);
  std::uint64_t adjust = read(0x3b);
  EXPECT_EQ(write(0x3b, adjust + 50'000'000'000'000), Raised{});
  EXPECT_GE(read(0x10), 51'000'000'000'000u);
  EXPECT_EQ(write(0xc000'0103, 0x1'2345'6789), Raised{});
  EXPECT_EQ(read(0xc000'0103), 0x2345'6789u) << "AMD keeps 32 bits";
}

TEST_F(Msr, extendedStates) {
  EXPECT_EQ(read(0xda0), 0u);
  EXPECT_EQ(write(0xda0, 0x100), gp(0));
  m.model->features &= ~(1ull << static_cast<unsigned>(Feature::xsaves));
  EXPECT_FALSE(exists(0xda0));
}

TEST_F(Msr, whatLinuxAsksOnAmd) {
  for (std::uint32_t number :
       {0x8bu, 0xc0010000u, 0xc0010010u, 0xc0010015u, 0xc001001au, 0xc001001du, 0xc001001fu, 0xc0010055u, 0xc0010058u,
        0xc0010114u, 0xc0010140u, 0xc0010141u, 0xc0010200u, 0xc0011020u, 0xc0011022u, 0xc0011029u, 0xc001102au}) {
    EXPECT_TRUE(exists(number)) << std::hex << number;
  }
  EXPECT_EQ(read(0xc001'1029) & 2, 2u) << "LFENCE serializes";
  EXPECT_FALSE(exists(0x10a));
  EXPECT_FALSE(exists(0x48));
}

TEST(MsrIntel, whatLinuxAsksOnIntel) {
  TestMachine m(CpuVendor::intel);
  m.long64(0);
  std::uint64_t value = 0;
  for (std::uint32_t number : {0x17u, 0x2au, 0x3au, 0x8bu, 0xcdu, 0xceu, 0x179u, 0x17au, 0x1a0u, 0x1d9u}) {
    EXPECT_TRUE(readMsr(*m, number, value)) << std::hex << number;
  }
  EXPECT_FALSE(readMsr(*m, 0x10a, value)) << "the model has none";
  m.model->archCapabilities = 0x123;
  m.model->specCtrlSupported = 1;
  EXPECT_TRUE(readMsr(*m, 0x10a, value));
  EXPECT_EQ(value, 0x123u);
  EXPECT_TRUE(writeMsr(*m, 0x48, 1));
  EXPECT_FALSE(writeMsr(*m, 0x48, 2));
  EXPECT_FALSE(readMsr(*m, 0xc001'0015, value));
  EXPECT_TRUE(writeMsr(*m, 0x1a0, 0x40001));
  EXPECT_TRUE(readMsr(*m, 0x1a0, value));
  EXPECT_EQ(value, 0x4'1801u) << "BTS and PEBS stay unavailable";
  EXPECT_FALSE(writeMsr(*m, 0xc000'0103, 1ull << 32));
}

// The paravirtual clock.
struct ClockPage {
  std::uint32_t version, padding;
  std::uint64_t tsc, systemTime;
  std::uint32_t multiplier;
  std::int8_t shift;
  std::uint8_t flags;
};

std::uint64_t clockNow(TestMachine& m, std::uint64_t at) {
  auto page = m.load<ClockPage>(at);
  std::uint64_t delta = readTsc(*m) - page.tsc;
  delta = page.shift < 0 ? delta >> -page.shift : delta << page.shift;
  return page.systemTime + static_cast<std::uint64_t>(static_cast<unsigned __int128>(delta) * page.multiplier >> 32);
}

TEST_F(Msr, paravirtualClockFollowsTheTsc) {
  constexpr std::uint64_t kPage = 0x7'0040;
  EXPECT_EQ(write(0x4b56'4d01, kPage | 1), Raised{});
  auto page = m.load<ClockPage>(kPage);
  EXPECT_EQ(page.version % 2, 0u);
  EXPECT_NE(page.version, 0u);
  EXPECT_EQ(page.flags, 1);
  std::uint64_t first = clockNow(m, kPage);
  // A TSC that the guest writes leaves the clock alone.
  EXPECT_EQ(write(0x10, 0), Raised{});
  std::uint64_t second = clockNow(m, kPage);
  EXPECT_GE(second, first);
  EXPECT_LT(second - first, 1'000'000'000u);
  EXPECT_GT(m.load<ClockPage>(kPage).version, page.version);
  // Another CPU that registers later tells the same time.
  auto other = std::make_unique<Cpu>();
  other->memory = m.memory.get();
  other->environment = &m.environment;
  other->model = m.model.get();
  other->index = 1;
  resetCpu(*other, false);
  ASSERT_TRUE(writeMsr(*other, 0x4b56'4d01, (kPage + 64) | 1));
  auto mine = m.load<ClockPage>(kPage), theirs = m.load<ClockPage>(kPage + 64);
  EXPECT_EQ(mine.multiplier, theirs.multiplier);
  EXPECT_EQ(m.state().tscOffset - mine.tsc, other->state.tscOffset - theirs.tsc) << "one line for all";
}

TEST_F(Msr, timeStampCounterOfAnotherRateThanTheHosts) {
  m.model->tscBase = 0;
  m->tscScale = TscScale::between(1, 4);
  EXPECT_EQ(write(0x10, 1'000'000), Raised{});
  // The host's count on both sides of each of the guest's: however long this thread stands still.
  std::uint64_t before1 = __builtin_ia32_rdtsc(), guest = read(0x10), after1 = __builtin_ia32_rdtsc();
  while (__builtin_ia32_rdtsc() < after1 + 40'000'000) {
  }
  std::uint64_t before2 = __builtin_ia32_rdtsc(), spent = read(0x10) - guest, after2 = __builtin_ia32_rdtsc();
  EXPECT_GE(spent, 10'000'000u - 1);
  EXPECT_GE(spent, (before2 - after1) / 4 - 1);
  EXPECT_LE(spent, (after2 - before1) / 4 + 1);
  std::uint64_t adjust = read(0x3b), before = read(0x10);
  EXPECT_EQ(write(0x3b, adjust + (std::uint64_t{1} << 50)), Raised{});
  EXPECT_GE(read(0x10), before + (std::uint64_t{1} << 50)) << "what the guest adds is its own ticks";
}

TEST_F(Msr, wallClock) {
  constexpr std::uint64_t kPage = 0x7'0100;
  m.model->tscBase = 0;
  s.tscOffset = 0;
  EXPECT_EQ(write(0x10, 3 * m.model->tscHz), Raised{});
  s.tscAdjust = 0;  // as if three seconds had passed
  EXPECT_EQ(write(0x4b56'4d00, kPage), Raised{});
  // The fake's guest time is 5 s, its wall clock base 1,700,000,000 s; the clock's zero was 3 s ago.
  EXPECT_NEAR(m.load<std::uint32_t>(kPage + 4), 1'700'000'002u, 1);
  EXPECT_EQ(m.load<std::uint32_t>(kPage) % 2, 0u);
}

TEST_F(Msr, paravirtualPagesOutsideRamAreIgnored) {
  EXPECT_EQ(write(0x4b56'4d01, 0xffff'ffff'ffff'ffe1), Raised{});
  EXPECT_EQ(write(0x4b56'4d00, ~0ull), Raised{});
  EXPECT_EQ(write(0x4b56'4d01, (8_MiB - 8) | 1), Raised{});
  EXPECT_EQ(write(0x4b56'4d04, 0xffff'ffff'ffff'fffd), Raised{});
  EXPECT_EQ(write(0x4b56'4d04, 3), gp(0));
  EXPECT_EQ(write(0x4b56'4d05, 2), gp(0));
  EXPECT_EQ(write(0x4b56'4d05, 1), Raised{});
}

TEST_F(Msr, stealTimeIsKeptForAnEngineThatTellsIt) {
  EXPECT_EQ(write(0x4b56'4d03, 0x1'0041), Raised{});
  EXPECT_EQ(s.pvSteal, 0x1'0041u);
  EXPECT_EQ(write(0x4b56'4d03, 0x1'0021), gp(0));
  EXPECT_EQ(s.pvSteal, 0x1'0041u);
}

TEST(ClockScale, isExactToAPartInABillion) {
  for (std::uint64_t hz : {1'000'000ull, 999'999'999ull, 1'000'000'000ull, 2'595'124'000ull, 4'294'967'296ull,
                           5'000'000'000ull, 9'999'999'999ull}) {
    std::uint64_t nanoseconds = scaleTicks(clockScale(hz), hz * 1000);
    EXPECT_NEAR(static_cast<double>(nanoseconds), 1e12, 1000.0) << hz;
  }
}

TEST_F(Msr, hypercalls) {
  auto call = [&](std::uint64_t number) {
    s.gpr[rax] = number;
    s.gpr[rbx] = 77;
    hypercall(*m);
    return static_cast<std::int64_t>(s.gpr[rax]);
  };
  EXPECT_EQ(call(10), 77);
  EXPECT_EQ(call(5), 77);
  EXPECT_EQ(m.environment.hypercalls, (std::vector<std::uint64_t>{10, 5}));
  EXPECT_EQ(call(999), -1000);
  EXPECT_EQ(call(1), 0);
  m.setCpl(3);
  EXPECT_EQ(call(10), -1);
  m.setCpl(0);
  s.segment[cs].attributes = 0xc09b;
  EXPECT_EQ(call(999), 0xffff'fc18) << "32 bits outside 64-bit mode";
}

}  // namespace
}  // namespace lodge::x86
