// SPDX-License-Identifier: Apache-2.0
#include "firmware/tables.h"

#include "firmware/acpi.h"
#include "firmware/layout.h"
#include "firmware/smbios.h"

namespace lodge::firmware {

namespace {
// BIOS data area: where the EBDA begins, how much conventional memory there is. Operating systems use both to find the
// BIOS area.
Status writeBiosData(GuestMemory& memory) {
  constexpr std::uint64_t kEbdaSegment = layout::kBiosDataArea + 0x0e, kBaseMemory = layout::kBiosDataArea + 0x13;
  bool ok = memory.writeObject(Gpa{kEbdaSegment}, static_cast<std::uint16_t>(layout::kLowMemoryEnd >> 4)) &&
            memory.writeObject(Gpa{kBaseMemory}, static_cast<std::uint16_t>(layout::kLowMemoryEnd / 1_KiB));
  if (!ok) return Error(ErrorKind::internal, "write the BIOS data area");
  return {};
}

Status writeArea(GuestMemory& memory, std::uint64_t base, std::uint64_t end, std::span<const std::uint8_t> bytes,
                 const char* what) {
  if (bytes.size() > end - base) {
    return Error(ErrorKind::invalidArgument,
                 std::string(what) + " tables of " + std::to_string(bytes.size()) + " bytes do not fit")
        .withHint("describe fewer CPUs or devices");
  }
  if (!memory.fill(Gpa{base}, std::byte{0}, end - base) || !memory.write(Gpa{base}, std::as_bytes(bytes))) {
    return Error(ErrorKind::internal, std::string("write ") + what + " tables");
  }
  return {};
}
}  // namespace

Result<InstalledTables> installTables(GuestMemory& memory, const PlatformDescription& platform) {
  if (Status status = checkPlatform(platform); !status) return std::move(status).error();
  if (Status status = writeBiosData(memory); !status) return std::move(status).error();
  std::vector<std::uint8_t> acpi = buildAcpi(platform, layout::kAcpiBase);
  Status status = writeArea(memory, layout::kAcpiBase, layout::kAcpiEnd, acpi, "ACPI");
  if (!status) return std::move(status).error();
  std::vector<std::uint8_t> smbios = buildSmbios(platform, memory.size(), layout::kSmbiosBase);
  status = writeArea(memory, layout::kSmbiosBase, layout::kSmbiosEnd, smbios, "SMBIOS");
  if (!status) return std::move(status).error();
  return InstalledTables{layout::kAcpiBase, layout::kSmbiosBase};
}

}  // namespace lodge::firmware
