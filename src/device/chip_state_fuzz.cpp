// SPDX-License-Identifier: Apache-2.0
// The chips of a PC and a PCI function from a saved machine that anybody made: whatever they are loaded with, their
// registers and timers then do no harm.
#include <cstddef>
#include <cstdint>

#include "base/fake_clock.h"
#include "base/log.h"
#include "device/apic_bus.h"
#include "device/chip_state.h"
#include "device/fakes.h"
#include "device/fw_cfg.h"
#include "device/interrupt_router.h"
#include "device/pci.h"

namespace {
using namespace lodge;

struct Function : PciFunction, IoDevice {
  Function()
      : PciFunction(
            {.vendor = 0x1234, .device = 1, .revision = 0, .classCode = 0, .subsystemVendor = 0, .subsystem = 0},
            "fuzz") {
    addBar(0, BarKind::memory64, 4096, *this);
    addMsix(2, 70);
    useIntx();
  }
  std::uint64_t read(std::uint64_t, unsigned) override { return 0; }
  void write(std::uint64_t, unsigned, std::uint64_t) override {}
};

GuestMemory& ram() {
  static std::unique_ptr<GuestMemory> made = std::move(*GuestMemory::create(2_MiB));
  return *made;
}

struct Board {
  FakeClock clock;
  IoBus ports{"ports"}, memory{"memory"};
  ApicBus bus;
  FakeApicCpu cpu;
  LocalApic apic{LocalApic::Setup{
      .id = 0, .bootstrap = true, .bus = bus, .cpu = cpu, .timers = clock, .timeOfTsc = [](std::uint64_t tsc) {
        return static_cast<Nanoseconds>(tsc >> 1);
      }}};
  IoApic ioApic{bus, 0};
  Pic pic{bus.lint(0)};
  InterruptRouter router{pic, ioApic};
  SwitchedInterrupt irq0{router.isa(0)}, irq8{router.isa(8)};
  Pit pit{clock, irq0.first()};
  Rtc rtc{{.timers = clock,
           .irq8 = irq8.first(),
           .utc = [this] { return 1'700'000'000 * kNanosecondsPerSecond + clock.now(); },
           .lowMemory = 1_GiB,
           .highMemory = 0,
           .cpus = 1}};
  Hpet hpet{{.timers = clock,
             .irq0 = irq0.second(),
             .irq8 = irq8.second(),
             .routes = {&router.gsi(20), &router.gsi(21), &router.gsi(22), &router.gsi(23)},
             .onLegacyReplacement = [this](bool on) {
               irq0.select(on);
               irq8.select(on);
             }}};
  Uart uart{router.isa(4), clock, [](const char*, std::size_t) {}};
  AcpiPm acpi{clock, router.isa(9), [] {}};
  I8042 keyboard{router.isa(1), [] {}};
  FwCfg fwCfg{ram()};
  std::unique_ptr<PciHost> host;
  Function function;

  Board() {
    bus.attach(ioApic);
    bus.setExtIntSource(&pic);
    InterruptLine* line = &router.gsi(16);
    auto made = PciHost::create(
        {ports, memory, bus, {line, line, line, line}, 0xb000'0000, 0xc000'0000, 0x1000'0000, 1ull << 40, 1 << 30});
    host = std::move(*made);
    if (!host->plug(3, function)) __builtin_trap();
  }

  void load(unsigned which, state::Archive& a) {
    switch (which % 12) {
      case 0:
        return transferChip(a, pic);
      case 1:
        return transferChip(a, ioApic);
      case 2:
        return transferChip(a, pit);
      case 3:
        return transferChip(a, rtc);
      case 4:
        return transferChip(a, hpet);
      case 5:
        return transferChip(a, uart);
      case 6:
        return transferChip(a, acpi);
      case 7:
        return transferChip(a, keyboard);
      case 8:
        return transferChip(a, apic);
      case 9:
        return fwCfg.transfer(a);
      case 10:
        return host->transfer(a);
      default:
        return function.transfer(a);
    }
  }

  void use() {
    for (int n = 0; n < 4; ++n) {
      clock.advance(1'000'000);
      for (int taken = 0; taken < 4 && apic.pending(); ++taken) {
        if (apic.acknowledge() > 255) __builtin_trap();
        apic.endOfInterrupt();
      }
      for (unsigned at = 0; at < 4; ++at) {
        pit.counters().read(at, 1);
        uart.read(at, 1);
        fwCfg.read(at, 1);
      }
      rtc.ports().read(1, 1);
      hpet.read(0xf0, 8);
      acpi.read(AcpiPm::kTimer, 4);
      keyboard.data().read(0, 1);
      pic.acknowledgeInterrupt();
      function.signalMsix(static_cast<unsigned>(n));
      function.setIntx(n % 2 == 0);
    }
  }
};
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  setLogLevel(LogLevel::error);
  Board board;
  while (size > 2) {
    std::size_t length = std::min<std::size_t>(size - 2, data[1] * 8u);
    state::Archive archive(std::as_bytes(std::span(data + 2, length)), 1);
    board.load(data[0], archive);
    data += 2 + length;
    size -= 2 + length;
    board.use();
  }
  return 0;
}
