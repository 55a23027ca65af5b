// SPDX-License-Identifier: Apache-2.0
// The chips wired as on the board: interrupts all the way from a device to a CPU and its EOI back, also from many
// threads.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "base/fake_clock.h"
#include "device/apic_bus.h"
#include "device/fakes.h"
#include "device/interrupt_router.h"
#include "device/local_apic.h"
#include "device/pit.h"
#include "device/uart.h"

namespace lodge {
namespace {

class ChipsetTest : public testing::Test {
 protected:
  ChipsetTest() {
    bus.attach(ioApic);
    bus.setExtIntSource(&pic);
  }
  void setEntry(unsigned pin, std::uint32_t low, std::uint32_t destination) {
    ioApic.write(0, 4, 0x11 + 2 * pin);
    ioApic.write(0x10, 4, destination << 24);
    ioApic.write(0, 4, 0x10 + 2 * pin);
    ioApic.write(0x10, 4, low);
  }
  static LocalApic::Setup setup(unsigned id, ApicBus& bus, ApicCpu& cpu, FakeClock& clock) {
    return {.id = id, .bootstrap = id == 0, .bus = bus, .cpu = cpu, .timers = clock, .timeOfTsc = [](std::uint64_t) {
              return 0;
            }};
  }

  FakeClock clock;
  ApicBus bus;
  FakeApicCpu cpu0, cpu1;
  LocalApic apic0{setup(0, bus, cpu0, clock)}, apic1{setup(1, bus, cpu1, clock)};
  IoApic ioApic{bus, 0};
  Pic pic{bus.lint(0)};
  InterruptRouter router{pic, ioApic};
};

TEST_F(ChipsetTest, PitTicksThroughThe8259InVirtualWireMode) {
  Pit pit(clock, router.isa(0));
  for (auto [port, base] : {std::pair{&pic.master(), 0x30}, std::pair{&pic.slave(), 0x38}}) {
    port->write(0, 1, 0x11);
    for (unsigned icw : {static_cast<unsigned>(base), 4u, 1u}) port->write(1, 1, icw);
  }
  pic.master().write(1, 1, 0xfe);
  pit.counters().write(3, 1, 0x34);
  pit.counters().write(0, 1, 0x9c);
  pit.counters().write(0, 1, 0x2e);
  while (apic0.pending()) {
    apic0.acknowledge();
    pic.master().write(0, 1, 0x20);
  }
  for (int n = 0; n < 3; ++n) {
    clock.advance(10'001'000);
    ASSERT_TRUE(apic0.pending());
    EXPECT_FALSE(apic1.pending()) << "LINT0 of the others is masked";
    EXPECT_EQ(apic0.acknowledge(), 0x30);
    EXPECT_FALSE(apic0.pending());
    pic.master().write(0, 1, 0x20);
  }
}

TEST_F(ChipsetTest, SerialPortThroughTheIoApic) {
  Uart uart(router.isa(4), clock, [](const char*, std::size_t) {});
  apic1.write(0xf0, 4, 0x1ff);
  setEntry(4, 0x44, 1);
  uart.write(4, 1, 8);
  uart.write(1, 1, 2);
  EXPECT_EQ(apic1.acknowledge(), 0x44);
  apic1.endOfInterrupt();
  EXPECT_FALSE(apic1.pending()) << "edge-triggered: asked once";
  uart.read(2, 1);
  uart.write(0, 1, 'x');
  EXPECT_EQ(apic1.acknowledge(), 0x44);
}

TEST_F(ChipsetTest, LevelInterruptComesAgainUntilItsCauseIsGone) {
  apic0.write(0xf0, 4, 0x1ff);
  setEntry(16, 0x8051, 0);
  router.gsi(16).set(true);
  for (int n = 0; n < 3; ++n) {
    EXPECT_EQ(apic0.acknowledge(), 0x51);
    EXPECT_FALSE(apic0.pending());
    apic0.endOfInterrupt();
  }
  router.gsi(16).set(false);
  EXPECT_EQ(apic0.acknowledge(), 0x51) << "was accepted while the line was high";
  apic0.endOfInterrupt();
  EXPECT_FALSE(apic0.pending());
}

TEST_F(ChipsetTest, LevelInterruptWaitsForACpuThatTakesIt) {
  setEntry(16, 0x8051, 0);
  router.gsi(16).set(true);
  apic0.write(0xf0, 4, 0x1ff);
  EXPECT_FALSE(apic0.pending());
  setEntry(16, 0x8051, 0);
  EXPECT_TRUE(apic0.pending());
}

TEST_F(ChipsetTest, ThreadsSeeEveryLevelInterrupt) {
  // A device raises a shared level line and waits until the handler on some CPU lowered it; CPUs send each other IPIs.
  constexpr int kRounds = 3000;
  apic0.write(0xf0, 4, 0x3ff);
  apic1.write(0xf0, 4, 0x3ff);
  for (LocalApic* apic : {&apic0, &apic1}) apic->write(0xd0, 4, 1u << (24 + apic->id()));
  setEntry(16, 0x8951, 3);  // logical, lowest priority, level
  SharedInterrupt shared(router.gsi(16));
  std::atomic<bool> asking{false}, stop{false};
  std::atomic<int> handled{0}, ipis{0};
  auto cpu = [&](LocalApic& apic, std::uint32_t other) {
    while (!stop) {
      int vector = apic.pending() ? apic.acknowledge() : -1;
      if (vector == 0x51 && asking.exchange(false)) {
        shared.input(0).set(false);
        ++handled;
        apic.write(0x310, 4, other << 24);
        apic.write(0x300, 4, 0x61);
      }
      if (vector == 0x61) ++ipis;
      if (vector >= 0) {
        apic.endOfInterrupt();
      } else {
        std::this_thread::yield();
      }
    }
  };
  std::thread first([&] { cpu(apic0, 1); }), second([&] { cpu(apic1, 0); });
  auto start = std::chrono::steady_clock::now();
  for (int round = 0; round < kRounds; ++round) {
    asking = true;
    shared.input(0).set(true);
    while (asking && std::chrono::steady_clock::now() - start < std::chrono::seconds(60)) std::this_thread::yield();
    if (asking) break;
    while (handled <= round) std::this_thread::yield();
  }
  stop = true;
  first.join();
  second.join();
  EXPECT_EQ(handled, kRounds);
  EXPECT_GT(ipis, 0);
}

}  // namespace
}  // namespace lodge
