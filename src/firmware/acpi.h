// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "firmware/byte_writer.h"
#include "firmware/platform.h"

namespace lodge::firmware {

/// Whether ACPI and the memory map can describe the platform: CPU and bus counts, windows outside RAM, ports and GSIs
/// in range. Errors: invalidArgument. The board calls it through installTables(); a failure is a mistake in the board,
/// not the user's.
Status checkPlatform(const PlatformDescription& platform);

/// ACPI tables that still have to be put into place: `bytes` begins with the RSDP (kRsdpBytes), the other tables follow
/// from kTablesOffset on.
struct AcpiImage {
  static constexpr std::size_t kRsdpBytes = 36, kTablesOffset = 64;
  struct Pointer {
    std::size_t offset;  ///< in `bytes`
    unsigned size;       ///< 4 or 8 bytes
  };
  struct Checksum {
    std::size_t offset, start, length;  ///< the byte, and what it makes zero the sum of
  };
  std::vector<std::uint8_t> bytes;
  std::vector<Pointer> pointers;
  std::vector<Checksum> checksums;  ///< of what holds pointers
};
/// The tables for guest-physical address `base`, and where they refer to it.
AcpiImage buildAcpiImage(const PlatformDescription& platform, std::uint64_t base);

/// All ACPI tables (ACPI 6.0, chapter 5) as one area for guest-physical address `base`, a multiple of 64: the RSDP
/// first, then XSDT, FADT, FACS, DSDT, MADT, MCFG and, if the platform has one, HPET.
std::vector<std::uint8_t> buildAcpi(const PlatformDescription& platform, std::uint64_t base);

/// A table as it lies in memory: header with length and checksum, and `body`.
std::vector<std::uint8_t> finishAcpiTable(std::string_view signature, std::uint8_t revision,
                                          std::span<const std::uint8_t> body);
/// The DSDT's AML, without the header.
std::vector<std::uint8_t> buildDsdtBody(const PlatformDescription& platform);

inline constexpr std::size_t kAcpiHeaderBytes = 36;

}  // namespace lodge::firmware
