// SPDX-License-Identifier: Apache-2.0
#include "device/chip_state.h"

#include <gtest/gtest.h>

#include <random>

#include "base/fake_clock.h"
#include "device/apic_bus.h"
#include "device/fakes.h"
#include "device/interrupt_router.h"
#include "device/pci.h"

namespace lodge {
namespace {

using state::Archive;

/// The chips of a board on a clock that a test moves.
struct Chips {
  explicit Chips(Nanoseconds start) { clock.advance(start); }

  FakeClock clock;
  ApicBus bus;
  FakeApicCpu cpu;
  LocalApic apic{LocalApic::Setup{
      .id = 0, .bootstrap = true, .bus = bus, .cpu = cpu, .timers = clock, .timeOfTsc = [](std::uint64_t tsc) {
        return static_cast<Nanoseconds>(tsc >> 1);
      }}};
  FakeLine line, out0, out8, com, keys;
  IoApic ioApic{bus, 0};
  Pic pic{line};
  Pit pit{clock, out0};
  Rtc rtc{{.timers = clock,
           .irq8 = out8,
           .utc = [this] { return 1'700'000'000 * kNanosecondsPerSecond + clock.now(); },
           .lowMemory = 1_GiB,
           .highMemory = 0,
           .cpus = 1}};
  Hpet hpet{{.timers = clock,
             .irq0 = out0,
             .irq8 = out8,
             .routes = {&line, &line, &line, &line},
             .onLegacyReplacement = [](bool) {}}};
  Uart uart{com, clock, [](const char*, std::size_t) {}};
  AcpiPm acpi{clock, line, [] {}};
  I8042 keyboard{keys, [] {}};

  template <class Each>
  void each(Each&& f) {
    f("pic", pic);
    f("io-apic", ioApic);
    f("pit", pit);
    f("rtc", rtc);
    f("hpet", hpet);
    f("uart", uart);
    f("acpi", acpi);
    f("i8042", keyboard);
    f("local-apic", apic);
  }
  /// What a guest might do to them.
  void disturb(std::mt19937& random) {
    auto byte = [&] { return static_cast<std::uint8_t>(random()); };
    for (int i = 0; i < 200; ++i) {
      pic.master().write(random() % 2, 1, byte());
      pic.slave().write(random() % 2, 1, byte());
      ioApic.write(0, 4, random() % 0x40);
      ioApic.write(0x10, 4, random() & 0xfff);
      pit.counters().write(random() % 4, 1, byte());
      rtc.ports().write(random() % 2, 1, byte());
      hpet.write(random() % 0x160 & ~7u, 8, random());
      uart.write(random() % 8, 1, byte());
      acpi.write(random() % 6, 1, byte() & 0xfe);
      apic.write((random() & 0x3f) << 4, 4, random());
      clock.advance(random() % 1'000'000);
    }
  }
};

template <class Chip>
std::vector<std::byte> saved(Chip& chip) {
  Archive out;
  transferChip(out, chip);
  EXPECT_TRUE(out.finish());
  return out.saved();
}

template <class Chip>
Status loaded(Chip& chip, std::span<const std::byte> bytes) {
  Archive in(bytes, 1);
  transferChip(in, chip);
  return in.finish();
}

TEST(ChipState, WhatWasTypedAheadIsKept) {
  Chips before(0), after(0), old(0);
  std::string typed(3000, '?');
  for (std::size_t n = 0; n < typed.size(); ++n) typed[n] = static_cast<char>('a' + n % 26);
  EXPECT_EQ(before.uart.input(typed.data(), typed.size()), typed.size());
  Archive out(2), first(1);
  transferChip(out, before.uart);
  transferChip(first, before.uart);
  Archive in(out.saved(), 2), ofFirst(first.saved(), 1);
  transferChip(in, after.uart);
  transferChip(ofFirst, old.uart);
  EXPECT_TRUE(in.finish());
  EXPECT_TRUE(ofFirst.finish()) << "as it was saved before";
  after.uart.write(4, 1, 2);  // RTS: the guest wants it
  std::string got;
  for (int n = 0; n < 4000; ++n) {
    while ((after.uart.read(5, 1) & 1) != 0) got.push_back(static_cast<char>(after.uart.read(0, 1)));
    after.clock.advance(100'000);
  }
  EXPECT_EQ(got, typed);
  Uart::State tooMuch;
  tooMuch.waiting.resize(Uart::kBacklogBytes + 1);
  Archive bad(2);
  transfer(bad, tooMuch);
  Archive refused(bad.saved(), 2);
  transferChip(refused, after.uart);
  EXPECT_NE(refused.finish().error().message().find("what waits at the serial port"), std::string::npos);
}

TEST(ChipState, IsTheSameInAFreshChip) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    Chips before(5 * kNanosecondsPerSecond);
    before.disturb(random);
    Chips after(before.clock.now());
    std::vector<std::vector<std::byte>> all;
    before.each([&](const char*, auto& chip) {
      chip.restore(chip.save());  // does what is due: a counter takes over a count whose time has come
      all.push_back(saved(chip));
    });
    std::size_t index = 0;
    after.each([&](const char* name, auto& chip) {
      Status done = loaded(chip, all[index]);
      EXPECT_TRUE(done) << name << ": " << (done ? "" : done.error().message());
      ++index;
    });
    index = 0;
    after.each(
        [&](const char* name, auto& chip) { EXPECT_EQ(saved(chip), all[index++]) << name << ", seed " << seed; });
  }
}

TEST(ChipState, NonsenseIsRefusedAndChangesNothing) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    Chips chips(0);
    chips.each([&](const char* name, auto& chip) {
      auto good = saved(chip), bad = good;
      for (int i = 0; i < 3; ++i) bad[random() % bad.size()] = static_cast<std::byte>(random());
      if (!loaded(chip, bad)) {
        EXPECT_EQ(saved(chip), good) << name;
      }
    });
    // What was taken must not do harm.
    chips.clock.advance(10'000'000);
  }
}

