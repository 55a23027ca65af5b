// SPDX-License-Identifier: Apache-2.0
// A hostile guest at the chips of the pc boards: host bridges with PAM and TSEG, ISA bridges with their interrupt
// routes, power management, and the keyboard controller with a keyboard and a mouse that are used meanwhile.
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/bytes.h"
#include "base/fake_clock.h"
#include "base/log.h"
#include "device/acpi_pm.h"
#include "device/fakes.h"
#include "device/i440fx.h"
#include "device/i8042.h"
#include "device/ich9_lpc.h"
#include "device/piix4_pm.h"
#include "device/q35_mch.h"

namespace {
using namespace lodge;
constexpr std::uint64_t kRom = 0x21000;

GuestMemory& memory() {
  static std::unique_ptr<GuestMemory> made = std::move(*GuestMemory::create(24_MiB, {.rom = kRom, .video = 0}));
  return *made;
}

struct Board {
  explicit Board(bool smm)
      : mch(memory(), kRom, smm, [this](std::optional<std::uint64_t> base, unsigned) {
          if (base && (*base & (1_MiB - 1)) != 0) __builtin_trap();
          express = base;
        }) {
    pm.enableSmi(smm);
    for (auto& line : lines) line = &irq;
    keyboard.attachDevices(irq);
    if (!ports.add(0x600, AcpiPm::kLength, pm, "ACPI")) __builtin_trap();
  }
  void reset() {
    for (PciFunction* function : functions) function->reset();
    pm.reset();
    keyboard.reset();
  }

  FakeClock clock;
  FakeLine irq;
  IoBus ports{"port I/O"};
  Piix3::IsaLines lines{&irq, &irq, &irq, &irq, &irq, &irq, &irq, &irq, &irq, &irq, &irq, &irq, &irq, &irq, &irq, &irq};
  AcpiPm pm{clock, irq, [] {}};
  I440Fx i440fx{memory(), kRom};
  std::optional<std::uint64_t> express;
  Q35Mch mch;
  Piix3 piix3{lines};
  Ich9Lpc lpc{lines, pm};
  Piix4Pm power{ports, pm, 0x600};
  I8042 keyboard{irq, [] {}};
  Ich9Apm apm{[] {}};
  PciFunction* functions[5] = {&i440fx, &mch, &piix3, &lpc, &power};
};

void checkMemoryMap() {
  for (std::uint64_t at = 0xa0000; at < 0x100000; at += 0x1000) {
    std::uint64_t read = memory().offsetOf(Gpa{at}), written = memory().writableOffsetOf(Gpa{at});
    if (read != GuestMemory::kNoOffset && read >= memory().backingSize()) __builtin_trap();
    if (written != GuestMemory::kNoOffset && written != read) __builtin_trap();
  }
}

/// One step of eight bytes: what, where, value.
void step(Board& board, const std::uint8_t* data) {
  auto value = loadLe<std::uint32_t>(data + 4);
  unsigned size = 1u << (data[1] & 1), where = data[2];
  PciFunction& function = *board.functions[data[3] % 5];
  switch (data[0] % 12) {
    case 0:
    case 1:
    case 2:
      return function.writeConfig(where & ~(size - 1), size, value);
    case 3:
      function.readConfig(where & 0xfc, 4);
      return;
    case 4:
      return board.i440fx.shadow().write(value % PamBridge::kShadowBytes & ~7ull, 8, value);
    case 5:
      return board.piix3.pirq(where & 3).set((value & 1) != 0);
    case 6:
      return board.lpc.pirq(where & 3).set((value & 1) != 0);
    case 7:
      if (board.pm.read(0x30, 4) > 0x21) __builtin_trap();
      return board.ports.write(0x600 + where % AcpiPm::kLength, size, value & 0xffff & ~0x2000u);
    case 8:
      return where & 1 ? board.keyboard.command().write(0, 1, value & 0xff)
                       : board.keyboard.data().write(0, 1, value & 0xff);
    case 9:
      board.keyboard.data().read(0, 1);
      board.keyboard.command().read(0, 1);
      return;
    case 10:
      board.keyboard.key(value & 0xffff, (where & 1) != 0);
      return board.keyboard.mouse(static_cast<std::int16_t>(value), static_cast<std::int16_t>(value >> 16),
                                  static_cast<std::int8_t>(where), data[3]);
    default:
      board.apm.write(where & 1, 1, value & 0xff);
      if (data[3] >= 0xf0) board.reset();
  }
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  setLogLevel(LogLevel::error);
  if (size == 0) return 0;
  Board board((*data & 1) != 0);
  for (++data, --size; size >= 8; data += 8, size -= 8) step(board, data);
  checkMemoryMap();
  board.reset();
  return 0;
}
