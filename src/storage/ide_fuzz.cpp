// SPDX-License-Identifier: Apache-2.0
// A hostile guest at an IDE channel with a disk and a CD-ROM drive: any register, any packet, any table, while requests
// end late and media change.
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/units.h"
#include "storage/ata_disk.h"
#include "storage/atapi_drive.h"
#include "storage/ide_channel.h"
#include "storage/test_disk.h"

namespace {
using namespace lodge;
struct NullLine : InterruptLine {
  void set(bool) override {}
};
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  auto disk = std::make_shared<TestDisk>(300 * 512 + 17), cd = std::make_shared<TestDisk>(50 * 2048);
  NullLine line;
  IdeChannel channel(*memory, line);
  channel.attach(0, std::make_unique<AtaDisk>(disk, "fuzz"));
  channel.attach(1, std::make_unique<AtapiDrive>(cd));
  for (; size >= 6; data += 6, size -= 6) {
    unsigned bytes = 1u << (data[1] & 3);
    auto value = loadLe<std::uint32_t>(data + 2);
    unsigned port = data[1] >> 5;
    switch (data[0] & 15) {
      case 0:
      case 1:
      case 2:
      case 3:
        channel.commandPorts().write(port, port == 0 ? 2 : 1, value);
        break;
      case 4:
        channel.commandPorts().read(port, bytes > 4 || port + bytes > 8 ? 1 : bytes);
        break;
      case 5:
        channel.controlPort().write(0, 1, value & 0xff);
        break;
      case 6:
        channel.writeBusMaster(port, 1, value);
        break;
      case 7:
        channel.writeBusMaster(4, 4, value & 0xffff);
        break;
      case 8:
        (void)memory->writeObject(Gpa{value & 0xffff}, value);
        break;
      case 9:
        disk->hold = cd->hold = (value & 1) != 0;
        break;
      case 10:
        disk->completeHeld();
        cd->completeHeld();
        break;
      case 11:
        for (unsigned n = 0; n < (value & 0x3ff); ++n) channel.commandPorts().read(0, 4);
        break;
      case 12:  // a packet, of which these bytes are the beginning
        channel.commandPorts().write(6, 1, 0x10);
        channel.commandPorts().write(1, 1, data[1] & 1);
        channel.commandPorts().write(7, 1, 0xa0);
        channel.commandPorts().write(0, 4, value);
        channel.commandPorts().write(0, 4, (data[1] >> 1) << 8);
        channel.commandPorts().write(0, 4, data[1]);
        break;
      case 13:
        channel.withDrive(1, [&](IdeDrive& d) {
          return static_cast<AtapiDrive&>(d).change((value & 1) != 0 ? cd : nullptr, (value & 2) != 0);
        });
        break;
      default:
        channel.readBusMaster(port, 1);
        break;
    }
  }
  disk->hold = cd->hold = false;
  disk->completeHeld();
  cd->completeHeld();
  channel.reset();
  return 0;
}
