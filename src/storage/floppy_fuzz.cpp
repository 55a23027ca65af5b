// SPDX-License-Identifier: Apache-2.0
// A hostile guest at the floppy controller and the DMA controllers: any port, any medium, requests that end late.
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "device/fakes.h"
#include "storage/floppy_controller.h"
#include "storage/test_disk.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lodge;
  constexpr std::uint16_t kPorts[] = {0x3f2, 0x3f4, 0x3f5, 0x3f5, 0x3f5, 0x3f7, 0x04, 0x05,
                                      0x08,  0x0a,  0x0b,  0x0c,  0x81,  0x3f0, 0xc4, 0xd4};
  static std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  static auto floppy1440 = std::make_shared<TestDisk>(1440 * 1024), floppy360 = std::make_shared<TestDisk>(360 * 1024);
  IoBus ports("port I/O");
  FakeLine irq;
  DmaController dma(*memory);
  FloppyController floppy(dma, irq);
  floppy.attach(0, kFloppy1440, floppy1440);
  floppy.attach(1, kFloppy1440, floppy360);
  (void)dma.plugPorts(ports);
  (void)floppy.plugPorts(ports);
  ports.write(0x3f2, 1, 0x1c);
  for (; size >= 3; data += 3, size -= 3) {
    std::uint16_t port = kPorts[data[0] & 15];
    switch (data[0] >> 4) {
      case 0:
        ports.write(port, 1u << (data[1] % 3), data[2]);
        break;
      case 1:
        (void)ports.read(port, 1u << (data[1] % 3));
        break;
      case 2:  // a command in whole, its bytes made from three
        for (unsigned n = 0; n < 9; ++n)
          ports.write(0x3f5, 1, n == 0 ? data[1] : n == 4 ? data[2] % 40 : data[2] >> (n & 7));
        break;
      case 3:
        for (unsigned n = 0; n < 16; ++n) (void)ports.read(0x3f5, 1);
        break;
      case 4:
        floppy1440->hold = (data[1] & 1) != 0;
        floppy1440->fail = (data[1] & 2) != 0 ? 5 : 0;
        floppy1440->isReadOnly = (data[1] & 4) != 0;
        if ((data[1] & 8) != 0) floppy1440->completeHeld();
        break;
      case 5:
        floppy.change(data[1] & 1, (data[1] & 2) != 0 ? (data[1] & 4) != 0 ? floppy1440 : floppy360 : nullptr);
        break;
      case 6:
        floppy.reset();
        dma.reset();
        break;
      case 7:  // many bytes of data
        for (unsigned n = 0; n < data[1] * 4u; ++n) ports.write(0x3f5, 1, data[2]);
        break;
      case 8:
        ports.write(0x3f7, 1, data[1] & 3);
        ports.write(0x3f2, 1, 0x1c | (data[2] & 1));
        break;
      default:
        ports.write(0x3f5, 1, data[1]);
        ports.write(0x3f5, 1, data[2]);
        break;
    }
  }
  floppy1440->hold = false;
  floppy1440->completeHeld();
  return 0;
}
