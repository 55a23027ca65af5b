// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/units.h"

namespace lodge::firmware {

/// A 16550-style serial port at I/O ports [port, port + 8).
struct SerialPortDescription {
  std::uint16_t port;
  unsigned gsi;
};

/// Where PCI interrupts go while an operating system uses the 8259As: pin p of device d is link (d + p + offset) % 4,
/// and a bridge has a route register for each link (PIRQA and on), from `registers` on in its configuration space.
struct PciLinksDescription {
  unsigned device, function, offset;
  std::uint8_t registers;
  std::uint16_t irqs;  ///< a bit for each ISA interrupt that may be chosen
};

/// What a board is made of, as far as firmware tells the guest: the board fills it in once, and memory map, ACPI and
/// SMBIOS tables follow from it. Addresses are guest-physical, sizes in bytes; a GSI is a global system interrupt, the
/// I/O APIC's input number. RAM is GuestMemory's own business and not repeated here.
struct PlatformDescription {
  std::string machineName = "lodge";  ///< SMBIOS UUID and serial number follow from it
  unsigned cpus = 1;                  ///< 1..255; local APIC ids are 0..cpus-1
  unsigned physicalAddressBits = 40;  ///< for the MTRR masks that firmware leaves behind

  std::uint64_t localApicBase = 0xfee00000;
  std::uint64_t ioApicBase = 0xfec00000;
  std::uint8_t ioApicId = 0;
  bool pitOnGsi2 = true;              ///< ISA IRQ 0 arrives at GSI 2, as on every PC
  bool legacyPic = true;              ///< dual 8259s exist (MADT PCAT_COMPAT)
  std::optional<std::uint64_t> hpet;  ///< base of an HPET, if there is one
  std::uint32_t hpetId = 0x8086a201;  ///< bits 0..31 of its general capabilities register
  std::optional<std::uint16_t> pit = 0x40;

  std::uint64_t ecamBase = 0xe0000000;  ///< 0: none
  unsigned pciBuses = 1;                ///< 1..256; ECAM takes 1 MiB for each
  std::uint64_t window32Base = 0xc0000000, window32Size = 0x20000000;
  std::uint64_t window64Base = 0, window64Size = 0;  ///< no 64-bit window if the size is 0
  /// INTA..INTD after swizzling: pin p (0..3) of device d arrives at pciGsi[(d + p) % 4], level-triggered, active low.
  std::array<unsigned, 4> pciGsi{16, 17, 18, 19};

  std::optional<PciLinksDescription> pciLinks;

  // ACPI fixed hardware (ACPI 6.0, 4.8.3), always in ACPI mode: PM1 control must read SCI_EN as 1.
  std::uint16_t pm1aEvent = 0x600;    ///< 4 bytes: status, enable
  std::uint16_t pm1aControl = 0x604;  ///< 2 bytes
  std::uint16_t pmTimer = 0x608;      ///< 4 bytes, 32-bit counter
  std::uint16_t gpe0 = 0x620;
  std::uint8_t gpe0Length = 4;   ///< bytes, half status, half enable; 0: none
  unsigned sciGsi = 9;           ///< level-triggered, active high
  std::uint8_t s5SleepType = 5;  ///< SLP_TYP of soft-off
  std::uint16_t resetPort = 0xcf9;
  std::uint8_t resetValue = 6;

  std::vector<SerialPortDescription> serialPorts{{0x3f8, 4}, {0x2f8, 3}};
  std::optional<std::uint16_t> rtc = 0x70;  ///< MC146818, IRQ 8
  std::optional<std::uint16_t> pvpanic;     ///< I/O port
  std::optional<std::uint16_t> fwCfg;       ///< I/O port, 12 bytes
  bool keyboard = false;                    ///< an i8042 with keyboard and mouse at ports 0x60 and 0x64, IRQs 1 and 12
  bool vga = false;                         ///< a VGA-compatible display
  bool dma = false;                         ///< two 8237A DMA controllers at the PC's ports
  bool floppy = false;                      ///< a floppy controller at ports 0x3f0 to 0x3f7, IRQ 6, DMA channel 2
};

}  // namespace lodge::firmware
