// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/units.h"

/// Addresses, ports and interrupt numbers of the boards. The guest learns all of them from ACPI.
namespace lodge::layout {

// Guest-physical windows in the hole below 4 GiB.
inline constexpr std::uint64_t kPciWindow32Base = 0xc000'0000, kPciWindow32Size = 0x2000'0000;
inline constexpr std::uint64_t kEcamBase = 0xe000'0000, kEcamSize = 1_MiB;
inline constexpr std::uint64_t kIoApicBase = 0xfec0'0000;
inline constexpr std::uint64_t kHpetBase = 0xfed0'0000;  // of the pc boards
inline constexpr std::uint64_t kLocalApicBase = 0xfee0'0000;
inline constexpr std::uint64_t kTestWindowBase = 0xff00'0000;
// The 64-bit PCI window lies above RAM, where no guest of a usual size is in its way.
inline constexpr std::uint64_t kPciWindow64Size = 64_GiB;
inline constexpr std::uint64_t pciWindow64Base(std::uint64_t ramEnd) {
  return ramEnd <= 512_GiB ? 512_GiB : 2_TiB;
}

// The `pc` board: what its firmware takes for BARs. SeaBIOS begins at 2 or 3 GiB, OVMF at the end of RAM, from 2 GiB
// on.
inline constexpr std::uint64_t pcWindow32Base(std::uint64_t lowRam) {
  return lowRam <= 2_GiB ? 2_GiB : lowRam;
}
// Above 4 GiB: OVMF takes the eighth of the address space at its end, older ones the first 32 GiB behind RAM; SeaBIOS
// begins at 512 GiB.
inline constexpr std::uint64_t pcWindow64Base(std::uint64_t ramEnd) {
  return (ramEnd + 32_GiB - 1) / 32_GiB * 32_GiB;
}
// The Q35's RAM at 0 ends at 2 GiB at most, and all firmware puts PCI Express configuration space there.
inline constexpr std::uint64_t kQ35LowLimit = 2_GiB;
inline constexpr std::uint64_t kQ35EcamBase = 0xb000'0000;
inline constexpr unsigned kQ35Buses = 256;
inline constexpr std::uint64_t kPcWindow32End = kIoApicBase;
// As few address bits as RAM and a window of 32 GiB behind it need: OVMF's page tables, and the time that they take,
// follow from them.
inline constexpr unsigned pcAddressBits(std::uint64_t ramEnd) {
  unsigned bits = 36;
  while (pcWindow64Base(ramEnd) + 32_GiB > std::uint64_t{1} << bits) ++bits;
  return bits;
}
inline constexpr std::uint16_t kFirmwareDebugPort = 0x402;
inline constexpr unsigned kLpcSlot = 31, kPiixSlot = 1, kDisplaySlot = 2, kPcFirstFreeSlot = 3;

// Interrupt inputs of the I/O APIC (GSIs).
inline constexpr unsigned kPitGsi = 2, kCom2Gsi = 3, kCom1Gsi = 4, kRtcGsi = 8, kSciGsi = 9;
inline constexpr unsigned kPciGsiBase = 16;  ///< INTA..INTD: 16..19

// Ports.
inline constexpr std::uint16_t kPitPort = 0x40, kSpeakerPort = 0x61, kKeyboardDataPort = 0x60,
                               kKeyboardCommandPort = 0x64, kRtcPort = 0x70, kResetPort = 0xcf9, kFastA20Port = 0x92,
                               kCom1Port = 0x3f8, kCom2Port = 0x2f8, kAcpiPmPort = 0x600, kPvPanicPort = 0x505,
                               kFwCfgPort = 0x510;

}  // namespace lodge::layout
