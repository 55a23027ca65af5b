// SPDX-License-Identifier: Apache-2.0
// A hostile guest at the whole chipset: random reads and writes of every register of every device, by port, memory and
// MSR, while time passes, interrupts are taken and lines move.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/bytes.h"
#include "base/fake_clock.h"
#include "base/log.h"
#include "device/acpi_pm.h"
#include "device/apic_bus.h"
#include "device/debug_exit.h"
#include "device/fakes.h"
#include "device/hpet.h"
#include "device/i8042.h"
#include "device/interrupt_router.h"
#include "device/local_apic.h"
#include "device/pit.h"
#include "device/pvpanic.h"
#include "device/reset_control.h"
#include "device/rtc.h"
#include "device/test_device.h"
#include "device/uart.h"

namespace {
using namespace lodge;

constexpr unsigned kCpus = 3;

GuestMemory& ram() {
  static std::unique_ptr<GuestMemory> made = std::move(*GuestMemory::create(2_MiB));
  return *made;
}

struct Board {
  Board() {
    bus.attach(ioApic);
    bus.setExtIntSource(&pic);
    for (unsigned id = 0; id < kCpus; ++id) {
      apics.push_back(std::make_unique<LocalApic>(
          LocalApic::Setup{.id = id,
                           .bootstrap = id == 0,
                           .bus = bus,
                           .cpu = cpus[id],
                           .timers = clock,
                           .timeOfTsc = [](std::uint64_t tsc) { return static_cast<Nanoseconds>(tsc >> 1); }}));
    }
    auto port = [this](std::uint64_t base, std::uint64_t length, IoDevice& device) {
      if (!ports.add(base, length, device, "device")) __builtin_trap();
    };
    keyboard.attachA20(a20);
    port(0x20, 2, pic.master());
    port(0xa0, 2, pic.slave());
    port(0x4d0, 2, pic.elcr());
    port(0x40, 4, pit.counters());
    port(0x61, 1, pit.systemControl());
    port(0x60, 1, keyboard.data());
    port(0x64, 1, keyboard.command());
    port(0x70, 2, rtc.ports());
    port(0x92, 1, portA);
    port(0xf4, 4, debugExit);
    port(0x3f8, 8, uart);
    port(0x505, 1, panic);
    port(0x600, AcpiPm::kLength, pm);
    port(0xcf9, 1, resetControl);
    if (!memory.add(0xfec0'0000, IoApic::kSize, ioApic, "I/O APIC")) __builtin_trap();
    if (!memory.add(0xfed0'0000, Hpet::kLength, hpet, "HPET")) __builtin_trap();
    std::vector<InterruptLine*> lines;
    for (unsigned pin = 0; pin < IoApic::kPins; ++pin) lines.push_back(&ioApic.line(pin));
    testDevice = std::make_unique<TestDevice>(lines);
    if (!testDevice->plug(ports, memory)) __builtin_trap();
  }

  void take(unsigned id) {
    LocalApic& apic = *apics[id];
    for (int n = 0; n < 4 && apic.pending(); ++n) {
      if (apic.acknowledge() > 255) __builtin_trap();
    }
  }
  void reset() {
    for (auto& apic : apics) apic->powerOn();
    ioApic.reset();
    pic.reset();
    pit.reset();
    rtc.reset();
    hpet.reset();
    uart.reset();
    pm.reset();
    keyboard.reset();
    resetControl.reset();
  }
  /// Every device's state taken and put back.
  void saveAndRestore() {
    for (auto& apic : apics) apic->restore(apic->save());
    ioApic.restore(ioApic.save());
    pic.restore(pic.save());
    pit.restore(pit.save());
    rtc.restore(rtc.save());
    hpet.restore(hpet.save());
    uart.restore(uart.save());
    pm.restore(pm.save());
    keyboard.restore(keyboard.save());
  }

  FakeClock clock;
  IoBus ports{"port I/O"}, memory{"memory"};
  ApicBus bus;
  FakeApicCpu cpus[kCpus];
  std::vector<std::unique_ptr<LocalApic>> apics;
  IoApic ioApic{bus, 0};
  Pic pic{bus.lint(0)};
  InterruptRouter router{pic, ioApic};
  SharedInterrupt sci{router.isa(9)};
  SwitchedInterrupt irq0{router.isa(0)}, irq8{router.isa(8)};
  Pit pit{clock, irq0.first()};
  Rtc rtc{{.timers = clock,
           .irq8 = irq8.first(),
           .utc = [this] { return 1'700'000'000 * kNanosecondsPerSecond + clock.now(); },
           .lowMemory = 1_GiB,
           .highMemory = 0,
           .cpus = kCpus}};
  Hpet hpet{{.timers = clock,
             .irq0 = irq0.second(),
             .irq8 = irq8.second(),
             .routes = {&router.gsi(20), &router.gsi(21), &router.gsi(22), &router.gsi(23)},
             .onLegacyReplacement = [this](bool on) {
               irq0.select(on);
               irq8.select(on);
             }}};
  Uart uart{router.isa(4), clock, [](const char*, std::size_t) {}};
  AcpiPm pm{clock, sci.input(0), [] {}};
  I8042 keyboard{router.isa(1), [] {}};
  ResetControl resetControl{[] {}};
  A20Gate a20{ram()};
  SystemControlPortA portA{a20, [] {}};
  DebugExit debugExit{[](std::uint32_t) {}};
  PvPanic panic{[](std::uint8_t) {}};
  std::unique_ptr<TestDevice> testDevice;
};

constexpr std::uint16_t kPorts[] = {0x20,  0x21,  0xa0,  0xa1,  0x4d0, 0x4d1, 0x40,  0x41,  0x42,  0x43,
                                    0x60,  0x61,  0x64,  0x70,  0x71,  0x92,  0xe0,  0xe2,  0xe4,  0xe8,
                                    0xf4,  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x505,
                                    0x600, 0x602, 0x604, 0x608, 0x620, 0x622, 0xcf9};

/// One step of ten bytes: what, where, value.
void step(Board& board, const std::uint8_t* data) {
  unsigned bytes = 1u << (data[1] >> 6);
  unsigned portBytes = bytes > 4 ? 4 : bytes;
  unsigned where = data[1] & 0x3f;
  auto value = loadLe<std::uint64_t>(data + 2);
  LocalApic& apic = *board.apics[where % kCpus];
  std::uint64_t port = kPorts[where % std::size(kPorts)];
  std::uint64_t read = 0;
  switch (data[0] % 16) {
    case 0:
    case 1:
    case 2:
      return board.ports.write(port, portBytes, value);
    case 3:
      board.ports.read(port, portBytes);
      return;
    case 4:
      return board.ports.write((value >> 32) & 0xffff, portBytes, value & 0xffff'ffff);
    case 5:
      return board.ports.write(0x2000 + where % 24, 1, value & 1);
    case 6:
      return board.memory.write(0xfec0'0000 + (where & 1) * 0x10, 4, value & 0x3f);
    case 7:
      return board.memory.write(0xfec0'0000 + (value >> 60 == 0 ? value & 0x7f : 0x10), bytes, value >> 8);
    case 8:
      return apic.write((value & 0x3f) << 4, 4, value >> 16);
    case 9:
      apic.read((value >> 8) & 0xfff & ~(bytes - 1u), bytes);
      return;
    case 10:
      apic.writeMsr(0x800 + (value & 0x3f), value >> 8);
      return;
    case 11:
      apic.writeMsr(where & 1 ? 0x1b : 0x6e0, where & 2 ? value : 0xfee0'0000 | (value & 0xd00));
      apic.readMsr(0x800 + (value & 0xff), read);
      return;
    case 12:
      board.clock.advance(static_cast<Nanoseconds>(value % 5'000'000));
      return;
    case 13:
      board.take(where % kCpus);
      apic.endOfInterrupt();
      apic.setTaskPriority(value & 15);
      return;
    case 14:
      board.bus.sendMsi(0xfee0'0000 | (value & 0xf'fffc), static_cast<std::uint32_t>(value >> 32));
      return;
    default:
      break;
  }
  switch (where % 8) {
    case 0:
      return board.reset();
    case 1:
      return board.saveAndRestore();
    case 2:
      return apic.reset();
    case 3:
      return board.pm.pressPowerButton();
    case 4:
      board.bus.sendParavirtIpi(value, ~value, static_cast<std::uint32_t>(value), value >> 32, 64);
      return;
    case 5:
      return board.router.isa((value & 15) == 2 ? 3 : value & 15).set((value & 16) != 0);
    case 6: {
      // The registers that matter, the counter at either end.
      constexpr std::uint64_t kRegisters[] = {0x10, 0x20, 0xf0, 0x100, 0x108, 0x120, 0x128, 0x140, 0x148, 0x3f8};
      std::uint64_t at = 0xfed0'0000 + kRegisters[(value >> 56) % std::size(kRegisters)];
      board.memory.read(at, bytes);
      return board.memory.write(at, bytes < 4 ? 8 : bytes,
                                (value & 1) != 0 ? value >> 1 & 0xffff'ffff'ffff : ~value & 0xffff);
    }
    default: {
      const char text[] = "hostile input";
      board.uart.input(text, value % sizeof text);
    }
  }
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  setLogLevel(LogLevel::error);
  Board board;
  for (; size >= 10; data += 10, size -= 10) step(board, data);
  return 0;
}
