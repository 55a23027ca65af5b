// SPDX-License-Identifier: Apache-2.0
// Rows of the general-purpose instructions (SDM vol. 2, appendix A, tables ). Internal, see
// opcode_row.h.
#pragma once

#include "x86/opcode_row.h"

namespace lodge::x86::table {

inline constexpr std::uint32_t kLogicWritten = fC | fP | fZ | fS | fO;

constexpr void addAluRows(RowList& t) {
  struct Alu {
    Op op;
    const char* name;
    std::uint32_t read, written, undefined;
    bool writes;
  };
  constexpr Alu kAlu[] = {{Op::add, "add", 0, fAll, 0, true},
                          {Op::or_, "or", 0, kLogicWritten, fA, true},
                          {Op::adc, "adc", fC, fAll, 0, true},
                          {Op::sbb, "sbb", fC, fAll, 0, true},
                          {Op::and_, "and", 0, kLogicWritten, fA, true},
                          {Op::sub, "sub", 0, fAll, 0, true},
                          {Op::xor_, "xor", 0, kLogicWritten, fA, true},
                          {Op::cmp, "cmp", 0, fAll, 0, false}};
  for (unsigned i = 0; i < 8; ++i) {
    const Alu& a = kAlu[i];
    unsigned base = i * 8;
    auto add = [&](unsigned opcode, std::string_view writing, std::string_view reading) {
      Row r = row0(opcode, a.op, a.name, a.writes ? writing : reading).f(a.read, a.written, a.undefined);
      bool rmDestination = r.info.form == Form::e_g || r.info.form == Form::e_i;
      return a.writes && rmDestination ? r.lock() : r;
    };
    t.add(add(base + 0, "+Eb Gb", "Eb Gb"));
    t.add(add(base + 1, "+Ev Gv", "Ev Gv"));
    t.add(add(base + 2, "+Gb Eb", "Gb Eb"));
    t.add(add(base + 3, "+Gv Ev", "Gv Ev"));
    t.add(add(base + 4, "+Ab Is", "Ab Is"));
    t.add(add(base + 5, "+Av Iz", "Av Iz"));
    t.add(add(0x80, "+Eb Is", "Eb Is").reg(i));
    t.add(add(0x81, "+Ev Iz", "Ev Iz").reg(i));
    t.add(add(0x82, "+Eb Is", "Eb Is").reg(i).not64());
    t.add(add(0x83, "+Ev Is", "Ev Is").reg(i));
  }
}

constexpr void addShiftRows(RowList& t) {
  struct Shift {
    Op op;
    const char* name;
    bool rotate;
    bool carryIn;
  };
  constexpr Shift kShifts[] = {{Op::rol, "rol", true, false},  {Op::ror, "ror", true, false},
                               {Op::rcl, "rcl", true, true},   {Op::rcr, "rcr", true, true},
                               {Op::shl, "shl", false, false}, {Op::shr, "shr", false, false},
                               {Op::shl, "shl", false, false}, {Op::sar, "sar", false, false}};
  for (unsigned i = 0; i < 8; ++i) {
    const Shift& s = kShifts[i];
    // OF is defined for a count of 1 only; a count of 0 leaves all flags alone.
    std::uint32_t written = s.rotate ? fC : fC | fP | fZ | fS;
    std::uint32_t undefined = s.rotate ? fO : fO | fA;
    std::uint32_t kept = s.rotate ? fC | fO : fAll;
    auto add = [&](unsigned opcode, std::string_view operands) {
      t.add(row0(opcode, s.op, s.name, operands).reg(i).f(kept, written, undefined));
    };
    auto addByOne = [&](unsigned opcode, std::string_view operands) {
      t.add(row0(opcode, s.op, s.name, operands).reg(i).f(s.carryIn ? fC : 0, written | fO, undefined & ~fO));
    };
    add(0xc0, "+Eb Ib");
    add(0xc1, "+Ev Ib");
    addByOne(0xd0, "+Eb 1");
    addByOne(0xd1, "+Ev 1");
    add(0xd2, "+Eb C");
    add(0xd3, "+Ev C");
  }
  for (unsigned right = 0; right < 2; ++right) {
    Op op = right ? Op::shrd : Op::shld;
    const char* name = right ? "shrd" : "shld";
    t.add(row1(0xa4 + 8 * right, op, name, "+Ev Gv Ib").f(fAll, fC | fP | fZ | fS, fO | fA));
    t.add(row1(0xa5 + 8 * right, op, name, "+Ev Gv C").f(fAll, fC | fP | fZ | fS, fO | fA));
  }
}

constexpr void addMoveRows(RowList& t) {
  t.add(row0(0x88, Op::mov, "mov", "=Eb Gb"));
  t.add(row0(0x89, Op::mov, "mov", "=Ev Gv"));
  t.add(row0(0x8a, Op::mov, "mov", "=Gb Eb"));
  t.add(row0(0x8b, Op::mov, "mov", "=Gv Ev"));
  t.add(row0(0x8c, Op::movsreg_from, "mov", "=Ev Sw").regSet(0x3f).size(2).cls(OpClass::system));
  t.add(row0(0x8d, Op::lea, "lea", "=Gv M"));
  t.add(row0(0x8e, Op::movsreg_to, "mov", "=Sw Ew").regSet(0x3d).cls(OpClass::system));
  t.add(row0(0xa0, Op::mov, "mov", "=Ab Ob"));
  t.add(row0(0xa1, Op::mov, "mov", "=Av Ov"));
  t.add(row0(0xa2, Op::mov, "mov", "=Ob Ab"));
  t.add(row0(0xa3, Op::mov, "mov", "=Ov Av"));
  t.add(row0(0xb0, Op::mov, "mov", "=Zb Is"));
  t.add(row0(0xb8, Op::mov, "mov", "=Zv Iv"));
  t.add(row0(0xc6, Op::mov, "mov", "=Eb Is").reg(0));
  t.add(row0(0xc7, Op::mov, "mov", "=Ev Iz").reg(0));
  // With 66 too a doubleword is read (APM and silicon; the SDM says a word).
  t.add(row0(0x63, Op::movsxd, "movsxd", "=Gv Ed").only64());
  t.add(row1(0xb6, Op::movzx, "movzx", "=Gv Eb"));
  t.add(row1(0xb7, Op::movzx, "movzx", "=Gv Ew"));
  t.add(row1(0xbe, Op::movsx, "movsx", "=Gv Eb"));
  t.add(row1(0xbf, Op::movsx, "movsx", "=Gv Ew"));
  t.add(row1(0xc3, Op::movnti, "movnti", "=My Gy").pp(np).ft(Feature::sse2));
  t.add(row(2, 0xf0, Op::movbe, "movbe", "=Gv Mv").pp(np66).ft(Feature::movbe));
  t.add(row(2, 0xf1, Op::movbe, "movbe", "=Mv Gv").pp(np66).ft(Feature::movbe));
  t.add(row0(0x86, Op::xchg, "xchg", "+Eb +Gb").lock());
  t.add(row0(0x87, Op::xchg, "xchg", "+Ev +Gv").lock());
  // 90 without REX.B is NOP, and PAUSE with F3; the other seven are plain exchanges.
  t.add(row0(0x90, Op::nop, "nop").pp(np | p66 | pF2).rexB(0));
  t.add(row0(0x90, Op::pause, "pause").pp(pF3).rexB(0));
  Row exchange = row0(0x90, Op::xchg, "xchg", "+Av +Zv");
  exchange.opcodeCount = 1;
  t.add(exchange.rexB(1));
  for (unsigned i = 1; i < 8; ++i) {
    exchange.opcode = static_cast<std::uint8_t>(0x90 + i);
    t.add(exchange);
  }
  t.add(row1(0xc8, Op::bswap, "bswap", "+Zv"));
  t.add(row0(0x98, Op::cbw, "cbw"));
  t.add(row0(0x99, Op::cwd, "cwd"));
  t.add(row0(0xd7, Op::xlat, "xlat").attr(attribute::byteForm));
  t.add(row0(0x9e, Op::sahf, "sahf").f(0, fC | fP | fA | fZ | fS));
  t.add(row0(0x9f, Op::lahf, "lahf").f(fC | fP | fA | fZ | fS, 0));
  t.add(row0(0xd6, Op::salc, "salc").not64().f(fC, 0));
  t.add(row0(0xc4, Op::les, "les", "=Gv Mp").not64().cls(OpClass::system));
  t.add(row0(0xc5, Op::lds, "lds", "=Gv Mp").not64().cls(OpClass::system));
  t.add(row1(0xb2, Op::lss, "lss", "=Gv Mp").cls(OpClass::system));
  t.add(row1(0xb4, Op::lfs, "lfs", "=Gv Mp").cls(OpClass::system));
  t.add(row1(0xb5, Op::lgs, "lgs", "=Gv Mp").cls(OpClass::system));
}

constexpr void addStackRows(RowList& t) {
  for (unsigned s = 0; s < 4; ++s) {
    t.add(row0(0x06 + 8 * s, Op::push, "push", "S").not64().stack());
    if (s != 1) t.add(row0(0x07 + 8 * s, Op::pop, "pop", "=S").not64().stack().cls(OpClass::system));
  }
  for (Row& r : t.rows) {
    if (r.info.form == Form::sreg) r.modrm = false;
  }
  auto addWide = [&](unsigned opcode, Op op, const char* name) {
    Row r = row1(opcode, op, name, op == Op::pop ? "=S" : "S").d64().stack();
    r.modrm = false;
    t.add(op == Op::pop ? r.cls(OpClass::system) : r);
  };
  addWide(0xa0, Op::push, "push");
  addWide(0xa1, Op::pop, "pop");
  addWide(0xa8, Op::push, "push");
  addWide(0xa9, Op::pop, "pop");
  t.add(row0(0x50, Op::push, "push", "Zv").d64().stack());
  t.add(row0(0x58, Op::pop, "pop", "=Zv").d64().stack());
  t.add(row0(0x60, Op::pusha, "pusha").not64().stack());
  t.add(row0(0x61, Op::popa, "popa").not64().stack());
  t.add(row0(0x68, Op::push, "push", "Iz").d64().stack());
  t.add(row0(0x6a, Op::push, "push", "Is").d64().stack());
  t.add(row0(0x8f, Op::pop, "pop", "=Ev").reg(0).d64().stack());
  t.add(row0(0xff, Op::push, "push", "Ev").reg(6).d64().stack());
  t.add(row0(0x9c, Op::pushf, "pushf").d64().stack().f(fAll | fD, 0).cls(OpClass::system));
  t.add(row0(0x9d, Op::popf, "popf").d64().stack().f(0, fAll | fD).cls(OpClass::system));
  t.add(row0(0xc8, Op::enter, "enter", "Iwb").d64().stack());
  t.add(row0(0xc9, Op::leave, "leave").d64().stack());
}

constexpr void addUnaryRows(RowList& t) {
  t.add(row0(0x84, Op::test, "test", "Eb Gb").f(0, kLogicWritten, fA));
  t.add(row0(0x85, Op::test, "test", "Ev Gv").f(0, kLogicWritten, fA));
  t.add(row0(0xa8, Op::test, "test", "Ab Is").f(0, kLogicWritten, fA));
  t.add(row0(0xa9, Op::test, "test", "Av Iz").f(0, kLogicWritten, fA));
  t.add(row0(0x40, Op::inc, "inc", "+Zv").not64().f(0, fAll & ~fC));
  t.add(row0(0x48, Op::dec, "dec", "+Zv").not64().f(0, fAll & ~fC));
  constexpr std::uint32_t mulUndefined = fP | fA | fZ | fS;
  for (unsigned wide = 0; wide < 2; ++wide) {
    std::string_view rw = wide ? "+Ev" : "+Eb";
    std::string_view r = wide ? "Ev" : "Eb";
    unsigned g3 = 0xf6 + wide;
    std::string_view immediate = wide ? "Ev Iz" : "Eb Is";
    t.add(row0(g3, Op::test, "test", immediate).reg(0).f(0, kLogicWritten, fA));
    t.add(row0(g3, Op::test, "test", immediate).reg(1).f(0, kLogicWritten, fA));
    t.add(row0(g3, Op::not_, "not", rw).reg(2).lock());
    t.add(row0(g3, Op::neg, "neg", rw).reg(3).lock().f(0, fAll));
    t.add(row0(g3, Op::mul, "mul", r).reg(4).f(0, fC | fO, mulUndefined));
    t.add(row0(g3, Op::imul, "imul", r).reg(5).f(0, fC | fO, mulUndefined));
    t.add(row0(g3, Op::div, "div", r).reg(6).f(0, 0, fAll));
    t.add(row0(g3, Op::idiv, "idiv", r).reg(7).f(0, 0, fAll));
    t.add(row0(0xfe + wide, Op::inc, "inc", rw).reg(0).lock().f(0, fAll & ~fC));
    t.add(row0(0xfe + wide, Op::dec, "dec", rw).reg(1).lock().f(0, fAll & ~fC));
    t.add(row1(0xb0 + wide, Op::cmpxchg, "cmpxchg", wide ? "+Ev Gv" : "+Eb Gb").lock().f(0, fAll));
    t.add(row1(0xc0 + wide, Op::xadd, "xadd", wide ? "+Ev +Gv" : "+Eb +Gb").lock().f(0, fAll));
  }
  t.add(row1(0xaf, Op::imul2, "imul", "+Gv Ev").f(0, fC | fO, mulUndefined));
  t.add(row0(0x69, Op::imul3, "imul", "=Gv Ev Iz").f(0, fC | fO, mulUndefined));
  t.add(row0(0x6b, Op::imul3, "imul", "=Gv Ev Is").f(0, fC | fO, mulUndefined));
  t.add(row1(0xc7, Op::cmpxchg8b, "cmpxchg8b", "+M2y").reg(1).w(0).lock().f(0, fZ).ft(Feature::cx8));
  t.add(row1(0xc7, Op::cmpxchg16b, "cmpxchg16b", "+M2y").reg(1).w(1).lock().aligned().f(0, fZ).ft(Feature::cx16));
  // Decimal adjustment.
  t.add(row0(0x27, Op::daa, "daa").not64().f(fC | fA, fAll & ~fO, fO));
  t.add(row0(0x2f, Op::das, "das").not64().f(fC | fA, fAll & ~fO, fO));
  t.add(row0(0x37, Op::aaa, "aaa").not64().f(fA, fA | fC, fO | fS | fZ | fP));
  t.add(row0(0x3f, Op::aas, "aas").not64().f(fA, fA | fC, fO | fS | fZ | fP));
  t.add(row0(0xd4, Op::aam, "aam", "Ib").not64().f(0, fS | fZ | fP, fO | fA | fC));
  t.add(row0(0xd5, Op::aad, "aad", "Ib").not64().f(0, fS | fZ | fP, fO | fA | fC));
  t.add(row0(0xf5, Op::cmc, "cmc").f(fC, fC));
  t.add(row0(0xf8, Op::clc, "clc").f(0, fC));
  t.add(row0(0xf9, Op::stc, "stc").f(0, fC));
  t.add(row0(0xfc, Op::cld, "cld").f(0, fD));
  t.add(row0(0xfd, Op::std, "std").f(0, fD));
}

constexpr void addBitRows(RowList& t) {
  struct Bit {
    Op op;
    const char* name;
  };
  constexpr Bit kBits[] = {{Op::bt, "bt"}, {Op::bts, "bts"}, {Op::btr, "btr"}, {Op::btc, "btc"}};
  constexpr std::uint32_t btUndefined = fP | fA | fS | fO;
  for (unsigned i = 0; i < 4; ++i) {
    const Bit& b = kBits[i];
    Row rows[] = {row1(0xa3 + 8 * i, b.op, b.name, i ? "+Ev Gv" : "Ev Gv").f(0, fC, btUndefined),
                  row1(0xba, b.op, b.name, i ? "+Ev Ib" : "Ev Ib").reg(4 + i).f(0, fC, btUndefined)};
    for (const Row& r : rows) t.add(i ? r.lock() : r);
  }
  constexpr std::uint32_t scanUndefined = fAll & ~fZ;
  t.add(row1(0xbc, Op::bsf, "bsf", "+Gv Ev").pp(np66 | pF2).f(0, fZ, scanUndefined));
  t.add(row1(0xbd, Op::bsr, "bsr", "+Gv Ev").pp(np66 | pF2).f(0, fZ, scanUndefined));
  t.add(row1(0xbc, Op::tzcnt, "tzcnt", "=Gv Ev").pp(pF3).f(0, fC | fZ, fAll & ~(fC | fZ)).ft(Feature::bmi1));
  t.add(row1(0xbd, Op::lzcnt, "lzcnt", "=Gv Ev").pp(pF3).f(0, fC | fZ, fAll & ~(fC | fZ)).ft(Feature::lzcnt));
  t.add(row1(0xb8, Op::popcnt, "popcnt", "=Gv Ev").pp(pF3).f(0, fAll).ft(Feature::popcnt));
  t.add(row(2, 0xf0, Op::crc32, "crc32", "+Gy Eb").pp(pF2).ft(Feature::sse42));
  t.add(row(2, 0xf1, Op::crc32, "crc32", "+Gy Ev").pp(pF2).ft(Feature::sse42));
  t.add(row(2, 0xf6, Op::adcx, "adcx", "+Gy Ey").pp(p66).f(fC, fC).ft(Feature::adx));
  t.add(row(2, 0xf6, Op::adox, "adox", "+Gy Ey").pp(pF3).f(fO, fO).ft(Feature::adx));
  t.add(row1(0xc7, Op::rdrand, "rdrand", "=Rv").reg(6).pp(np66).f(0, fAll).ft(Feature::rdrand));
  t.add(row1(0xc7, Op::rdseed, "rdseed", "=Rv").reg(7).pp(np66).f(0, fAll).ft(Feature::rdseed));
}

/// BMI1 and BMI2: VEX-encoded, 128-bit form only, operand size by W in 64-bit mode.
constexpr void addBmiRows(RowList& t) {
  auto vex = [](unsigned map, unsigned opcode, unsigned pp, Op op, const char* name, std::string_view operands,
                Feature feature) {
    Row r = row(map, opcode, op, name, operands).pp(static_cast<std::uint8_t>(pp)).l(0).ft(feature);
    r.encoding = Encoding::vex;
    return r;
  };
  constexpr std::uint32_t undefined = fA | fP;
  t.add(vex(2, 0xf2, np, Op::andn, "andn", "=Gy By Ey", Feature::bmi1).f(0, fS | fZ | fO | fC, undefined));
  t.add(vex(2, 0xf3, np, Op::blsr, "blsr", "=By Ey", Feature::bmi1).reg(1).f(0, fS | fZ | fO | fC, undefined));
  t.add(vex(2, 0xf3, np, Op::blsmsk, "blsmsk", "=By Ey", Feature::bmi1).reg(2).f(0, fS | fZ | fO | fC, undefined));
  t.add(vex(2, 0xf3, np, Op::blsi, "blsi", "=By Ey", Feature::bmi1).reg(3).f(0, fS | fZ | fO | fC, undefined));
  t.add(vex(2, 0xf5, np, Op::bzhi, "bzhi", "=Gy Ey By", Feature::bmi2).f(0, fS | fZ | fO | fC, undefined));
  t.add(vex(2, 0xf5, pF2, Op::pdep, "pdep", "=Gy By Ey", Feature::bmi2));
  t.add(vex(2, 0xf5, pF3, Op::pext, "pext", "=Gy By Ey", Feature::bmi2));
  t.add(vex(2, 0xf6, pF2, Op::mulx, "mulx", "=Gy =By Ey", Feature::bmi2));
  t.add(vex(2, 0xf7, np, Op::bextr, "bextr", "=Gy Ey By", Feature::bmi1).f(0, fZ | fO | fC, undefined | fS));
  t.add(vex(2, 0xf7, p66, Op::shlx, "shlx", "=Gy Ey By", Feature::bmi2));
  t.add(vex(2, 0xf7, pF3, Op::sarx, "sarx", "=Gy Ey By", Feature::bmi2));
  t.add(vex(2, 0xf7, pF2, Op::shrx, "shrx", "=Gy Ey By", Feature::bmi2));
  t.add(vex(3, 0xf0, pF2, Op::rorx, "rorx", "=Gy Ey Ib", Feature::bmi2));
}

inline constexpr std::uint32_t kConditionFlags[8] = {fO, fC, fZ, fC | fZ, fS, fP, fS | fO, fS | fO | fZ};

constexpr void addConditionRows(RowList& t) {
  constexpr const char* kJcc[] = {"jo", "jno", "jb", "jnb", "jz", "jnz", "jbe", "jnbe",
                                  "js", "jns", "jp", "jnp", "jl", "jnl", "jle", "jnle"};
  constexpr const char* kSetcc[] = {"seto", "setno", "setb", "setnb", "setz", "setnz", "setbe", "setnbe",
                                    "sets", "setns", "setp", "setnp", "setl", "setnl", "setle", "setnle"};
  constexpr const char* kCmov[] = {"cmovo", "cmovno", "cmovb", "cmovnb", "cmovz", "cmovnz", "cmovbe", "cmovnbe",
                                   "cmovs", "cmovns", "cmovp", "cmovnp", "cmovl", "cmovnl", "cmovle", "cmovnle"};
  for (unsigned c = 0; c < 16; ++c) {
    std::uint32_t read = kConditionFlags[c / 2];
    t.add(row0(0x70 + c, Op::jcc, kJcc[c], "Jb").f64().cls(OpClass::branch).f(read, 0));
    t.add(row1(0x80 + c, Op::jcc, kJcc[c], "Jz").f64().cls(OpClass::branch).f(read, 0));
    t.add(row1(0x90 + c, Op::setcc, kSetcc[c], "=Eb").f(read, 0));
    t.add(row1(0x40 + c, Op::cmov, kCmov[c], "+Gv Ev").f(read, 0).ft(Feature::cmov));
  }
}

constexpr void addBranchRows(RowList& t) {
  auto branch = [&](Row r) { t.add(r.cls(OpClass::branch)); };
  branch(row0(0xe0, Op::loopne, "loopne", "Jb").f64().f(fZ, 0));
  branch(row0(0xe1, Op::loope, "loope", "Jb").f64().f(fZ, 0));
  branch(row0(0xe2, Op::loop, "loop", "Jb").f64());
  branch(row0(0xe3, Op::jcxz, "jcxz", "Jb").f64());
  branch(row0(0xe8, Op::call, "call", "Jz").f64().stack());
  branch(row0(0xe9, Op::jmp, "jmp", "Jz").f64());
  branch(row0(0xeb, Op::jmp, "jmp", "Jb").f64());
  branch(row0(0xc2, Op::ret, "ret", "Iw").f64().stack());
  branch(row0(0xc3, Op::ret, "ret").f64().stack());
  branch(row0(0xff, Op::call_indirect, "call", "Ev").reg(2).f64().stack());
  branch(row0(0xff, Op::jmp_indirect, "jmp", "Ev").reg(4).f64());
}

constexpr void addFarRows(RowList& t) {
  auto far = [&](Row r) { t.add(r.cls(OpClass::system)); };
  far(row0(0x9a, Op::call_far, "call", "Ap").not64().stack());
  far(row0(0xea, Op::jmp_far, "jmp", "Ap").not64());
  far(row0(0xff, Op::call_far_indirect, "call", "Mp").reg(3).stack());
  far(row0(0xff, Op::jmp_far_indirect, "jmp", "Mp").reg(5));
  far(row0(0xca, Op::ret_far, "ret", "Iw").stack());
  far(row0(0xcb, Op::ret_far, "ret").stack());
  far(row0(0xcc, Op::int3, "int3").f(fAll | fD, 0));
  far(row0(0xcd, Op::int_, "int", "Ib").f(fAll | fD, 0));
  far(row0(0xce, Op::into, "into").not64().f(fAll | fD, 0));
  far(row0(0xf1, Op::int1, "int1").f(fAll | fD, 0));
  far(row0(0xcf, Op::iret, "iret").stack().f(0, fAll | fD));
  far(row0(0x62, Op::bound, "bound", "Gv Ma").not64());
  far(row1(0x0b, Op::ud, "ud2"));
  far(row1(0xb9, Op::ud, "ud1", "Gv Ev"));
  far(row1(0xff, Op::ud, "ud0", "Gv Ev"));
}

constexpr void addStringRows(RowList& t) {
  for (unsigned wide = 0; wide < 2; ++wide) {
    const char* b = wide ? nullptr : "b";
    auto add = [&](unsigned opcode, Op op, const char* byteName, const char* wideName, std::uint32_t read,
                   std::uint32_t written, OpClass cls = OpClass::string) {
      Row r = row0(opcode + wide, op, b ? byteName : wideName).cls(cls).f(read | fD, written);
      t.add(wide ? r : r.attr(attribute::byteForm));
    };
    add(0xa4, Op::movs, "movsb", "movs", 0, 0);
    add(0xa6, Op::cmps, "cmpsb", "cmps", fAll, fAll);  // REP with rCX 0 leaves the flags
    add(0xaa, Op::stos, "stosb", "stos", 0, 0);
    add(0xac, Op::lods, "lodsb", "lods", 0, 0);
    add(0xae, Op::scas, "scasb", "scas", fAll, fAll);
    add(0x6c, Op::ins, "insb", "ins", 0, 0, OpClass::io);
    add(0x6e, Op::outs, "outsb", "outs", 0, 0, OpClass::io);
  }
}

constexpr void addIntegerRows(RowList& t) {
  addAluRows(t);
  addShiftRows(t);
  addMoveRows(t);
  addStackRows(t);
  addUnaryRows(t);
  addBitRows(t);
  addBmiRows(t);
  addConditionRows(t);
  addBranchRows(t);
  addFarRows(t);
  addStringRows(t);
}

}  // namespace lodge::x86::table
