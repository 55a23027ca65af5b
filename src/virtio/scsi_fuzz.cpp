// SPDX-License-Identifier: Apache-2.0
// A hostile guest at a virtio SCSI host with a disk and a CD-ROM drive: any command and task management request in
// chains of any shape, requests that end late.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/bytes.h"
#include "storage/scsi_cdrom.h"
#include "storage/scsi_disk.h"
#include "storage/test_disk.h"
#include "virtio/driver_kit.h"
#include "virtio/scsi.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lodge;
  constexpr std::uint64_t kRequest = 0x8000, kAnswer = 0x9000, kData = 0xa000;
  constexpr std::size_t kHeader = 51;  // virtio_scsi_cmd_req: LUN, tag, attributes, 32 bytes of the command
  static std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  auto disk = std::make_shared<TestDisk>(300 * 512), disc = std::make_shared<TestDisk>(40 * 2048 + 100);
  disc->isReadOnly = true;
  virtio::testing::CountingTransport transport;
  virtio::ScsiDevice device(*memory, 1);
  device.add(std::make_unique<ScsiDisk>(disk, "fuzz"));
  auto drive = std::make_unique<ScsiCdrom>(disc);
  ScsiCdrom& cdrom = *drive;
  device.add(std::move(drive));
  device.attach(transport);
  virtio::testing::DriverQueue control(*memory, 0x1000, false), requests(*memory, 0x2000, false);
  bool accepted = false;
  device.enableQueue(0, control.setup(), accepted);
  device.enableQueue(2, requests.setup(), accepted);
  device.activate(0);
  // The device's end waits for its requests.
  auto endRequests = [&] {
    for (TestDisk* d : {disk.get(), disc.get()}) {
      d->hold = false;
      d->completeHeld();
    }
  };
  auto take = [&] {
    while (control.take()) {
    }
    while (requests.take()) {
    }
  };
  for (; size >= 24; data += 24, size -= 24) {
    std::uint32_t in = loadLe<std::uint16_t>(data + 2) % 5000u, out = loadLe<std::uint16_t>(data + 4) % 5000u;
    switch (data[0] & 7) {
      default: {
        std::uint8_t header[kHeader] = {1, static_cast<std::uint8_t>(data[1] >> 4 & 1), 0x40,
                                        static_cast<std::uint8_t>(data[1] & 3)};
        std::copy_n(data + 8, 16, header + 19);
        (void)memory->writeObject(Gpa{kRequest}, header);
        std::uint32_t head = (data[1] & 8) != 0 ? data[6] % 60u : kHeader;
        std::uint32_t answer = (data[1] & 4) != 0 ? data[7] % 120u : 108;
        requests.add({{kRequest, head, false}, {kData, out, false}, {kAnswer, answer, true}, {kData, in, true}});
        device.notify(2);
        break;
      }
      case 4:
        (void)memory->write(Gpa{kRequest}, std::as_bytes(std::span(data + 8, 16)));
        control.add({{kRequest, (data[1] & 8) != 0 ? data[6] % 40u : 24u, false}, {kAnswer, 1u + data[7] % 8u, true}});
        device.notify(0);
        break;
      case 5:
        disk->hold = (data[1] & 1) != 0;
        disc->hold = (data[1] & 2) != 0;
        disk->fail = (data[1] & 4) != 0 ? 5 : 0;
        disc->fail = (data[1] & 8) != 0 ? 5 : 0;
        if ((data[1] & 16) != 0) endRequests();
        break;
      case 6:
        cdrom.change((data[1] & 1) != 0 ? disc : nullptr, (data[1] & 2) != 0);
        break;
      case 7:
        (void)memory->write(Gpa{kData + out}, std::as_bytes(std::span(data + 8, 16)));
        disk->isReadOnly = (data[1] & 1) != 0;
        if (data[1] == 0xff) {
          endRequests();
          device.reset();
          device.enableQueue(0, control.setup(), accepted);
          device.enableQueue(2, requests.setup(), accepted);
          device.activate(0);
        }
        break;
    }
    take();
  }
  endRequests();
  return 0;
}
