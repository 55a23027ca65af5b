// SPDX-License-Identifier: Apache-2.0
// From encodings to rows, by direct lookup. Built by the compiler out of opcode_rows_*.h (see opcodes.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "x86/opcode_row.h"
#include "x86/opcodes.h"

namespace lodge::x86::table {

/// What selects among the rows of one opcode, beyond the opcode. Order of significance: the last varies fastest.
namespace dimension {
inline constexpr std::uint8_t prefix = 1, mod = 2, reg = 4, rm = 8, mode = 16, w = 32, l = 64, b = 128;
}

/// One opcode of one map.
struct Slot {
  std::uint16_t base = 0;       ///< first index into Tables::leaves
  std::uint8_t dimensions = 0;  ///< which ones index from there
  bool modrm = false;
};

/// The row an encoding selects, with what only the decoder asks.
namespace fact {
inline constexpr std::uint8_t usesVvvv = 1, mandatory66 = 2, sizedByW = 4, regIsMask = 8, vvvvIsMask = 16,
                              needsMask = 32, rmIsMask = 64;
}

inline constexpr unsigned kMaps = 10;  ///< legacy one-byte, 0F, 0F38, 0F3A; VEX 0F, 0F38, 0F3A; EVEX the same

/// Values of all dimensions for one instruction.
struct Selector {
  std::uint8_t prefix, mod, reg, rm, mode, w, l, b;  ///< mod: 0 memory, 1 register
};

constexpr unsigned leafIndex(const Slot& slot, const Selector& s) {
  unsigned index = 0;
  std::uint8_t d = slot.dimensions;
  if (d & dimension::prefix) index = s.prefix;
  if (d & dimension::mod) index = index * 2 + s.mod;
  if (d & dimension::reg) index = index * 8 + s.reg;
  if (d & dimension::rm) index = index * 8 + s.rm;
  if (d & dimension::mode) index = index * 2 + s.mode;
  if (d & dimension::w) index = index * 2 + s.w;
  if (d & dimension::l) index = index * 3 + s.l;
  if (d & dimension::b) index = index * 2 + s.b;
  return slot.base + index;
}

inline constexpr unsigned kMaxRows = 2601;
inline constexpr unsigned kMaxLeaves = 24576;

struct Tables {
  Slot slots[kMaps][256];
  std::uint16_t leaves[kMaxLeaves];  ///< row numbers; 0: no such instruction
  OpcodeInfo infos[kMaxRows];        ///< by row number; 0 unused
  std::uint8_t facts[kMaxRows];
};
extern const Tables kTables;

/// All rows, for tests, generators and reports. The info that a decode returns is &kTables.infos[i + 1] for rows()[i].
std::span<const Row> rows();

}  // namespace lodge::x86::table
