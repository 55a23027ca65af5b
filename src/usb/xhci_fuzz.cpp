// SPDX-License-Identifier: Apache-2.0
// A hostile guest at an xHCI controller with a tablet: any register, doorbell and ring, while the pointer moves.
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/units.h"
#include "usb/tablet.h"
#include "usb/xhci_controller.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lodge;
  using namespace lodge::usb;
  static std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  Tablet tablet;
  XhciController controller(*memory);
  controller.attach(0, tablet);
  IoDevice& registers = controller.registers();
  auto store = [](std::uint64_t at, auto value) { (void)memory->writeObject(Gpa{at}, value); };
  (void)memory->fill(Gpa{0}, std::byte{0}, 0x10000);
  // A driver's first steps; the input goes on from there.
  for (unsigned slot = 0; slot < 9; ++slot) store(0x1000 + 8 * slot, std::uint64_t{0x6000 + 0x400 * slot});
  store(0x4000, std::uint64_t{0x3000});
  store(0x4008, std::uint64_t{16});
  store(0x5000, xhci::Context{{0, 3}});
  store(0x5020, xhci::Context{{1u << 27, 1u << 16}});
  store(0x5040, xhci::Context{{0, 4u << 3, 0x9001}});
  registers.write(xhci::reg::config, 4, 8);
  registers.write(xhci::reg::dcbaap, 8, 0x1000);
  registers.write(xhci::reg::crcr, 8, 0x2001);
  registers.write(xhci::reg::erstSize, 4, 1);
  registers.write(xhci::reg::erdp, 8, 0x3000);
  registers.write(xhci::reg::erstBase, 8, 0x4000);
  registers.write(xhci::reg::usbCmd, 4, 5);
  std::uint64_t command = 0x2000, transfers[3] = {0x9000, 0xa000, 0xb000};
  for (; size >= 8; data += 8, size -= 8) {
    auto value = loadLe<std::uint32_t>(data + 4);
    auto word = loadLe<std::uint16_t>(data + 2);
    switch (data[0] & 7) {
      case 0:  // a command
        store(command, xhci::Trb{value & 0xfff0u, 0,
                                 std::uint32_t{data[2]} << 24 | (data[3] & 31u) << 16 | (9u + data[1] % 10) << 10 |
                                     (value & 0x200) | 1});
        command = command + 16 < 0x3000 ? command + 16 : 0x2000;
        registers.write(xhci::reg::doorbells, 4, 0);
        break;
      case 1: {  // a transfer
        std::uint64_t& at = transfers[data[1] % 3];
        store(at, xhci::Trb{(value & 0xff) | std::uint64_t{value} << 8, value >> 12 & 0xff,
                            (data[1] >> 2u & 15u) << 10 | (word & 0x03fe) | 1});
        at += 16;
        registers.write(xhci::reg::doorbells + 4 * (1 + (data[3] & 3)), 4, data[1] % 3 == 0 ? 1 : data[1] % 3 + 1);
        break;
      }
      case 2:
        registers.write(word & 0x3ffc, (data[1] & 1) != 0 ? 8 : 4, value);
        break;
      case 3:
        registers.read(word & 0x3fff, 1u << (data[1] & 3));
        break;
      case 4:
        store(word, value);
        break;
      case 5:
        (void)tablet.move(word, value & 0xffff, data[1] & 7, static_cast<int>(value >> 30) - 1);
        break;
      case 6:  // an endpoint's context for the next configuration
        store(0x5000, xhci::Context{{word & 0xfcu, value & 0xfd}});
        store(0x5000 + 32 * (1 + (data[1] & 7)), xhci::Context{{0, std::uint32_t{data[1]} & 0x38u, 0xa001}});
        break;
      default:
        if (data[1] == 0xff) controller.reset();
        break;
    }
  }
  return 0;
}
