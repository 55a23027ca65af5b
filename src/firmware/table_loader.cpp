// SPDX-License-Identifier: Apache-2.0
// The table loader interface: QEMU's hw/acpi/bios-linker-loader describes its commands, each 128 bytes.
#include "firmware/table_loader.h"

#include <string_view>
#include <utility>

#include "firmware/acpi.h"
#include "firmware/byte_writer.h"
#include "firmware/smbios.h"

namespace lodge::firmware {

namespace {
constexpr std::string_view kRsdpFile = "etc/acpi/rsdp", kTablesFile = "etc/acpi/tables";
constexpr std::size_t kCommandBytes = 128, kNameBytes = 56;
enum Command : std::uint32_t { allocate = 1, addPointer = 2, addChecksum = 3 };
enum Zone : std::uint8_t { high = 1, fSegment = 2 };

/// One command, filled up to its size.
class Commands {
 public:
  void add(const ByteWriter& command) {
    std::size_t end = out_.size() + kCommandBytes;
    out_.bytes(command.view());
    out_.zeros(end - out_.size());
  }
  std::vector<std::uint8_t> take() { return out_.take(); }

 private:
  ByteWriter out_;
};

/// A place of the image as a place in one of the files.
struct Place {
  std::string_view file;
  std::size_t offset;
};
Place placeOf(std::size_t offset) {
  if (offset < AcpiImage::kTablesOffset) return {kRsdpFile, offset};
  return {kTablesFile, offset - AcpiImage::kTablesOffset};
}
}  // namespace

LoaderFiles buildLoaderFiles(const PlatformDescription& platform) {
  // Pointers are offsets in the tables' file until the firmware adds where it has put that.
  AcpiImage image = buildAcpiImage(platform, std::uint64_t{0} - AcpiImage::kTablesOffset);
  Commands commands;
  commands.add(ByteWriter().u32(allocate).text(kRsdpFile, kNameBytes).u32(16).u8(fSegment));
  commands.add(ByteWriter().u32(allocate).text(kTablesFile, kNameBytes).u32(64).u8(high));
  for (const AcpiImage::Pointer& pointer : image.pointers) {
    Place place = placeOf(pointer.offset);
    commands.add(ByteWriter()
                     .u32(addPointer)
                     .text(place.file, kNameBytes)
                     .text(kTablesFile, kNameBytes)
                     .u32(place.offset)
                     .u8(pointer.size));
  }
  for (const AcpiImage::Checksum& sum : image.checksums) {
    // The loader computes the byte from all others, of which it is one itself.
    image.bytes[sum.offset] = 0;
    Place place = placeOf(sum.offset);
    commands.add(ByteWriter()
                     .u32(addChecksum)
                     .text(place.file, kNameBytes)
                     .u32(place.offset)
                     .u32(placeOf(sum.start).offset)
                     .u32(sum.length));
  }
  auto tables = image.bytes.begin() + AcpiImage::kTablesOffset;
  return {
      {image.bytes.begin(), image.bytes.begin() + AcpiImage::kRsdpBytes}, {tables, image.bytes.end()}, commands.take()};
}

Status addFirmwareTables(FwCfg& fwCfg, const GuestMemory& memory, const PlatformDescription& platform) {
  if (Status good = checkPlatform(platform); !good) return good;
  LoaderFiles acpi = buildLoaderFiles(platform);
  constexpr std::size_t kEntryPoint = 24, kTable = 32;
  std::vector<std::uint8_t> smbios = buildSmbios(platform, memory.size(), 0);
  constexpr std::uint32_t kRam = 1;
  ByteWriter map;
  map.u64(0).u64(memory.lowSize()).u32(kRam);
  if (memory.highSize() != 0) map.u64(GuestMemory::kHoleEnd).u64(memory.highSize()).u32(kRam);
  std::pair<const char*, std::vector<std::uint8_t>> files[] = {
      {"etc/acpi/rsdp", std::move(acpi.rsdp)},
      {"etc/acpi/tables", std::move(acpi.tables)},
      {"etc/table-loader", std::move(acpi.commands)},
      {"etc/smbios/smbios-anchor", {smbios.begin(), smbios.begin() + kEntryPoint}},
      {"etc/smbios/smbios-tables", {smbios.begin() + kTable, smbios.end()}},
      {"etc/e820", map.take()},
  };
  for (auto& [name, bytes] : files) {
    if (Status added = fwCfg.addFile(name, std::move(bytes)); !added) return added;
  }
  return {};
}

}  // namespace lodge::firmware
