// SPDX-License-Identifier: Apache-2.0
#include "machine/cpu_state.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>

#include "base/bytes.h"
#include "engine/engine.h"
#include "machine/saved_machine.h"

namespace lodge {
namespace {

using state::Archive;
using x86::CpuState;

/// CPUs that never run.
struct NoWorld : x86::CpuEnvironment {
  std::uint64_t readPort(std::uint16_t, unsigned) override { return 0; }
  void writePort(std::uint16_t, unsigned, std::uint64_t) override {}
  std::uint64_t readMmio(Gpa, unsigned) override { return 0; }
  void writeMmio(Gpa, unsigned, std::uint64_t) override {}
  x86::LocalApic& apic() override { std::abort(); }
  std::int64_t hypercall(std::uint64_t, const std::uint64_t (&)[4]) override { return 0; }
  Nanoseconds guestTime() override { return 0; }
  Nanoseconds wallClockBase() override { return 0; }
};

struct CpuStateTest : testing::Test {
  std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  std::unique_ptr<x86::CpuModel> model = std::move(*x86::makeCpuModel("host", 2));
  EngineSetup setup{*memory, *model, 2};
  std::unique_ptr<Engine> engine = std::move(*makeInterpretEngine(setup));
  NoWorld world;
  std::unique_ptr<Vcpu> from = std::move(*engine->createVcpu(0, world));
  std::unique_ptr<Vcpu> to = std::move(*engine->createVcpu(1, world));

  std::vector<std::byte> saved(std::uint64_t tsc) {
    Archive out;
    transferCpu(out, from->cpu(), tsc);
    EXPECT_TRUE(out.finish());
    return out.saved();
  }
  Status loaded(std::span<const std::byte> bytes, std::uint64_t tsc) {
    Archive in(bytes, 1);
    transferCpu(in, to->cpu(), tsc);
    return in.finish();
  }
  void enterLongMode() {
    CpuState& s = from->cpu().state;
    s.cr0 = x86::cr0::pe | x86::cr0::pg | x86::cr0::et;
    s.cr4 = x86::cr4::pae;
    s.efer = x86::efer::lme | x86::efer::lma;
    s.segment[x86::cs] = {0, 0xffffffff, 8, 0xa09b};
    s.rip = 0xffff'8000'0000'1234;
    for (unsigned i = 0; i < 16; ++i) s.gpr[i] = std::uint64_t{0x1111'1111'1111'1111} * i;
    s.pvSystemTime = 0x5001;
    for (unsigned i = 0; i < 256; ++i) s.xsave[160 + i] = std::byte(i);  // XMM registers
    s.xsave[512] = std::byte{3};
  }
};

TEST_F(CpuStateTest, GoesOnWithItsClockOnAHostOfAnotherRate) {
  enterLongMode();
  x86::Cpu &one = from->cpu(), &other = to->cpu();
  one.state.tscOffset = 1000;
  other.tscScale = x86::TscScale::between(1, 2);
  constexpr std::uint64_t kThen = std::uint64_t{1} << 50, kNow = (std::uint64_t{1} << 40) + 12345;
  Status done = loaded(saved(kThen), kNow);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(other.tscAt(kNow), kThen + 1000);
  EXPECT_EQ(other.tscAt(kNow + 1001), kThen + 1000 + 501) << "12345 is odd";
}

TEST_F(CpuStateTest, ComesBackWithItsClockAndEvents) {
  enterLongMode();
  CpuState& s = from->cpu().state;
  s.tscOffset = 1000;
  from->cpu().events = x86::event::nmi | x86::event::stop;
  from->cpu().deferredEvents = x86::event::sipi;
  from->cpu().sipiVector = 0x9a;
  Status done = loaded(saved(5000), 800);
  ASSERT_TRUE(done) << done.error().message();
  CpuState& t = to->cpu().state;
  EXPECT_EQ(t.tscOffset + 800, 6000u);
  t.tscOffset = s.tscOffset;
  EXPECT_EQ(std::memcmp(t.gpr, s.gpr, sizeof s.gpr), 0);
  EXPECT_EQ(t.rip, s.rip);
  EXPECT_EQ(t.efer, s.efer);
  EXPECT_EQ(t.pvSystemTime, s.pvSystemTime);
  EXPECT_EQ(std::memcmp(t.xsave, s.xsave, 832), 0);
  std::uint32_t events = to->cpu().events;
  EXPECT_EQ(events & (x86::event::nmi | x86::event::sipi | x86::event::stop), x86::event::nmi | x86::event::sipi);
  EXPECT_EQ(to->cpu().sipiVector, 0x9a);
  to->cpu().events = 0;
}

TEST_F(CpuStateTest, ImpossibleStatesAreRefused) {
  auto refuse = [&](const char* what, auto change) {
    from = std::move(*engine->createVcpu(0, world));
    enterLongMode();
    change(from->cpu().state);
    auto bytes = saved(0);
    CpuState before = to->cpu().state;
    EXPECT_FALSE(loaded(bytes, 0)) << what;
    EXPECT_EQ(std::memcmp(&to->cpu().state, &before, sizeof before), 0) << what;
  };
  refuse("long mode without PAE", [](CpuState& s) { s.cr4 = 0; });
  refuse("LMA without LME", [](CpuState& s) { s.efer = x86::efer::lma; });
  refuse("paging without protection", [](CpuState& s) { s.cr0 = x86::cr0::pg; });
  refuse("an unknown bit of CR4", [](CpuState& s) { s.cr4 |= 1ull << 40; });
  refuse("an address that is not canonical", [](CpuState& s) { s.segment[x86::fs].base = 1ull << 50; });
  refuse("CR3 beyond memory", [](CpuState& s) { s.cr3 = 1ull << 60; });
  refuse("a privilege level of 4", [](CpuState& s) { s.cpl = 4; });
  refuse("no activity", [](CpuState& s) { s.activity = static_cast<x86::Activity>(9); });
  refuse("unknown vector state", [](CpuState& s) { s.xsave[519] = std::byte{0x80}; });
  refuse("a compacted area", [](CpuState& s) { s.xsave[527] = std::byte{0x80}; });
  refuse("reserved bits of MXCSR", [](CpuState& s) { s.xsave[26] = std::byte{1}; });
  refuse("XCR0 without x87", [](CpuState& s) { s.xcr0 = 6; });
}

TEST_F(CpuStateTest, TheModelMustBeTheSame) {
  auto other = std::move(*x86::makeCpuModel("x86-64-v2", 2));
  state::Snapshot out;
  transferModel(out, *other);
  auto bytes = *out.bytes();
  auto in = state::Snapshot::parse(bytes);
  transferModel(*in, *model);
  EXPECT_FALSE(in->finish());
  auto same = state::Snapshot::parse(bytes);
  auto again = std::move(*x86::makeCpuModel("x86-64-v2", 2));
  transferModel(*same, *again);
  EXPECT_TRUE(same->finish());
}

/// A machine of one CPU whose counter has a rate, on a host whose counter has another.
struct OneCpu {
  std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  std::unique_ptr<x86::CpuModel> model = std::move(*x86::makeCpuModel("host", 1));
  NoWorld world;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Vcpu> vcpu;

