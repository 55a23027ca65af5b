// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "memory/guest_memory.h"
#include "memory/io_bus.h"
#include "state/archive.h"

namespace lodge {

/// The firmware configuration device that QEMU made known (its docs/specs/fw_cfg): numbered and named blobs of bytes
/// that the guest reads through a selector and a data port, or by DMA. Twelve I/O ports, usually from 0x510: selector
/// at offset 0 (16 bits), data at 1 (8 bits), DMA address at 4 (64 bits, big-endian; the write of the low half starts
/// the transfer). Items are registered before the machine starts and are read-only for the guest.
///   FwCfg fwCfg(memory);
///   fwCfg.addInteger(FwCfg::cpuCount, cpus, 2);
///   fwCfg.addFile("etc/hostname", bytes);
///   ports.add(0x510, FwCfg::kPorts, fwCfg, "fw_cfg");
class FwCfg : public IoDevice {
 public:
  static constexpr std::uint64_t kPorts = 12;

  /// Keys of the specification's well-known items.
  enum Key : std::uint16_t {
    signature = 0x00,
    interfaceId = 0x01,
    uuid = 0x02,
    ramSize = 0x03,    ///< 8 bytes
    noGraphic = 0x04,  ///< 2 bytes
    cpuCount = 0x05,   ///< 2 bytes
    machineId = 0x06,
    kernelSize = 0x08,  ///< 4 bytes
    commandLineOld = 0x09,
    initrdSize = 0x0b,       ///< 4 bytes
    maxCpuCount = 0x0f,      ///< 2 bytes
    commandLineSize = 0x14,  ///< 4 bytes
    commandLineData = 0x15,  ///< with its terminating zero
    fileDirectory = 0x19,
    firstFile = 0x20,
    irq0Override = 0x8002,  ///< 4 bytes: whether ISA IRQ 0 is at pin 2 of the I/O APIC
  };

  explicit FwCfg(GuestMemory& memory);

  /// Replaces what was there. Errors: invalidArgument for keys of files and of the directory, and what follows up to
  /// 0x8000.
  Status addItem(std::uint16_t key, std::vector<std::uint8_t> bytes);
  /// Little-endian, `size` 2, 4 or 8 bytes.
  Status addInteger(std::uint16_t key, std::uint64_t value, unsigned size);
  /// A named file, at the next free key. Errors: invalidArgument (the name is empty or longer than 55 bytes),
  /// alreadyExists, outOfMemory (more than 1024 files).
  Status addFile(std::string_view name, std::vector<std::uint8_t> bytes);

  std::uint64_t read(std::uint64_t offset, unsigned size) override;
  void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
  /// Machine reset: nothing selected.
  void reset();
  /// Saves or loads what is selected; items come with the machine's configuration.
  void transfer(state::Archive& a);

 private:
  void rebuildDirectory();
  void select(std::uint16_t key);
  std::uint8_t nextByte();
  void startDma(std::uint64_t descriptor);
  bool transfer(std::uint32_t control, std::uint64_t address, std::uint32_t length);
  std::span<const std::uint8_t> selected() const;

  GuestMemory& memory_;
  std::mutex mutex_;  // the three below; items do not change once the machine runs
  std::uint16_t key_ = 0;
  std::uint64_t position_ = 0;
  std::uint32_t dmaHigh_ = 0;
  std::map<std::uint16_t, std::vector<std::uint8_t>> items_;
  std::map<std::string, std::uint16_t, std::less<>> files_;
};

}  // namespace lodge
