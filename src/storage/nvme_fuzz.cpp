// SPDX-License-Identifier: Apache-2.0
// A hostile guest at an NVMe controller: any register and doorbell, any command in its queues, requests that end late.
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/units.h"
#include "storage/nvme_controller.h"
#include "storage/test_disk.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lodge;
  static std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  auto disk = std::make_shared<TestDisk>(300 * 512 + 17);
  NvmeController nvme(*memory, disk, "fuzz");
  IoDevice& registers = nvme.registers();
  constexpr std::uint32_t kQueues[] = {0x1000, 0x2000, 0x3000, 0x4000};
  registers.write(nvme::reg::aqa, 4, 0x000f000f);
  registers.write(nvme::reg::asq, 8, kQueues[0]);
  registers.write(nvme::reg::acq, 8, kQueues[1]);
  registers.write(nvme::reg::cc, 4, 0x00460001);
  unsigned tails[2] = {};
  // The controller waits for its requests when it is switched off and when a queue is deleted. Here nobody else ends
  // them.
  auto endRequests = [&] {
    disk->hold = false;
    disk->completeHeld();
  };
  for (; size >= 8; data += 8, size -= 8) {
    auto value = loadLe<std::uint32_t>(data + 4);
    unsigned queue = data[1] & 1;
    switch (data[0] & 7) {
      case 0: {  // a command: the opcode, a namespace, two addresses and its first double words
        nvme::Command c{};
        c.opcode = data[1] >> 1 & 15;
        c.nsid = data[2] & 3;
        c.prp1 = std::uint64_t{data[3]} << 12 | (value & 0xff8);
        c.prp2 = std::uint64_t{data[3]} << 11 | (value >> 8 & 0xff8);
        c.dw10 = value >> 16;
        c.dw11 = value & 0x0003ffff;
        c.dw12 = data[2] >> 2;
        (void)memory->writeObject(Gpa{kQueues[queue == 0 ? 0 : 2] + tails[queue] * sizeof c}, c);
        tails[queue] = (tails[queue] + 1) % 16;
        if (queue == 0) endRequests();
        registers.write(0x1000 + 8 * queue, 4, tails[queue]);
        break;
      }
      case 1:  // queues of their own for the I/O commands
        endRequests();
        for (std::uint8_t opcode : {5, 1}) {
          nvme::Command c{};
          c.opcode = opcode;
          c.prp1 = kQueues[opcode == 5 ? 3 : 2];
          c.dw10 = 15 << 16 | 1;
          c.dw11 = opcode == 5 ? 3 : 1 << 16 | 1;
          (void)memory->writeObject(Gpa{kQueues[0] + tails[0] * sizeof c}, c);
          tails[0] = (tails[0] + 1) % 16;
          registers.write(0x1000, 4, tails[0]);
        }
        break;
      case 2:
        endRequests();
        registers.write(loadLe<std::uint16_t>(data + 2) & 0x1fff, 1u << (data[1] & 3), value);
        break;
      case 3:
        registers.read(loadLe<std::uint16_t>(data + 2) & 0x3ff0, 1u << (data[1] & 3));
        break;
      case 4:
        (void)memory->writeObject(Gpa{loadLe<std::uint16_t>(data + 2)}, value);
        break;
      case 5:
        disk->hold = (value & 1) != 0;
        if ((value & 2) != 0) disk->completeHeld();
        break;
      case 6:  // room in a completion queue: waiting commands go on
        endRequests();
        registers.write(0x1004 + 8 * queue, 4, data[2] & 15);
        break;
      default:
        disk->isReadOnly = (value & 1) != 0;
        break;
    }
    if (data[0] == 0xff) {
      endRequests();
      nvme.reset();
    }
  }
  endRequests();
  return 0;
}
