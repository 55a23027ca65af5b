// SPDX-License-Identifier: Apache-2.0
// Boards of all kinds: the table loader's script, executed as firmware does it and with each command checked against
// its files, gives the tables that were meant for that place, with right sums.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "firmware/acpi.h"
#include "firmware/table_loader.h"

namespace {
using namespace lodge;
using namespace lodge::firmware;

void expect(bool condition) {
  if (!condition) __builtin_trap();
}

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}
  std::uint64_t next(unsigned bytes) {
    std::uint64_t value = 0;
    for (unsigned n = 0; n < bytes && left_ != 0; ++n, ++data_, --left_) value |= std::uint64_t{*data_} << (8 * n);
    return value;
  }
  bool chance() { return (next(1) & 1) != 0; }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

PlatformDescription platformOf(Input& in) {
  PlatformDescription p;
  p.cpus = static_cast<unsigned>(in.next(1));
  p.physicalAddressBits = static_cast<unsigned>(36 + in.next(1) % 17);
  if (in.chance()) p.hpet = 0xfed0'0000;
  p.ecamBase = in.chance() ? 0 : 0xb000'0000 + in.next(2) * 1_MiB % 0x4000'0000;
  p.pciBuses = static_cast<unsigned>(1 + in.next(1));
  p.window32Base = in.next(4);
  p.window32Size = in.next(4);
  p.window64Base = in.next(5);
  p.window64Size = in.next(5);
  if (in.chance()) {
    p.pciLinks = PciLinksDescription{static_cast<unsigned>(in.next(1) % 32), static_cast<unsigned>(in.next(1) % 8),
                                     static_cast<unsigned>(in.next(1) % 4), static_cast<std::uint8_t>(in.next(1)),
                                     static_cast<std::uint16_t>(in.next(2))};
  }
  p.sciGsi = static_cast<unsigned>(in.next(1) % 24);
  p.gpe0Length = static_cast<std::uint8_t>(in.next(1) % 40);
  p.serialPorts.resize(in.next(1) % 3);
  if (in.chance()) p.rtc.reset();
  if (in.chance()) p.pit.reset();
  if (in.chance()) p.pvpanic = static_cast<std::uint16_t>(in.next(2));
  if (in.chance()) p.fwCfg = static_cast<std::uint16_t>(in.next(2));
  p.keyboard = in.chance();
  p.vga = in.chance();
  return p;
}

struct Firmware {
  std::vector<std::uint8_t> rsdp, tables;
  std::uint64_t rsdpAt, tablesAt;

  bool isRsdp(const std::uint8_t* name) const {
    std::string_view text(reinterpret_cast<const char*>(name), ::strnlen(reinterpret_cast<const char*>(name), 56));
    expect(text == "etc/acpi/rsdp" || text == "etc/acpi/tables");
    return text == "etc/acpi/rsdp";
  }
  void point(const std::uint8_t* c) {
    std::vector<std::uint8_t>& file = isRsdp(c + 4) ? rsdp : tables;
    bool toRsdp = isRsdp(c + 60);
    std::size_t offset = loadLe<std::uint32_t>(c + 116), size = c[120];
    expect((size == 4 || size == 8) && offset + size <= file.size());
    std::uint64_t value = 0;
    for (std::size_t n = 0; n < size; ++n) value |= std::uint64_t{file[offset + n]} << (8 * n);
    expect(value < (toRsdp ? rsdp : tables).size());
    value += toRsdp ? rsdpAt : tablesAt;
    for (std::size_t n = 0; n < size; ++n) file[offset + n] = static_cast<std::uint8_t>(value >> (8 * n));
  }
  void sum(const std::uint8_t* c) {
    std::vector<std::uint8_t>& file = isRsdp(c + 4) ? rsdp : tables;
    std::size_t at = loadLe<std::uint32_t>(c + 60), start = loadLe<std::uint32_t>(c + 64),
                length = loadLe<std::uint32_t>(c + 68);
    expect(start + length <= file.size() && at >= start && at < start + length);
    std::uint8_t total = 0;
    for (std::size_t n = 0; n < length; ++n) total = static_cast<std::uint8_t>(total + file[start + n]);
    file[at] = static_cast<std::uint8_t>(file[at] - total);
  }
};
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in(data, size);
  PlatformDescription platform = platformOf(in);
  if (!checkPlatform(platform)) return 0;
  LoaderFiles files = buildLoaderFiles(platform);
  Firmware firmware{files.rsdp, files.tables, 0xf0000 + in.next(2) / 16 * 16, 1_MiB + in.next(4) / 64 * 64 % 2_GiB};
  expect(files.commands.size() % 128 == 0);
  for (std::size_t at = 0; at < files.commands.size(); at += 128) {
    const std::uint8_t* command = files.commands.data() + at;
    auto kind = loadLe<std::uint32_t>(command);
    expect(kind >= 1 && kind <= 3);
    if (kind == 2) firmware.point(command);
    if (kind == 3) firmware.sum(command);
  }
  AcpiImage direct = buildAcpiImage(platform, firmware.tablesAt - AcpiImage::kTablesOffset);
  expect(std::ranges::equal(firmware.tables, std::span(direct.bytes).subspan(AcpiImage::kTablesOffset)));
  return 0;
}
