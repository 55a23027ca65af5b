// SPDX-License-Identifier: Apache-2.0
// Rows of AVX-512: EVEX instructions and those on mask registers (SDM vol. 2). FP16, which has maps of its own, is not
// offered. Internal, see opcode_row.h.
#pragma once

#include "x86/opcode_row.h"
#include "x86/opcode_rows_evex_0f.h"
#include "x86/opcode_rows_evex_0f38.h"
#include "x86/opcode_rows_evex_0f3a.h"

namespace lodge::x86::table {

/// VEX-encoded instruction on mask registers.
constexpr Row maskRow(unsigned map, unsigned opcode, unsigned pp, unsigned w, unsigned l, const char* name,
                      std::string_view operands) {
  Row r = row(map, opcode, Op::native, name, operands).pp(static_cast<std::uint8_t>(pp)).w(w).l(l);
  r.encoding = Encoding::vex;
  return r.ft(Feature::avx512).cls(OpClass::native).attr(attribute::avx512);
}

/// B, W, D and Q forms of one opcode; the prefix and W say which.
struct MaskNames {
  unsigned opcode;
  unsigned l;
  std::string_view operands;
  const char* b;
  const char* w;
  const char* d;
  const char* q;
};

constexpr void addMaskLogic(RowList& t) {
  constexpr MaskNames kNames[] = {{0x41, 1, "=k h u", "kandb", "kandw", "kandd", "kandq"},
                                  {0x42, 1, "=k h u", "kandnb", "kandnw", "kandnd", "kandnq"},
                                  {0x44, 0, "=k u", "knotb", "knotw", "knotd", "knotq"},
                                  {0x45, 1, "=k h u", "korb", "korw", "kord", "korq"},
                                  {0x46, 1, "=k h u", "kxnorb", "kxnorw", "kxnord", "kxnorq"},
                                  {0x47, 1, "=k h u", "kxorb", "kxorw", "kxord", "kxorq"},
                                  {0x4a, 1, "=k h u", "kaddb", "kaddw", "kaddd", "kaddq"},
                                  {0x98, 0, "k u", "kortestb", "kortestw", "kortestd", "kortestq"},
                                  {0x99, 0, "k u", "ktestb", "ktestw", "ktestd", "ktestq"}};
  for (const MaskNames& n : kNames) {
    bool tests = n.opcode >= 0x98;
    auto add = [&](unsigned pp, unsigned w, const char* name) {
      Row r = maskRow(1, n.opcode, pp, w, n.l, name, n.operands);
      t.add(tests ? r.f(0, fAll) : r);
    };
    add(p66, 0, n.b);
    add(np, 0, n.w);
    add(p66, 1, n.d);
    add(np, 1, n.q);
  }
  t.add(maskRow(1, 0x4b, p66, 0, 1, "kunpckbw", "=k h u"));
  t.add(maskRow(1, 0x4b, np, 0, 1, "kunpckwd", "=k h u"));
  t.add(maskRow(1, 0x4b, np, 1, 1, "kunpckdq", "=k h u"));
  t.add(maskRow(3, 0x30, p66, 0, 0, "kshiftrb", "=k u Ib"));
  t.add(maskRow(3, 0x30, p66, 1, 0, "kshiftrw", "=k u Ib"));
  t.add(maskRow(3, 0x31, p66, 0, 0, "kshiftrd", "=k u Ib"));
  t.add(maskRow(3, 0x31, p66, 1, 0, "kshiftrq", "=k u Ib"));
  t.add(maskRow(3, 0x32, p66, 0, 0, "kshiftlb", "=k u Ib"));
  t.add(maskRow(3, 0x32, p66, 1, 0, "kshiftlw", "=k u Ib"));
  t.add(maskRow(3, 0x33, p66, 0, 0, "kshiftld", "=k u Ib"));
  t.add(maskRow(3, 0x33, p66, 1, 0, "kshiftlq", "=k u Ib"));
}

constexpr void addMaskMoves(RowList& t) {
  t.add(maskRow(1, 0x90, p66, 0, 0, "kmovb", "=k mb"));
  t.add(maskRow(1, 0x90, np, 0, 0, "kmovw", "=k mw"));
  t.add(maskRow(1, 0x90, p66, 1, 0, "kmovd", "=k md"));
  t.add(maskRow(1, 0x90, np, 1, 0, "kmovq", "=k mq"));
  t.add(maskRow(1, 0x91, p66, 0, 0, "kmovb", "=Mb k"));
  t.add(maskRow(1, 0x91, np, 0, 0, "kmovw", "=Mw k"));
  t.add(maskRow(1, 0x91, p66, 1, 0, "kmovd", "=Md k"));
  t.add(maskRow(1, 0x91, np, 1, 0, "kmovq", "=Mq k"));
  t.add(maskRow(1, 0x92, p66, 0, 0, "kmovb", "=k Rd"));
  t.add(maskRow(1, 0x92, np, 0, 0, "kmovw", "=k Rd"));
  t.add(maskRow(1, 0x92, pF2, 0, 0, "kmovd", "=k Rd"));
  t.add(maskRow(1, 0x92, pF2, 1, 0, "kmovq", "=k Rq").in64());
  t.add(maskRow(1, 0x92, pF2, 1, 0, "kmovd", "=k Rd").notIn64());
  t.add(maskRow(1, 0x93, pF2, 1, 0, "kmovd", "=Gd u").notIn64());
  t.add(maskRow(1, 0x93, p66, 0, 0, "kmovb", "=Gd u"));
  t.add(maskRow(1, 0x93, np, 0, 0, "kmovw", "=Gd u"));
  t.add(maskRow(1, 0x93, pF2, 0, 0, "kmovd", "=Gd u"));
  t.add(maskRow(1, 0x93, pF2, 1, 0, "kmovq", "=Gq u").in64());
}

constexpr void addEvexRows(RowList& t) {
  for (const EvexLine& line : kEvex0f) {
    bool compares = line.opcode == 0x2e || line.opcode == 0x2f;
    Row r = evexRow(1, line);
    t.add(compares ? r.f(0, fAll) : r);
  }
  for (const EvexLine& line : kEvex0f38) t.add(evexRow(2, line));
  for (const EvexLine& line : kEvex0f3a) t.add(evexRow(3, line));
  addMaskLogic(t);
  addMaskMoves(t);
}

}  // namespace lodge::x86::table