  OneCpu(std::uint64_t guestHz, std::uint64_t hostHz) {
    model->tscHz = guestHz;
    model->hostTscHz = hostHz;
    EngineSetup setup{*memory, *model, 1};
    engine = std::move(*makeInterpretEngine(setup));
    vcpu = std::move(*engine->createVcpu(0, world));
  }
  x86::Cpu& cpu() { return vcpu->cpu(); }
};

TEST(TscDeadline, IsAtTheSameTimeOnAHostWhoseCounterHasAnotherRate) {
  constexpr std::uint64_t kGuest = 2'400'000'000, kThen = std::uint64_t{1} << 50, kNow = 77'000'000;
  constexpr Nanoseconds kSecond = kNanosecondsPerSecond;
  auto isNear = [](Nanoseconds left, Nanoseconds right) { return std::abs(left - right) <= 2; };
  OneCpu there(kGuest, kGuest);
  there.cpu().state.tscOffset = std::uint64_t{0} - (kThen - 5'000'000);
  std::uint64_t deadline = there.cpu().tscAt(kThen) + 3 * kGuest;
  EXPECT_TRUE(isNear(timeOfTsc(there.cpu(), deadline, kThen, 5 * kSecond), 8 * kSecond));
  Archive out;
  transferCpu(out, there.cpu(), kThen);
  ASSERT_TRUE(out.finish());
  std::vector<std::byte> bytes = out.saved();
  for (std::uint64_t host :
       {std::uint64_t{3'600'000'000}, std::uint64_t{1'250'000'000}, std::uint64_t{2'400'200'000}}) {
    OneCpu here(kGuest, host);
    Archive in(bytes, 1);
    transferCpu(in, here.cpu(), kNow);
    ASSERT_TRUE(in.finish());
    // Rates that are nearly the same are not scaled: it then goes at the host's.
    Nanoseconds whole =
        host == 2'400'200'000 ? static_cast<Nanoseconds>(3 * kGuest * 1e9 / 2'400'200'000.0) : 3 * kSecond;
    EXPECT_TRUE(isNear(timeOfTsc(here.cpu(), deadline, kNow, kSecond), kSecond + whole)) << host;
    EXPECT_TRUE(isNear(timeOfTsc(here.cpu(), deadline, kNow + host, 2 * kSecond), kSecond + whole)) << "a second later";
    EXPECT_EQ(timeOfTsc(here.cpu(), deadline, kNow + 4 * host, 5 * kSecond), 5 * kSecond) << "past";
  }
}

TEST(TscDeadline, FarAwayIsNotPast) {
  OneCpu cpu(1'000'000, 4'000'000'000);
  cpu.cpu().state.tscOffset = 0;
  EXPECT_EQ(timeOfTsc(cpu.cpu(), ~std::uint64_t{0} >> 1, 0, 9), std::numeric_limits<Nanoseconds>::max() / 2);
  EXPECT_EQ(timeOfTsc(cpu.cpu(), ~std::uint64_t{0}, 0, 9), std::numeric_limits<Nanoseconds>::max() / 2);
}

}  // namespace
}  // namespace lodge
