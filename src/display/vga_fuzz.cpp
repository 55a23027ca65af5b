// SPDX-License-Identifier: Apache-2.0
// A hostile guest at the display: any register, any store to video memory, drawn in between.
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "display/vga.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lodge;
  static std::unique_ptr<GuestMemory> memory =
      std::move(*GuestMemory::create(2 << 20, {.rom = 0, .video = Vga::kMemoryBytes}));
  IoBus ports("port I/O"), mmio("memory");
  Vga vga(*memory, 1);
  if (!vga.plugPorts(ports, mmio)) __builtin_trap();
  Screen screen;
  for (; size >= 6; data += 6, size -= 6) {
    auto value = loadLe<std::uint32_t>(data + 2);
    unsigned bytes = 1u << (data[1] & 1);
    switch (data[0] & 7) {
      case 0:
      case 1:
        ports.write(0x3b0 + data[1] % 0x30, bytes, value);
        break;
      case 2:
        ports.read(0x3b0 + data[1] % 0x30, bytes);
        break;
      case 3:
        ports.write(0x1ce, 2, value & 15);
        ports.write(0x1cf, 2, value >> 16);
        break;
      case 4:
        mmio.write(0xa0000 + value % 0x1ffff, bytes, value >> 17);
        break;
      case 5:
        mmio.read(0xa0000 + value % 0x1ffff, bytes);
        break;
      case 6:
        ports.write(0x3c4 + (data[1] & 1) * 10, 2, value);
        ports.write(0x3d4, 2, value >> 16);
        break;
      default:
        vga.draw(screen);
        if (screen.pixels.size() != std::size_t{screen.width} * screen.height) __builtin_trap();
    }
  }
  vga.draw(screen);
  return 0;
}
