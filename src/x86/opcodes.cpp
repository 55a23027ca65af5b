// SPDX-License-Identifier: Apache-2.0
// Builds the lookup tables at compile time. Two rows that claim one encoding end the build.
#include <algorithm>
#include <array>

#include "x86/opcode_rows_evex.h"
#include "x86/opcode_rows_integer.h"
#include "x86/opcode_rows_system.h"
#include "x86/opcode_rows_vector.h"
#include "x86/opcode_rows_x87.h"
#include "x86/opcode_table.h"

namespace lodge::x86::table {
namespace {

consteval RowList makeRows() {
  RowList list;
  addIntegerRows(list);
  addSystemRows(list);
  addStateRows(list);
  addHintRows(list);
  addX87Rows(list);
  addVectorRows(list);
  addEvexRows(list);
  return list;
}

constexpr RowList kRows = makeRows();

consteval unsigned mapOf(const Row& row) {
  return row.encoding == Encoding::vex ? row.map + 3u : row.encoding == Encoding::evex ? row.map + 6u : row.map;
}

consteval std::uint8_t dimensionsOf(const Row& row) {
  std::uint8_t d = 0;
  if (row.prefixes != anyPrefix) d |= dimension::prefix;
  if (row.mods != 3) d |= dimension::mod;
  if (row.regs != 0xff) d |= dimension::reg;
  if (row.rms != 0xff) d |= dimension::rm;
  if (row.modes != 3) d |= dimension::mode;
  if (row.ws != 3) d |= dimension::w;
  if (row.ls != 7) d |= dimension::l;
  if (row.bs != 3) d |= dimension::b;
  return d;
}

consteval unsigned leafCount(std::uint8_t d) {
  unsigned count = 1;
  if (d & dimension::prefix) count *= 4;
  if (d & dimension::reg) count *= 8;
  if (d & dimension::rm) count *= 8;
  if (d & dimension::l) count *= 3;
  for (std::uint8_t two : {dimension::mod, dimension::mode, dimension::w, dimension::b}) {
    if (d & two) count *= 2;
  }
  return count;
}

struct Slots {
  Slot slot[kMaps][256];
  unsigned leaves = 1;
};

consteval Slots makeSlots() {
  Slots s{};
  for (std::size_t i = 0; i < kRows.count; ++i) {
    const Row& row = kRows.rows[i];
    for (unsigned n = 0; n < row.opcodeCount; ++n) {
      Slot& slot = s.slot[mapOf(row)][row.opcode + n];
      slot.dimensions |= dimensionsOf(row);
      if (row.modrm) slot.modrm = true;
    }
  }
  for (std::size_t i = 0; i < kRows.count; ++i) {
    const Row& row = kRows.rows[i];
    for (unsigned n = 0; n < row.opcodeCount; ++n) {
      Slot& slot = s.slot[mapOf(row)][row.opcode + n];
      if (slot.base != 0) continue;
      slot.base = static_cast<std::uint16_t>(s.leaves);
      s.leaves += leafCount(slot.dimensions);
    }
  }
  if (s.leaves > kMaxLeaves) tableError("too many leaves");
  return s;
}

constexpr Slots kBuiltSlots = makeSlots();

using Leaves = std::array<std::uint16_t, kMaxLeaves>;

/// The values that one dimension takes for this row: all of the set if the slot looks at it, else one for the rest.
struct Values {
  std::uint8_t value[8]{};
  unsigned count = 0;
};
consteval Values valuesOf(bool looked, std::uint8_t set, unsigned size) {
  Values v;
  for (unsigned i = 0; i < size; ++i) {
    if (looked && ((set >> i) & 1)) v.value[v.count++] = static_cast<std::uint8_t>(i);
  }
  if (!looked) v.count = 1;
  return v;
}

consteval void fill(Leaves& leaves, const Row& row, const Slot& slot, std::uint16_t number) {
  std::uint8_t d = slot.dimensions;
  Values prefix = valuesOf(d & dimension::prefix, row.prefixes, 4), mod = valuesOf(d & dimension::mod, row.mods, 2);
  Values reg = valuesOf(d & dimension::reg, row.regs, 8), rm = valuesOf(d & dimension::rm, row.rms, 8);
  Values mode = valuesOf(d & dimension::mode, row.modes, 2), w = valuesOf(d & dimension::w, row.ws, 2);
  Values l = valuesOf(d & dimension::l, row.ls, 3), b = valuesOf(d & dimension::b, row.bs, 2);
  unsigned total = prefix.count * mod.count * reg.count * rm.count * mode.count * w.count * l.count * b.count;
  for (unsigned i = 0; i < total; ++i) {
    unsigned rest = i;
    auto pick = [&](const Values& v) {
      std::uint8_t value = v.value[rest % v.count];
      rest /= v.count;
      return value;
    };
    Selector s{};
    s.prefix = pick(prefix);
    s.mod = pick(mod);
    s.reg = pick(reg);
    s.rm = pick(rm);
    s.mode = pick(mode);
    s.w = pick(w);
    s.l = pick(l);
    s.b = pick(b);
    std::uint16_t& leaf = leaves[leafIndex(slot, s)];
    if (leaf != 0) tableError("two rows for one encoding");
    leaf = number;
  }
}

consteval Leaves makeLeaves() {
  Leaves leaves{};
  for (std::size_t i = 0; i < kRows.count; ++i) {
    const Row& row = kRows.rows[i];
    for (unsigned n = 0; n < row.opcodeCount; ++n) {
      const Slot& slot = kBuiltSlots.slot[mapOf(row)][row.opcode + n];
      if (slot.modrm != row.modrm && !(slot.dimensions & dimension::mode))
        tableError("one opcode with and without ModRM");
      fill(leaves, row, slot, static_cast<std::uint16_t>(i + 1));
    }
  }
  return leaves;
}

consteval std::uint8_t factsOf(const Row& row) {
  std::uint8_t facts = 0;
  if (row.usesVvvv) facts |= fact::usesVvvv;
  if ((row.prefixes & (np | p66)) == p66) facts |= fact::mandatory66;
  if (row.sizedByW) facts |= fact::sizedByW;
  if (row.regIsMask) facts |= fact::regIsMask;
  if (row.vvvvIsMask) facts |= fact::vvvvIsMask;
  if (row.rmIsMask) facts |= fact::rmIsMask;
  if (row.needsMask) facts |= fact::needsMask;
  return facts;
}

consteval Tables makeTables() {
  Tables tables{};
  for (unsigned map = 0; map < kMaps; ++map) {
    for (unsigned i = 0; i < 256; ++i) tables.slots[map][i] = kBuiltSlots.slot[map][i];
  }
  Leaves leaves = makeLeaves();
  for (unsigned i = 0; i < kBuiltSlots.leaves; ++i) tables.leaves[i] = leaves[i];
  for (std::size_t i = 0; i < kRows.count; ++i) {
    tables.infos[i + 1] = kRows.rows[i].info;
    tables.facts[i + 1] = factsOf(kRows.rows[i]);
  }
  return tables;
}

}  // namespace

constinit const Tables kTables = makeTables();

std::span<const Row> rows() {
  return {kRows.rows.data(), kRows.count};
}

}  // namespace lodge::x86::table
