// SPDX-License-Identifier: Apache-2.0
// A hostile guest at the PCI host: configuration writes by both mechanisms, BAR moves, MSI-X tables, and accesses to
// wherever the BARs have gone.
#include <cstddef>
#include <cstdint>

#include "base/bytes.h"
#include "base/log.h"
#include "base/units.h"
#include "device/pci.h"
#include "device/pcie_port.h"

namespace {
using namespace lodge;

struct Registers : IoDevice {
  std::uint64_t read(std::uint64_t offset, unsigned size) override {
    if (offset + size > length) __builtin_trap();
    return offset;
  }
  void write(std::uint64_t offset, unsigned size, std::uint64_t) override {
    if (offset + size > length) __builtin_trap();
  }
  std::uint64_t length = 0;
};
struct NullLine : InterruptLine {
  void set(bool) override {}
};
struct NullSink : MsiSink {
  void sendMsi(std::uint64_t, std::uint32_t) override {}
};
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  setLogLevel(LogLevel::error);
  IoBus ports("port I/O"), memory("memory");
  NullLine line;
  NullSink sink;
  auto host = PciHost::create({.ports = ports,
                               .memory = memory,
                               .msi = sink,
                               .intx = {&line, &line, &line, &line},
                               .ecamBase = 0xe000'0000,
                               .window32Base = 0xc000'0000,
                               .window32Size = 64_MiB,
                               .window64Base = 1_TiB,
                               .window64Size = 1_GiB});
  Registers small, large;
  small.length = 64;
  large.length = 64_KiB;
  PciFunction a({0x1af4, 0x1042, 1, 0x018000, 0x1af4, 2}, "a"), b({0x1af4, 0x1041, 1, 0x020000, 0x1af4, 1}, "b");
  a.addBar(0, PciFunction::BarKind::io, small.length, small);
  a.addBar(1, PciFunction::BarKind::memory32, large.length, large);
  b.addBar(0, PciFunction::BarKind::memory64Prefetchable, large.length, large);
  a.useIntx();
  a.addMsix(4, 3);
  b.addMsix(4, 100);
  if (!(*host)->plug(1, a) || !(*host)->plug(2, b)) __builtin_trap();
  // A host whose firmware places BARs, with configuration space of 16 buses and a device behind a port.
  IoBus expressPorts("port I/O"), expressMemory("memory");
  auto express = PciHost::create({.ports = expressPorts,
                                  .memory = expressMemory,
                                  .msi = sink,
                                  .intx = {&line, &line, &line, &line},
                                  .ecamBase = 0,
                                  .window32Base = 0xc000'0000,
                                  .window32Size = 64_MiB,
                                  .window64Base = 1_TiB,
                                  .window64Size = 1_GiB,
                                  .firmwareAssigns = true});
  (*express)->placeEcam(0xe000'0000, 16);
  PciFunction c({0x1af4, 0x1041, 1, 0x020000, 0x1af4, 1}, "c");
  c.addBar(0, PciFunction::BarKind::io, small.length, small);
  c.addBar(2, PciFunction::BarKind::memory64Prefetchable, large.length, large);
  c.addMsix(4, 3);
  PciePort port(1, "port"), other(2, "other port");
  if (!(*express)->plugPort(1, port, &c) || !(*express)->plugPort(2, other, nullptr)) __builtin_trap();
  for (; size >= 14; data += 14, size -= 14) {
    unsigned bytes = 1u << (data[1] & 3);
    std::uint64_t value = loadLe<std::uint64_t>(data + 6);
    std::uint32_t where = loadLe<std::uint32_t>(data + 2);
    std::uint64_t window = (where & 1) != 0 ? 1_TiB : 0xc000'0000;
    switch (data[0] % 10) {
      case 0:
        ports.write(0xcf8 + where % 8, bytes > 4 ? 4 : bytes, value);
        break;
      case 1:
        ports.read(0xcf8 + where % 8, bytes > 4 ? 4 : bytes);
        break;
      case 2:
        memory.write(0xe000'0000 + where % 1_MiB, bytes, value);
        break;
      case 3:
        memory.write(0xe000'8000 + where % 0x100 + (where & 0x8000), bytes, value);
        break;
      case 4:
        memory.write(window + (where >> 1) % 1_MiB, bytes, value);
        break;
      case 5:
        memory.read(window + (where >> 1) % 1_MiB, bytes);
        break;
      case 6:
        (where & 1 ? a : b).signalMsix(where >> 1);
        break;
      case 7:
        a.setIntx((where & 1) != 0);
        break;
      case 8:
        expressMemory.write(0xe000'0000 + where % 0x28 + ((where >> 8) % 3 << 15) + ((where >> 16) % 3 << 20), bytes,
                            value);
        break;
      default:
        if ((where & 2) != 0) {
          expressMemory.read(window + (where >> 2) % 64_MiB, bytes);
        } else {
          expressPorts.write((where >> 2) % 0x10000, bytes > 4 ? 4 : bytes, value);
        }
        break;
    }
  }
  (*host)->reset();
  (*express)->reset();
  return 0;
}
