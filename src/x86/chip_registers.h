// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

namespace lodge::x86 {

// The interrupt controllers and the timer that a PC has beside its local APICs, while all CPUs stand still: what boards
// and engines that keep these chips themselves hand to each other, and what is saved of them.

/// One 8259A (Intel 8259A data sheet) with its edge/level control register.
struct PicRegisters {
  std::uint8_t irr = 0, imr = 0, isr = 0, levels = 0, elcr = 0;  ///< levels: of its inputs
  std::uint8_t vectorBase = 0;
  std::uint8_t lowestPriority = 7;
  std::uint8_t initializing = 0;  ///< which ICW the data port expects next (2..4), 0 for none
  bool initialized = false, needIcw4 = false, single = false, levelMode = false;
  bool readIsr = false, poll = false, specialMask = false, specialFullyNested = false;
  bool autoEoi = false, rotateOnAutoEoi = false;
};

/// An I/O APIC (82093AA data sheet) of 24 pins; `levels`: a bit a pin.
struct IoApicRegisters {
  static constexpr unsigned kPins = 24;
  std::uint32_t select, id, levels;
  std::array<std::uint64_t, kPins> entries;  ///< the redirection table
};

/// One counter of an 8254 (Intel 82C54 data sheet). Times are ticks of its clock since the machine's start.
struct PitCounter {
  std::uint8_t access = 3, mode = 0;  ///< of the control word; access: 1 low, 2 high, 3 both bytes
  bool bcd = false, gate = true;
  bool loaded = false;    ///< a whole count was written since the control word
  bool counting = false;  ///< time passes for it (gate, trigger)
  bool highByteNext = false, readHighNext = false;
  std::uint8_t lowByte = 0;
  std::uint8_t latchedBytes = 0;  ///< that are still to be read
  std::uint16_t latched = 0;
  bool statusLatched = false;
  std::uint8_t status = 0;
  std::uint32_t count = 0x10000;  ///< 1..0x10000 (10000 in BCD)
  std::uint32_t nextCount = 0;    ///< for the next period or trigger; 0 for none
  std::uint64_t elapsed = 0;      ///< what was counted before `since`
  std::uint64_t since = 0;        ///< when counting began or went on; 0 if nothing was ever written
};

/// The 8254 with system control port B, port 0x61.
struct PitRegisters {
  std::array<PitCounter, 3> channels;
  std::uint8_t control = 0;   ///< of port 0x61, the bits that are kept
  std::uint64_t savedAt = 0;  ///< the tick that counters' times are compared with
};

/// All of them. `pitIsSilent`: the HPET has IRQ 0 in its place.
struct ChipRegisters {
  std::array<PicRegisters, 2> pic{};
  IoApicRegisters ioApic{};
  PitRegisters pit{};
  bool pitIsSilent = false;
};

}  // namespace lodge::x86
