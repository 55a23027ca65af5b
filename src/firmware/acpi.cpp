// SPDX-License-Identifier: Apache-2.0
#include "firmware/acpi.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/units.h"

namespace lodge::firmware {

namespace {
constexpr std::string_view kOemId = "LODGE ", kOemTableId = "LODGEVM ", kCreator = "LDGE";
constexpr std::uint32_t kOemRevision = 1, kCreatorRevision = 1;

// Generic address structure (5.2.3.2).
constexpr std::uint8_t kSystemMemory = 0, kSystemIo = 1;
enum AccessSize : std::uint8_t { undefinedAccess = 0, byteAccess = 1, wordAccess = 2, dwordAccess = 3 };

void address(ByteWriter& out, std::uint8_t space, unsigned bits, AccessSize access, std::uint64_t where) {
  out.u8(space).u8(bits).u8(0).u8(access).u64(where);
}

// FADT (5.2.9). The hardware is in ACPI mode from the start: there is no SMI command port.
std::vector<std::uint8_t> buildFadt(const PlatformDescription& p, std::uint64_t facs, std::uint64_t dsdt) {
  constexpr std::uint16_t kBootLegacyDevices = 1 << 0, kBoot8042 = 1 << 1, kBootNoVga = 1 << 2, kBootNoAspm = 1 << 4,
                          kBootNoRtc = 1 << 5;
  constexpr std::uint32_t kWbinvd = 1 << 0, kProcC1 = 1 << 2, kNoSleepButton = 1 << 5, kRtcNotFixed = 1 << 6,
                          kTimer32 = 1 << 8, kResetRegister = 1 << 10;
  constexpr std::uint16_t kNoC2 = 101, kNoC3 = 1001;  // latencies above 100 and 1000: state not supported
  constexpr std::uint8_t kCentury = 0x32;
  ByteWriter out;
  out.u32(facs).u32(dsdt).u8(0).u8(0);
  out.u16(p.sciGsi).u32(0).u8(0).u8(0).u8(0).u8(0);
  out.u32(p.pm1aEvent).u32(0).u32(p.pm1aControl).u32(0).u32(0).u32(p.pmTimer).u32(p.gpe0Length ? p.gpe0 : 0).u32(0);
  out.u8(4).u8(2).u8(0).u8(4).u8(p.gpe0Length).u8(0).u8(0).u8(0);
  out.u16(kNoC2).u16(kNoC3).u16(0).u16(0).u8(0).u8(0).u8(0).u8(0).u8(p.rtc ? kCentury : 0);
  out.u16(kBootLegacyDevices | kBootNoAspm | (p.rtc ? 0 : kBootNoRtc) | (p.keyboard ? kBoot8042 : 0) |
          (p.vga ? 0 : kBootNoVga))
      .u8(0);
  out.u32(kWbinvd | kProcC1 | kNoSleepButton | kRtcNotFixed | kTimer32 | kResetRegister);
  address(out, kSystemIo, 8, byteAccess, p.resetPort);
  out.u8(p.resetValue).u16(0).u8(0);  // ARM boot flags, minor version: ACPI 6.0
  out.u64(0).u64(dsdt);               // X_FIRMWARE_CTRL must be zero next to FIRMWARE_CTRL
  address(out, kSystemIo, 32, wordAccess, p.pm1aEvent);
  address(out, kSystemIo, 0, undefinedAccess, 0);
  address(out, kSystemIo, 16, wordAccess, p.pm1aControl);
  address(out, kSystemIo, 0, undefinedAccess, 0);
  address(out, kSystemIo, 0, undefinedAccess, 0);
  address(out, kSystemIo, 32, dwordAccess, p.pmTimer);
  address(out, kSystemIo, p.gpe0Length * 8u, p.gpe0Length ? byteAccess : undefinedAccess, p.gpe0Length ? p.gpe0 : 0);
  address(out, kSystemIo, 0, undefinedAccess, 0);
  address(out, kSystemIo, 0, undefinedAccess, 0);  // sleep control and status: hardware-reduced platforms only
  address(out, kSystemIo, 0, undefinedAccess, 0);
  out.text("LODGE", 8);  // hypervisor vendor identity
  return finishAcpiTable("FACP", 6, out.view());
}

// FACS (5.2.10): no header and no checksum.
std::vector<std::uint8_t> buildFacs() {
  ByteWriter out;
  out.text("FACS", 4).u32(64).zeros(24).u8(2).zeros(31);
  return out.take();
}

// MADT (5.2.12).
std::vector<std::uint8_t> buildMadt(const PlatformDescription& p) {
  constexpr std::uint8_t kLocalApic = 0, kIoApic = 1, kOverride = 2, kLocalApicNmi = 4;
  constexpr std::uint16_t kConforms = 0, kActiveHighLevel = 0xd;
  ByteWriter out;
  out.u32(p.localApicBase).u32(p.legacyPic ? 1 : 0);
  for (unsigned cpu = 0; cpu < p.cpus; ++cpu) out.u8(kLocalApic).u8(8).u8(cpu).u8(cpu).u32(1);
  out.u8(kIoApic).u8(12).u8(p.ioApicId).u8(0).u32(p.ioApicBase).u32(0);
  if (p.pitOnGsi2) out.u8(kOverride).u8(10).u8(0).u8(0).u32(2).u16(kConforms);
  out.u8(kOverride).u8(10).u8(0).u8(p.sciGsi).u32(p.sciGsi).u16(kActiveHighLevel);
  out.u8(kLocalApicNmi).u8(6).u8(0xff).u16(kConforms).u8(1);  // NMI at LINT1 of every processor
  return finishAcpiTable("APIC", 4, out.view());
}

// MCFG (PCI Firmware Specification 3.0, 4.1.2).
std::vector<std::uint8_t> buildMcfg(const PlatformDescription& p) {
  ByteWriter out;
  out.u64(0).u64(p.ecamBase).u16(0).u8(0).u8(p.pciBuses - 1).u32(0);
  return finishAcpiTable("MCFG", 1, out.view());
}

// HPET (IA-PC HPET Specification 1.0a, 3.2.4).
std::vector<std::uint8_t> buildHpet(const PlatformDescription& p) {
  ByteWriter out;
  out.u32(p.hpetId);
  address(out, kSystemMemory, 64, undefinedAccess, *p.hpet);
  out.u8(0).u16(0).u8(0);
  return finishAcpiTable("HPET", 1, out.view());
}

// RSDP (5.2.5.3); the second checksum covers the first.
std::vector<std::uint8_t> buildRsdp(std::uint64_t xsdt) {
  constexpr std::size_t kFirstPart = 20, kLength = 36;
  ByteWriter out;
  out.text("RSD PTR ", 8).u8(0).text(kOemId, 6).u8(2).u32(0).u32(kLength).u64(xsdt).u8(0).zeros(3);
  out.patch(8, checksumOf(out.view().first(kFirstPart)), 1);
  out.patch(32, checksumOf(out.view()), 1);
  return out.take();
}

std::uint64_t append(ByteWriter& area, std::uint64_t base, std::span<const std::uint8_t> table) {
  area.align(64);
  std::uint64_t at = base + area.size();
  area.bytes(table);
  return at;
}

Status require(bool condition, const std::string& what) {
  if (condition) return {};
  return Error(ErrorKind::invalidArgument, "the board's description: " + what);
}
}  // namespace

std::vector<std::uint8_t> finishAcpiTable(std::string_view signature, std::uint8_t revision,
                                          std::span<const std::uint8_t> body) {
  constexpr std::size_t kChecksumOffset = 9;
  ByteWriter out;
  out.text(signature, 4).u32(kAcpiHeaderBytes + body.size()).u8(revision).u8(0).text(kOemId, 6).text(kOemTableId, 8);
  out.u32(kOemRevision).text(kCreator, 4).u32(kCreatorRevision).bytes(body);
  out.patch(kChecksumOffset, checksumOf(out.view()), 1);
  return out.take();
}

Status checkPlatform(const PlatformDescription& p) {
  auto inHole = [](std::uint64_t base, std::uint64_t size, std::uint64_t start) {
    return base >= start && size <= 4_GiB && base + size <= 4_GiB;
  };
  auto portOk = [](unsigned port, unsigned length) { return port + length <= 0x10000; };
  std::uint64_t window64End = p.window64Base + p.window64Size;
  std::uint64_t addressEnd = std::uint64_t{1} << std::min(p.physicalAddressBits, 52u);
  Status checks[] = {
      require(p.cpus >= 1 && p.cpus <= 255, fmt::format("{} CPUs, not 1 to 255", p.cpus)),
      require(p.physicalAddressBits >= 36 && p.physicalAddressBits <= 52, "36 to 52 physical address bits"),
      require(p.pciBuses >= 1 && p.pciBuses <= 256, "1 to 256 PCI buses"),
      require(p.ecamBase == 0 || inHole(p.ecamBase, p.pciBuses * 1_MiB, 0xb000'0000),
              "ECAM lies within [2816 MiB, 4 GiB)"),
      require(p.window32Size != 0 && inHole(p.window32Base, p.window32Size, 2_GiB),
              "the 32-bit PCI window lies within [2 GiB, 4 GiB)"),
      require(
          p.window64Size == 0 || (p.window64Base >= 4_GiB && window64End > p.window64Base && window64End <= addressEnd),
          "the 64-bit PCI window lies between 4 GiB and the physical address width"),
      require(p.localApicBase < 4_GiB && p.ioApicBase < 4_GiB, "APICs lie below 4 GiB"),
      require(p.sciGsi < 16, "the SCI is an ISA interrupt"),
      require(p.gpe0Length % 2 == 0 && p.gpe0Length < 32, "the GPE0 block has up to 30 bytes in two halves"),
      require(p.s5SleepType < 8, "SLP_TYP has three bits"),
      require(
          portOk(p.pm1aEvent, 4) && portOk(p.pm1aControl, 2) && portOk(p.pmTimer, 4) && portOk(p.gpe0, p.gpe0Length),
          "ports end at 0xffff"),
      require(p.serialPorts.size() <= 9, "at most 9 serial ports"),
      require(std::ranges::all_of(p.serialPorts, [&](auto& s) { return portOk(s.port, 8) && s.gsi < 16; }),
              "serial ports have ISA interrupts"),
  };
  for (Status& status : checks) {
    if (!status) return std::move(status);
  }
  return {};
}

AcpiImage buildAcpiImage(const PlatformDescription& platform, std::uint64_t base) {
  // Where the RSDP, the FADT and the XSDT have addresses and checksums.
  constexpr std::size_t kRsdpXsdt = 24, kRsdpChecksum = 8, kRsdpFirstPart = 20, kRsdpExtendedChecksum = 32;
  constexpr std::size_t kFadtFacs = 36, kFadtDsdt = 40, kFadtXDsdt = 140, kTableChecksum = 9;
  AcpiImage image;
  ByteWriter area;
  area.zeros(AcpiImage::kRsdpBytes);
  std::uint64_t facs = append(area, base, buildFacs());
  std::uint64_t dsdt = append(area, base, finishAcpiTable("DSDT", 2, buildDsdtBody(platform)));
  std::vector<std::uint64_t> tables;
  tables.push_back(append(area, base, buildFadt(platform, facs, dsdt)));
  std::size_t fadt = tables[0] - base;
  image.pointers = {{kRsdpXsdt, 8}, {fadt + kFadtFacs, 4}, {fadt + kFadtDsdt, 4}, {fadt + kFadtXDsdt, 8}};
  image.checksums = {{fadt + kTableChecksum, fadt, area.size() - fadt}};
  tables.push_back(append(area, base, buildMadt(platform)));
  if (platform.ecamBase != 0) tables.push_back(append(area, base, buildMcfg(platform)));
  if (platform.hpet) tables.push_back(append(area, base, buildHpet(platform)));
  ByteWriter entries;
  for (std::uint64_t table : tables) entries.u64(table);
  std::uint64_t xsdt = append(area, base, finishAcpiTable("XSDT", 1, entries.view()));
  std::size_t list = xsdt - base;
  for (std::size_t n = 0; n < tables.size(); ++n) image.pointers.push_back({list + kAcpiHeaderBytes + 8 * n, 8});
  image.checksums.push_back({list + kTableChecksum, list, area.size() - list});
  image.bytes = area.take();
  std::ranges::copy(buildRsdp(xsdt), image.bytes.begin());
  image.checksums.push_back({kRsdpChecksum, 0, kRsdpFirstPart});
  image.checksums.push_back({kRsdpExtendedChecksum, 0, AcpiImage::kRsdpBytes});
  return image;
}

std::vector<std::uint8_t> buildAcpi(const PlatformDescription& platform, std::uint64_t base) {
  return buildAcpiImage(platform, base).bytes;
}

}  // namespace lodge::firmware