TEST(ChipState, AnHpetTimersRouteIsOneThatThereIs) {
  for (std::uint64_t route = 0; route < 32; ++route) {
    Chips chips(0);
    Hpet::State state;
    state.timers[1].config = route << 9;
    Archive out(1);
    transfer(out, state);
    Status done = loaded(chips.hpet, out.saved());
    bool has = route == 0 || (route >= Hpet::kFirstRoute && route < Hpet::kFirstRoute + Hpet::kRoutes);
    EXPECT_EQ(static_cast<bool>(done), has) << route;
    if (!done) EXPECT_NE(done.error().message().find("the HPET's timers"), std::string::npos);
  }
  Hpet::State far;
  far.config = 1;
  far.timers[0].match = std::uint64_t{1} << 62;
  Archive out(1);
  transfer(out, far);
  Chips chips(0);
  EXPECT_FALSE(loaded(chips.hpet, out.saved()));
}

TEST(ChipState, ALocalApicTimerThatRunsCounts) {
  for (auto mode : {LocalApicTimer::Mode::oneShot, LocalApicTimer::Mode::periodic, LocalApicTimer::Mode::tscDeadline}) {
    for (std::uint32_t count : {0u, 1u}) {
      Chips chips(0);
      LocalApic::State state = chips.apic.save();
      state.timer = {.divide = 0, .initialCount = count, .mode = mode, .tscDeadline = 0, .remaining = 1000};
      Archive out(1);
      transfer(out, state);
      Status done = loaded(chips.apic, out.saved());
      EXPECT_EQ(static_cast<bool>(done), count != 0 || mode == LocalApicTimer::Mode::tscDeadline);
      if (!done) EXPECT_NE(done.error().message().find("the local APIC timer's count"), std::string::npos);
      chips.clock.advance(1'000'000);
    }
  }
}

struct TestFunction : PciFunction, IoDevice {
  TestFunction()
      : PciFunction(
            {.vendor = 0x1234, .device = 1, .revision = 0, .classCode = 0, .subsystemVendor = 0, .subsystem = 0},
            "test") {
    addBar(0, BarKind::memory32, 4096, *this);
    addMsix(2, 3);
    useIntx();
  }
  std::uint64_t read(std::uint64_t, unsigned) override { return 0x77; }
  void write(std::uint64_t, unsigned, std::uint64_t) override {}
};

struct TestBus {
  IoBus ports{"ports"}, memory{"memory"};
  FakeMsiSink msi;
  FakeLine line;
  std::unique_ptr<PciHost> host = std::move(*PciHost::create(
      {ports, memory, msi, {&line, &line, &line, &line}, 0xb000'0000, 0xc000'0000, 0x1000'0000, 1ull << 40, 1 << 30}));
  TestFunction function;
  TestBus() { EXPECT_TRUE(host->plug(3, function)); }
};

TEST(PciState, BarsAndVectorsComeBack) {
  TestBus before, after;
  before.function.writeConfig(0x10, 4, 0xc800'0000);
  before.function.writeConfig(0x4, 2, 6);
  std::uint64_t table = before.function.readConfig(0x18, 4) & ~15u;
  before.memory.write(table + 16, 4, 0xfee0'1000);
  before.memory.write(table + 24, 4, 0x41);
  before.memory.write(table + 28, 4, 0);
  unsigned capability = before.function.readConfig(0x34, 1);
  before.function.writeConfig(capability + 2, 2, 0x8000);
  Archive out;
  before.function.transfer(out);
  ASSERT_TRUE(out.finish());
  Archive in(out.saved(), 1);
  after.function.transfer(in);
  ASSERT_TRUE(in.finish());
  EXPECT_EQ(after.memory.read(0xc800'0000, 1), 0x77u);
  after.function.signalMsix(1);
  ASSERT_EQ(after.msi.sent.size(), 1u);
  EXPECT_EQ(after.msi.sent[0], (std::pair<std::uint64_t, std::uint32_t>{0xfee0'1000, 0x41}));
}

TEST(PciState, TheInterruptPinComesBack) {
  TestBus before, after;
  before.function.setIntx(true);
  Archive out;
  before.function.transfer(out);
  Archive in(out.saved(), 1);
  after.function.transfer(in);
  EXPECT_TRUE(after.line.level);
  after.function.setIntx(false);
  EXPECT_FALSE(after.line.level);
}

}  // namespace
}  // namespace lodge
