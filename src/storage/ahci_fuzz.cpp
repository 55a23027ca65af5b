// SPDX-License-Identifier: Apache-2.0
// A hostile guest at an AHCI controller with a disk and a CD-ROM drive: any register, any command table, requests that
// end late.
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/units.h"
#include "storage/ahci_controller.h"
#include "storage/ahci_defs.h"
#include "storage/ata_disk.h"
#include "storage/atapi_drive.h"
#include "storage/test_disk.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace lodge;
  static std::unique_ptr<GuestMemory> memory = std::move(*GuestMemory::create(1_MiB));
  auto disk = std::make_shared<TestDisk>(300 * 512 + 17), cd = std::make_shared<TestDisk>(50 * 2048);
  AhciController hba(*memory, "fuzz");
  hba.port(0).attach(std::make_unique<AtaDisk>(disk, "fuzz", true), disk);
  hba.port(1).attach(std::make_unique<AtapiDrive>(cd), nullptr);
  IoDevice& registers = hba.registers();
  auto setPort = [&](unsigned n, unsigned offset, std::uint32_t value) {
    registers.write(ahci::host::ports + 0x80 * n + offset, 4, value);
  };
  auto finish = [&] {
    disk->hold = cd->hold = false;
    disk->completeHeld();
    cd->completeHeld();
  };
  for (unsigned n : {0u, 1u}) {
    setPort(n, ahci::port::clb, 0x1000 + 0x400 * n);
    setPort(n, ahci::port::fb, 0x2000);
    setPort(n, ahci::port::ie, ~0u);
    setPort(n, ahci::port::cmd, 0x11);
  }
  for (; size >= 8; data += 8, size -= 8) {
    auto value = loadLe<std::uint32_t>(data + 4);
    unsigned n = data[1] & 1, number = data[1] >> 1 & 31;
    switch (data[0] & 7) {
      case 0: {  // a command of a slot, with one region
        std::uint64_t table = 0x4000 + 0x100 * number;
        struct {
          std::uint32_t flags, count = 0;
          std::uint64_t table;
        } header{5u | (data[2] & 0xe0u) | (data[3] & 3u) << 16, 0, table};
        (void)memory->writeObject(Gpa{0x1000u + 0x400 * n + 32 * number}, header);
        std::uint8_t fis[20] = {0x27, 0x80, data[2], data[3], data[4], data[5], 0, 0x40, 0, 0, 0, 0, data[6], 0};
        if ((data[0] & 8) != 0)
          fis[2] = (data[2] & 1) != 0 ? 0x60 : 0x61, fis[12] = static_cast<std::uint8_t>(number << 3);
        if (n == 1) fis[2] = 0xa0;
        (void)memory->writeObject(Gpa{table}, fis);
        std::uint8_t packet[12] = {data[4], data[5], 0, 0, 0, data[6], 0, 0, data[7]};
        (void)memory->writeObject(Gpa{table + 0x40}, packet);
        for (unsigned r = 0; r < 3; ++r) {
          struct {
            std::uint64_t address;
            std::uint32_t reserved = 0, length;
          } region{0x10000u + 0x1000 * r + (data[7] & 0xfe), 0, value >> 16};
          (void)memory->writeObject(Gpa{table + 0x80 + 16 * r}, region);
        }
        if (fis[2] == 0x60 || fis[2] == 0x61) setPort(n, ahci::port::sact, 1u << number);
        setPort(n, ahci::port::ci, 1u << number);
        break;
      }
      case 1:
        finish();  // a reset waits for requests
        setPort(n, data[2] & 0x7c, value);
        break;
      case 2:
        finish();
        registers.write(data[2] & 0xfcu, 1u << (data[1] & 3), value);
        break;
      case 3:
        registers.read(loadLe<std::uint16_t>(data + 2) & 0x3f8, 1u << (data[1] & 3));
        break;
      case 4:
        (void)memory->writeObject(Gpa{loadLe<std::uint16_t>(data + 2)}, value);
        break;
      case 5:
        setPort(n, ahci::port::cmd, 0x10);
        setPort(n, ahci::port::cmd, 0x11);
        break;
      case 6:
        disk->hold = cd->hold = (value & 1) != 0;
        if ((value & 2) != 0) disk->completeHeld(), cd->completeHeld();
        break;
      default:
        hba.port(1).withDrive([&](IdeDrive& d) {
          return static_cast<AtapiDrive&>(d).change((value & 1) != 0 ? cd : nullptr, (value & 2) != 0);
        });
        break;
    }
  }
  finish();
  return 0;
}
