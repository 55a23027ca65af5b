// SPDX-License-Identifier: Apache-2.0
// Rows of the x87 instructions (SDM vol. 2, appendix A.5, tables ). Internal, see opcode_row.h.
#pragma once

#include "x86/opcode_row.h"

namespace lodge::x86::table {

constexpr Row x87Row(unsigned opcode, unsigned reg, const char* name, std::string_view operands) {
  return row0(opcode, Op::native, name, operands).reg(reg).cls(OpClass::native).attr(attribute::x87);
}

constexpr void addX87Memory(RowList& t) {
  constexpr const char* kArithmetic[] = {"fadd", "fmul", "fcom", "fcomp", "fsub", "fsubr", "fdiv", "fdivr"};
  constexpr const char* kInteger[] = {"fiadd", "fimul", "ficom", "ficomp", "fisub", "fisubr", "fidiv", "fidivr"};
  for (unsigned i = 0; i < 8; ++i) {
    t.add(x87Row(0xd8, i, kArithmetic[i], "Md"));
    t.add(x87Row(0xdc, i, kArithmetic[i], "Mq"));
    t.add(x87Row(0xda, i, kInteger[i], "Md"));
    t.add(x87Row(0xde, i, kInteger[i], "Mw"));
  }
  struct Entry {
    unsigned opcode, reg;
    const char* name;
    std::string_view operands;
  };
  constexpr Entry kEntries[] = {{0xd9, 0, "fld", "Md"},      {0xd9, 2, "fst", "=Md"},    {0xd9, 3, "fstp", "=Md"},
                                {0xd9, 4, "fldenv", "Menv"}, {0xd9, 5, "fldcw", "Mw"},   {0xd9, 6, "fnstenv", "=Menv"},
                                {0xd9, 7, "fnstcw", "=Mw"},  {0xdb, 0, "fild", "Md"},    {0xdb, 1, "fisttp", "=Md"},
                                {0xdb, 2, "fist", "=Md"},    {0xdb, 3, "fistp", "=Md"},  {0xdb, 5, "fld", "Mt"},
                                {0xdb, 7, "fstp", "=Mt"},    {0xdd, 0, "fld", "Mq"},     {0xdd, 1, "fisttp", "=Mq"},
                                {0xdd, 2, "fst", "=Mq"},     {0xdd, 3, "fstp", "=Mq"},   {0xdd, 4, "frstor", "Mst"},
                                {0xdd, 6, "fnsave", "=Mst"}, {0xdd, 7, "fnstsw", "=Mw"}, {0xdf, 0, "fild", "Mw"},
                                {0xdf, 1, "fisttp", "=Mw"},  {0xdf, 2, "fist", "=Mw"},   {0xdf, 3, "fistp", "=Mw"},
                                {0xdf, 4, "fbld", "Mt"},     {0xdf, 5, "fild", "Mq"},    {0xdf, 6, "fbstp", "=Mt"},
                                {0xdf, 7, "fistp", "=Mq"}};
  for (const Entry& e : kEntries) {
    Row r = x87Row(e.opcode, e.reg, e.name, e.operands);
    t.add(e.reg == 1 ? r.ft(Feature::sse3) : r);  // FISTTP
  }
}

constexpr void addX87Registers(RowList& t) {
  constexpr const char* kD8[] = {"fadd", "fmul", "fcom", "fcomp", "fsub", "fsubr", "fdiv", "fdivr"};
  // With st(i) as the destination, SUB and SUBR, DIV and DIVR change places.
  constexpr const char* kDc[] = {"fadd", "fmul", "fcom", "fcomp", "fsubr", "fsub", "fdivr", "fdiv"};
  constexpr const char* kDe[] = {"faddp", "fmulp", "fcomp", nullptr, "fsubrp", "fsubp", "fdivrp", "fdivp"};
  for (unsigned i = 0; i < 8; ++i) {
    t.add(x87Row(0xd8, i, kD8[i], "F"));
    t.add(x87Row(0xdc, i, kDc[i], "F"));
    if (kDe[i]) t.add(x87Row(0xde, i, kDe[i], "F"));
  }
  t.add(x87Row(0xde, 3, "fcompp", "F").rm(1));
  t.add(x87Row(0xd9, 0, "fld", "F"));
  t.add(x87Row(0xd9, 1, "fxch", "F"));
  t.add(x87Row(0xd9, 2, "fnop", "F").rm(0));
  t.add(x87Row(0xd9, 3, "fstp", "F"));  // undocumented alias (fstpnce)
  constexpr const char* kD9[4][8] = {{"fchs", "fabs", nullptr, nullptr, "ftst", "fxam", nullptr, nullptr},
                                     {"fld1", "fldl2t", "fldl2e", "fldpi", "fldlg2", "fldln2", "fldz", nullptr},
                                     {"f2xm1", "fyl2x", "fptan", "fpatan", "fxtract", "fprem1", "fdecstp", "fincstp"},
                                     {"fprem", "fyl2xp1", "fsqrt", "fsincos", "frndint", "fscale", "fsin", "fcos"}};
  for (unsigned g = 0; g < 4; ++g) {
    for (unsigned i = 0; i < 8; ++i) {
      if (kD9[g][i]) t.add(x87Row(0xd9, 4 + g, kD9[g][i], "F").rm(i));
    }
  }
  constexpr const char* kCmov[2][4] = {{"fcmovb", "fcmove", "fcmovbe", "fcmovu"},
                                       {"fcmovnb", "fcmovne", "fcmovnbe", "fcmovnu"}};
  constexpr std::uint32_t kCmovFlags[] = {fC, fZ, fC | fZ, fP};
  for (unsigned n = 0; n < 2; ++n) {
    for (unsigned i = 0; i < 4; ++i) t.add(x87Row(0xda + n, i, kCmov[n][i], "F").f(kCmovFlags[i], 0).ft(Feature::cmov));
  }
  t.add(x87Row(0xda, 5, "fucompp", "F").rm(1));
  t.add(x87Row(0xdb, 4, "fneni", "F").rm(0));  // FENI and FDISI: no operation since the 387
  t.add(x87Row(0xdb, 4, "fndisi", "F").rm(1));
  t.add(x87Row(0xdb, 4, "fnclex", "F").rm(2));
  t.add(x87Row(0xdb, 4, "fninit", "F").rm(3));
  t.add(x87Row(0xdb, 4, "fnsetpm", "F").rm(4));  // no operation since the 387
  // The comparisons set ZF, PF, CF; the other three are cleared by Intel's processors and by newer AMD ones.
  auto compare = [&](unsigned opcode, unsigned reg, const char* name) {
    t.add(x87Row(opcode, reg, name, "F").f(fO | fS | fA, fZ | fP | fC).ft(Feature::cmov));
  };
  compare(0xdb, 5, "fucomi");
  compare(0xdb, 6, "fcomi");
  compare(0xdf, 5, "fucomip");
  compare(0xdf, 6, "fcomip");
  t.add(x87Row(0xdd, 0, "ffree", "F"));
  t.add(x87Row(0xdd, 1, "fxch", "F"));
  t.add(x87Row(0xdd, 2, "fst", "F"));
  t.add(x87Row(0xdd, 3, "fstp", "F"));
  t.add(x87Row(0xdd, 4, "fucom", "F"));
  t.add(x87Row(0xdd, 5, "fucomp", "F"));
  t.add(x87Row(0xdf, 0, "ffreep", "F"));
  t.add(x87Row(0xdf, 1, "fxch", "F"));
  t.add(x87Row(0xdf, 2, "fstp", "F"));
  t.add(x87Row(0xdf, 3, "fstp", "F"));
  t.add(x87Row(0xdf, 4, "fnstsw", "=Rw").rm(0));  // to AX
}

constexpr void addX87Rows(RowList& t) {
  addX87Memory(t);
  addX87Registers(t);
}

}  // namespace lodge::x86::table
