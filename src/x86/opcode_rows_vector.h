// SPDX-License-Identifier: Apache-2.0
// Rows of MMX, SSE to SSE4.2, AES, SHA, AVX, AVX2, F16C, FMA, VAES, VPCLMULQDQ, GFNI and AVX-VNNI instructions (SDM
// vol. 2, appendix A, tables ). Internal, see opcode_row.h.
//
// Most opcodes come as a family: MMX without prefix, SSE with one, and AVX with the same prefix in the VEX encoding.
// The helpers below write each member's row from one line. Names are given in the AVX form; the legacy form drops the
// "v".
#pragma once

#include "x86/opcode_row.h"

namespace lodge::x86::table {

/// Legacy-encoded vector row.
constexpr Row legacyVector(unsigned map, unsigned opcode, unsigned pp, const char* name, std::string_view operands,
                           Feature feature) {
  return row(map, opcode, Op::native, name, operands)
      .pp(static_cast<std::uint8_t>(pp))
      .ft(feature)
      .cls(OpClass::native)
      .attr(attribute::sse);
}

/// MMX row: no prefix.
constexpr Row mmxRow(unsigned map, unsigned opcode, const char* name, std::string_view operands,
                     Feature feature = Feature::mmx) {
  return row(map, opcode, Op::native, name, operands).pp(np).ft(feature).cls(OpClass::native).attr(attribute::mmx);
}

/// VEX-encoded vector row.
constexpr Row vexVector(unsigned map, unsigned opcode, unsigned pp, const char* name, std::string_view operands,
                        Feature feature = Feature::avx) {
  Row r =
      row(map, opcode, Op::native, name, operands).pp(static_cast<std::uint8_t>(pp)).ft(feature).cls(OpClass::native);
  r.encoding = Encoding::vex;
  return r.attr(attribute::avx);
}

/// Legacy and VEX forms with their own operands. Legacy 16-byte memory operands must be aligned.
constexpr void addPair(RowList& t, unsigned map, unsigned opcode, unsigned pp, const char* vexName,
                       std::string_view legacy, std::string_view vex, Feature feature) {
  Row r = legacyVector(map, opcode, pp, vexName + 1, legacy, feature);
  t.add(r.info.memoryBytes == memory_size::vector ? r.aligned() : r);
  t.add(vexVector(map, opcode, pp, vexName, vex));
}

/// Integer pair: the 256-bit form needs AVX2.
constexpr void addIntegerPair(RowList& t, unsigned map, unsigned opcode, unsigned pp, const char* vexName,
                              std::string_view legacy, std::string_view vex, Feature feature) {
  Row r = legacyVector(map, opcode, pp, vexName + 1, legacy, feature);
  t.add(r.info.memoryBytes == memory_size::vector ? r.aligned() : r);
  t.add(vexVector(map, opcode, pp, vexName, vex).l(0));
  t.add(vexVector(map, opcode, pp, vexName, vex, Feature::avx2).l(1));
}

/// The usual integer opcode: MMX, SSE with 66, AVX.
constexpr void addMmxFamily(RowList& t, unsigned map, unsigned opcode, const char* vexName,
                            Feature mmxFeature = Feature::mmx, Feature sseFeature = Feature::sse2) {
  t.add(mmxRow(map, opcode, vexName + 1, "+Pq Qq", mmxFeature));
  addIntegerPair(t, map, opcode, p66, vexName, "+Vx Wx", "=Vx Hx Wx", sseFeature);
}

/// ps/pd/ss/sd arithmetic.
constexpr void addArithmetic(RowList& t, unsigned opcode, const char* ps, const char* pd, const char* ss,
                             const char* sd) {
  addPair(t, 1, opcode, np, ps, "+Vx Wx", "=Vx Hx Wx", Feature::sse);
  if (pd) addPair(t, 1, opcode, p66, pd, "+Vx Wx", "=Vx Hx Wx", Feature::sse2);
  if (ss) addPair(t, 1, opcode, pF3, ss, "+Vx Wd", "=Vx Hx Wd", Feature::sse);
  if (sd) addPair(t, 1, opcode, pF2, sd, "+Vx Wq", "=Vx Hx Wq", Feature::sse2);
}

constexpr void addVectorMoves(RowList& t) {
  auto move = [&](unsigned opcode, unsigned pp, const char* name, bool store, bool aligned, Feature feature) {
    std::string_view operands = store ? "=Wx Vx" : "=Vx Wx";
    Row r = legacyVector(1, opcode, pp, name + 1, operands, feature);
    t.add(aligned ? r.aligned() : r);
    Row v = vexVector(1, opcode, pp, name, operands);
    t.add(aligned ? v.aligned() : v);
  };
  for (unsigned store = 0; store < 2; ++store) {
    move(0x10 + store, np, "vmovups", store, false, Feature::sse);
    move(0x10 + store, p66, "vmovupd", store, false, Feature::sse2);
    move(0x28 + store, np, "vmovaps", store, true, Feature::sse);
    move(0x28 + store, p66, "vmovapd", store, true, Feature::sse2);
    move(store ? 0x7f : 0x6f, p66, "vmovdqa", store, true, Feature::sse2);
    move(store ? 0x7f : 0x6f, pF3, "vmovdqu", store, false, Feature::sse2);
    // MOVSS/MOVSD: merge between registers, load and store otherwise.
    for (unsigned d = 0; d < 2; ++d) {
      const char* name = d ? "vmovsd" : "vmovss";
      unsigned pp = d ? pF2 : pF3;
      std::string_view mem = store ? (d ? "=Mq Vx" : "=Md Vx") : (d ? "=Vx Mq" : "=Vx Md");
      Feature feature = d ? Feature::sse2 : Feature::sse;
      t.add(legacyVector(1, 0x10 + store, pp, name + 1, mem, feature));
      t.add(legacyVector(1, 0x10 + store, pp, name + 1, store ? "+Ux Vx" : "+Vx Ux", feature));
      t.add(vexVector(1, 0x10 + store, pp, name, mem));
      t.add(vexVector(1, 0x10 + store, pp, name, store ? "=Ux Hx Vx" : "=Vx Hx Ux"));
    }
  }
  auto half = [&](unsigned opcode, unsigned pp, const char* name, bool store, Feature feature) {
    t.add(legacyVector(1, opcode, pp, name + 1, store ? "=Mq Vx" : "+Vx Mq", feature));
    t.add(vexVector(1, opcode, pp, name, store ? "=Mq Vx" : "=Vx Hx Mq").l(0));
  };
  half(0x12, np, "vmovlps", false, Feature::sse);
  half(0x12, p66, "vmovlpd", false, Feature::sse2);
  half(0x13, np, "vmovlps", true, Feature::sse);
  half(0x13, p66, "vmovlpd", true, Feature::sse2);
  half(0x16, np, "vmovhps", false, Feature::sse);
  half(0x16, p66, "vmovhpd", false, Feature::sse2);
  half(0x17, np, "vmovhps", true, Feature::sse);
  half(0x17, p66, "vmovhpd", true, Feature::sse2);
  t.add(legacyVector(1, 0x12, np, "movhlps", "+Vx Ux", Feature::sse));
  t.add(vexVector(1, 0x12, np, "vmovhlps", "=Vx Hx Ux").l(0));
  t.add(legacyVector(1, 0x16, np, "movlhps", "+Vx Ux", Feature::sse));
  t.add(vexVector(1, 0x16, np, "vmovlhps", "=Vx Hx Ux").l(0));
  addPair(t, 1, 0x12, pF3, "vmovsldup", "=Vx Wx", "=Vx Wx", Feature::sse3);
  addPair(t, 1, 0x16, pF3, "vmovshdup", "=Vx Wx", "=Vx Wx", Feature::sse3);
  t.add(legacyVector(1, 0x12, pF2, "movddup", "=Vx Wq", Feature::sse3));
  t.add(vexVector(1, 0x12, pF2, "vmovddup", "=Vx Wq").l(0));
  t.add(vexVector(1, 0x12, pF2, "vmovddup", "=Vx Wqq").l(1));
  addPair(t, 1, 0x2b, np, "vmovntps", "=Mx Vx", "=Mx Vx", Feature::sse);
  addPair(t, 1, 0x2b, p66, "vmovntpd", "=Mx Vx", "=Mx Vx", Feature::sse2);
  addPair(t, 1, 0xe7, p66, "vmovntdq", "=Mx Vx", "=Mx Vx", Feature::sse2);
  addIntegerPair(t, 2, 0x2a, p66, "vmovntdqa", "=Vx Mx", "=Vx Mx", Feature::sse41);
  for (Row& r : t.rows) {
    bool nonTemporal = r.info.mnemonic && std::string_view(r.info.mnemonic).starts_with("vmovnt");
    if (nonTemporal) r.info.attributes |= attribute::alignedMemory;
  }
  t.add(mmxRow(1, 0xe7, "movntq", "=Mq Pq", Feature::sse));
  t.add(mmxRow(1, 0x6f, "movq", "=Pq Qq"));
  t.add(mmxRow(1, 0x7f, "movq", "=Qq Pq"));
  t.add(mmxRow(1, 0x6e, "movd", "=Pq Ey"));
  t.add(mmxRow(1, 0x7e, "movd", "=Ey Pq"));
  t.add(legacyVector(1, 0x6e, p66, "movd", "=Vx Ey", Feature::sse2));
  t.add(legacyVector(1, 0x7e, p66, "movd", "=Ey Vx", Feature::sse2));
  t.add(vexVector(1, 0x6e, p66, "vmovd", "=Vx Ey").l(0));
  t.add(vexVector(1, 0x7e, p66, "vmovd", "=Ey Vx").l(0));
  t.add(legacyVector(1, 0x7e, pF3, "movq", "=Vx Wq", Feature::sse2));
  t.add(vexVector(1, 0x7e, pF3, "vmovq", "=Vx Wq").l(0));
  t.add(legacyVector(1, 0xd6, p66, "movq", "=Wq Vx", Feature::sse2));
  t.add(vexVector(1, 0xd6, p66, "vmovq", "=Wq Vx").l(0));
  t.add(legacyVector(1, 0xd6, pF3, "movq2dq", "=Vx Nq", Feature::sse2).attr(attribute::mmx));
  t.add(legacyVector(1, 0xd6, pF2, "movdq2q", "=Pq Ux", Feature::sse2).attr(attribute::mmx));
  t.add(legacyVector(1, 0xf0, pF2, "lddqu", "=Vx Mx", Feature::sse3));
  t.add(vexVector(1, 0xf0, pF2, "vlddqu", "=Vx Mx"));
}

constexpr void addFloatRows(RowList& t) {
  addArithmetic(t, 0x58, "vaddps", "vaddpd", "vaddss", "vaddsd");
  addArithmetic(t, 0x59, "vmulps", "vmulpd", "vmulss", "vmulsd");
  addArithmetic(t, 0x5c, "vsubps", "vsubpd", "vsubss", "vsubsd");
  addArithmetic(t, 0x5d, "vminps", "vminpd", "vminss", "vminsd");
  addArithmetic(t, 0x5e, "vdivps", "vdivpd", "vdivss", "vdivsd");
  addArithmetic(t, 0x5f, "vmaxps", "vmaxpd", "vmaxss", "vmaxsd");
  addArithmetic(t, 0x14, "vunpcklps", "vunpcklpd", nullptr, nullptr);
  addArithmetic(t, 0x15, "vunpckhps", "vunpckhpd", nullptr, nullptr);
  addArithmetic(t, 0x54, "vandps", "vandpd", nullptr, nullptr);
  addArithmetic(t, 0x55, "vandnps", "vandnpd", nullptr, nullptr);
  addArithmetic(t, 0x56, "vorps", "vorpd", nullptr, nullptr);
  addArithmetic(t, 0x57, "vxorps", "vxorpd", nullptr, nullptr);
  struct Unary {
    unsigned opcode;
    const char* ps;
    const char* pd;
    const char* ss;
    const char* sd;
  };
  constexpr Unary kUnary[] = {{0x51, "vsqrtps", "vsqrtpd", "vsqrtss", "vsqrtsd"},
                              {0x52, "vrsqrtps", nullptr, "vrsqrtss", nullptr},
                              {0x53, "vrcpps", nullptr, "vrcpss", nullptr}};
  for (const Unary& u : kUnary) {
    addPair(t, 1, u.opcode, np, u.ps, "=Vx Wx", "=Vx Wx", Feature::sse);
    if (u.pd) addPair(t, 1, u.opcode, p66, u.pd, "=Vx Wx", "=Vx Wx", Feature::sse2);
    addPair(t, 1, u.opcode, pF3, u.ss, "+Vx Wd", "=Vx Hx Wd", Feature::sse);
    if (u.sd) addPair(t, 1, u.opcode, pF2, u.sd, "+Vx Wq", "=Vx Hx Wq", Feature::sse2);
  }
  addPair(t, 1, 0xc2, np, "vcmpps", "+Vx Wx Ib", "=Vx Hx Wx Ib", Feature::sse);
  addPair(t, 1, 0xc2, p66, "vcmppd", "+Vx Wx Ib", "=Vx Hx Wx Ib", Feature::sse2);
  addPair(t, 1, 0xc2, pF3, "vcmpss", "+Vx Wd Ib", "=Vx Hx Wd Ib", Feature::sse);
  addPair(t, 1, 0xc2, pF2, "vcmpsd", "+Vx Wq Ib", "=Vx Hx Wq Ib", Feature::sse2);
  addPair(t, 1, 0xc6, np, "vshufps", "+Vx Wx Ib", "=Vx Hx Wx Ib", Feature::sse);
  addPair(t, 1, 0xc6, p66, "vshufpd", "+Vx Wx Ib", "=Vx Hx Wx Ib", Feature::sse2);
  addPair(t, 1, 0x7c, p66, "vhaddpd", "+Vx Wx", "=Vx Hx Wx", Feature::sse3);
  addPair(t, 1, 0x7c, pF2, "vhaddps", "+Vx Wx", "=Vx Hx Wx", Feature::sse3);
  addPair(t, 1, 0x7d, p66, "vhsubpd", "+Vx Wx", "=Vx Hx Wx", Feature::sse3);
  addPair(t, 1, 0x7d, pF2, "vhsubps", "+Vx Wx", "=Vx Hx Wx", Feature::sse3);
  addPair(t, 1, 0xd0, p66, "vaddsubpd", "+Vx Wx", "=Vx Hx Wx", Feature::sse3);
  addPair(t, 1, 0xd0, pF2, "vaddsubps", "+Vx Wx", "=Vx Hx Wx", Feature::sse3);
  addPair(t, 1, 0x50, np, "vmovmskps", "=Gd Ux", "=Gd Ux", Feature::sse);
  addPair(t, 1, 0x50, p66, "vmovmskpd", "=Gd Ux", "=Gd Ux", Feature::sse2);
  auto compare = [&](unsigned opcode, const char* ss, const char* sd) {
    for (unsigned d = 0; d < 2; ++d) {
      const char* name = d ? sd : ss;
      std::string_view operands = d ? "Vx Wq" : "Vx Wd";
      t.add(legacyVector(1, opcode, d ? p66 : np, name + 1, operands, d ? Feature::sse2 : Feature::sse).f(0, fAll));
      t.add(vexVector(1, opcode, d ? p66 : np, name, operands).f(0, fAll));
    }
  };
  compare(0x2e, "vucomiss", "vucomisd");
  compare(0x2f, "vcomiss", "vcomisd");
}

constexpr void addConversionRows(RowList& t) {
  using enum Feature;
  // MMX operands.
  t.add(legacyVector(1, 0x2a, np, "cvtpi2ps", "+Vx Qq", sse).attr(attribute::mmx));
  t.add(legacyVector(1, 0x2a, p66, "cvtpi2pd", "=Vx Qq", sse2).attr(attribute::mmx));
  t.add(legacyVector(1, 0x2c, np, "cvttps2pi", "=Pq Wq", sse).attr(attribute::mmx));
  t.add(legacyVector(1, 0x2c, p66, "cvttpd2pi", "=Pq Wx", sse2).attr(attribute::mmx).aligned());
  t.add(legacyVector(1, 0x2d, np, "cvtps2pi", "=Pq Wq", sse).attr(attribute::mmx));
  t.add(legacyVector(1, 0x2d, p66, "cvtpd2pi", "=Pq Wx", sse2).attr(attribute::mmx).aligned());
  // General registers.
  addPair(t, 1, 0x2a, pF3, "vcvtsi2ss", "+Vx Ey", "=Vx Hx Ey", sse);
  addPair(t, 1, 0x2a, pF2, "vcvtsi2sd", "+Vx Ey", "=Vx Hx Ey", sse2);
  addPair(t, 1, 0x2c, pF3, "vcvttss2si", "=Gy Wd", "=Gy Wd", sse);
  addPair(t, 1, 0x2c, pF2, "vcvttsd2si", "=Gy Wq", "=Gy Wq", sse2);
  addPair(t, 1, 0x2d, pF3, "vcvtss2si", "=Gy Wd", "=Gy Wd", sse);
  addPair(t, 1, 0x2d, pF2, "vcvtsd2si", "=Gy Wq", "=Gy Wq", sse2);
  // Between vectors. The source of a widening conversion is half as long as the destination.
  addPair(t, 1, 0x5a, np, "vcvtps2pd", "=Vx Wq", "=Vx Wh", sse2);
  addPair(t, 1, 0x5a, p66, "vcvtpd2ps", "=Vx Wx", "=Vx Wx", sse2);
  addPair(t, 1, 0x5a, pF3, "vcvtss2sd", "+Vx Wd", "=Vx Hx Wd", sse2);
  addPair(t, 1, 0x5a, pF2, "vcvtsd2ss", "+Vx Wq", "=Vx Hx Wq", sse2);
  addPair(t, 1, 0x5b, np, "vcvtdq2ps", "=Vx Wx", "=Vx Wx", sse2);
  addPair(t, 1, 0x5b, p66, "vcvtps2dq", "=Vx Wx", "=Vx Wx", sse2);
  addPair(t, 1, 0x5b, pF3, "vcvttps2dq", "=Vx Wx", "=Vx Wx", sse2);
  addPair(t, 1, 0xe6, p66, "vcvttpd2dq", "=Vx Wx", "=Vx Wx", sse2);
  addPair(t, 1, 0xe6, pF3, "vcvtdq2pd", "=Vx Wq", "=Vx Wh", sse2);
  addPair(t, 1, 0xe6, pF2, "vcvtpd2dq", "=Vx Wx", "=Vx Wx", sse2);
  t.add(vexVector(2, 0x13, p66, "vcvtph2ps", "=Vx Wh", f16c).w(0));
  t.add(vexVector(3, 0x1d, p66, "vcvtps2ph", "=Wh Vx Ib", f16c).w(0));
}

constexpr void addIntegerVectorRows(RowList& t) {
  struct Name {
    unsigned opcode;
    const char* name;
  };
  // Low-half interleaves read 4 bytes in their MMX form.
  constexpr Name kLow[] = {{0x60, "vpunpcklbw"}, {0x61, "vpunpcklwd"}, {0x62, "vpunpckldq"}};
  for (const Name& n : kLow) {
    t.add(mmxRow(1, n.opcode, n.name + 1, "+Pq Qd"));
    addIntegerPair(t, 1, n.opcode, p66, n.name, "+Vx Wx", "=Vx Hx Wx", Feature::sse2);
  }
  constexpr Name kMmx[] = {
      {0x63, "vpacksswb"},  {0x64, "vpcmpgtb"},   {0x65, "vpcmpgtw"},   {0x66, "vpcmpgtd"},  {0x67, "vpackuswb"},
      {0x68, "vpunpckhbw"}, {0x69, "vpunpckhwd"}, {0x6a, "vpunpckhdq"}, {0x6b, "vpackssdw"}, {0x74, "vpcmpeqb"},
      {0x75, "vpcmpeqw"},   {0x76, "vpcmpeqd"},   {0xd5, "vpmullw"},    {0xd8, "vpsubusb"},  {0xd9, "vpsubusw"},
      {0xdb, "vpand"},      {0xdc, "vpaddusb"},   {0xdd, "vpaddusw"},   {0xdf, "vpandn"},    {0xe5, "vpmulhw"},
      {0xe8, "vpsubsb"},    {0xe9, "vpsubsw"},    {0xeb, "vpor"},       {0xec, "vpaddsb"},   {0xed, "vpaddsw"},
      {0xef, "vpxor"},      {0xf5, "vpmaddwd"},   {0xf8, "vpsubb"},     {0xf9, "vpsubw"},    {0xfa, "vpsubd"},
      {0xfc, "vpaddb"},     {0xfd, "vpaddw"},     {0xfe, "vpaddd"}};
  for (const Name& n : kMmx) addMmxFamily(t, 1, n.opcode, n.name);
  // MMX forms that came with SSE and SSE2.
  constexpr Name kMmxSse[] = {{0xda, "vpminub"},  {0xde, "vpmaxub"}, {0xe0, "vpavgb"},  {0xe3, "vpavgw"},
                              {0xe4, "vpmulhuw"}, {0xea, "vpminsw"}, {0xee, "vpmaxsw"}, {0xf6, "vpsadbw"}};
  for (const Name& n : kMmxSse) addMmxFamily(t, 1, n.opcode, n.name, Feature::sse);
  constexpr Name kMmxSse2[] = {{0xd4, "vpaddq"}, {0xf4, "vpmuludq"}, {0xfb, "vpsubq"}};
  for (const Name& n : kMmxSse2) addMmxFamily(t, 1, n.opcode, n.name, Feature::sse2);
  addIntegerPair(t, 1, 0x6c, p66, "vpunpcklqdq", "+Vx Wx", "=Vx Hx Wx", Feature::sse2);
  addIntegerPair(t, 1, 0x6d, p66, "vpunpckhqdq", "+Vx Wx", "=Vx Hx Wx", Feature::sse2);
  // Shifts by a count in a register or in memory (16 bytes whatever the vector length), and by an immediate.
  constexpr Name kShifts[] = {{0xd1, "vpsrlw"}, {0xd2, "vpsrld"}, {0xd3, "vpsrlq"}, {0xe1, "vpsraw"},
                              {0xe2, "vpsrad"}, {0xf1, "vpsllw"}, {0xf2, "vpslld"}, {0xf3, "vpsllq"}};
  for (const Name& n : kShifts) {
    t.add(mmxRow(1, n.opcode, n.name + 1, "+Pq Qq"));
    addIntegerPair(t, 1, n.opcode, p66, n.name, "+Vx Wx", "=Vx Hx Wdq", Feature::sse2);
  }
  struct Group {
    unsigned opcode, reg;
    const char* name;
    bool mmx;
  };
  constexpr Group kGroups[] = {{0x71, 2, "vpsrlw", true},  {0x71, 4, "vpsraw", true},   {0x71, 6, "vpsllw", true},
                               {0x72, 2, "vpsrld", true},  {0x72, 4, "vpsrad", true},   {0x72, 6, "vpslld", true},
                               {0x73, 2, "vpsrlq", true},  {0x73, 3, "vpsrldq", false}, {0x73, 6, "vpsllq", true},
                               {0x73, 7, "vpslldq", false}};
  for (const Group& g : kGroups) {
    if (g.mmx) t.add(mmxRow(1, g.opcode, g.name + 1, "+Nq Ib").reg(g.reg));
    t.add(legacyVector(1, g.opcode, p66, g.name + 1, "+Ux Ib", Feature::sse2).reg(g.reg));
    t.add(vexVector(1, g.opcode, p66, g.name, "=Hx Ux Ib").reg(g.reg).l(0));
    t.add(vexVector(1, g.opcode, p66, g.name, "=Hx Ux Ib", Feature::avx2).reg(g.reg).l(1));
  }
  t.add(mmxRow(1, 0x70, "pshufw", "=Pq Qq Ib", Feature::sse));
  addIntegerPair(t, 1, 0x70, p66, "vpshufd", "=Vx Wx Ib", "=Vx Wx Ib", Feature::sse2);
  addIntegerPair(t, 1, 0x70, pF3, "vpshufhw", "=Vx Wx Ib", "=Vx Wx Ib", Feature::sse2);
  addIntegerPair(t, 1, 0x70, pF2, "vpshuflw", "=Vx Wx Ib", "=Vx Wx Ib", Feature::sse2);
  t.add(mmxRow(1, 0xd7, "pmovmskb", "=Gd Nq", Feature::sse));
  addIntegerPair(t, 1, 0xd7, p66, "vpmovmskb", "=Gd Ux", "=Gd Ux", Feature::sse2);
  // Word inserts and extracts.
  t.add(mmxRow(1, 0xc4, "pinsrw", "+Pq Ew Ib", Feature::sse));
  t.add(legacyVector(1, 0xc4, p66, "pinsrw", "+Vx Ew Ib", Feature::sse2));
  t.add(vexVector(1, 0xc4, p66, "vpinsrw", "=Vx Hx Ew Ib").l(0));
  t.add(mmxRow(1, 0xc5, "pextrw", "=Gd Nq Ib", Feature::sse));
  t.add(legacyVector(1, 0xc5, p66, "pextrw", "=Gd Ux Ib", Feature::sse2));
  t.add(vexVector(1, 0xc5, p66, "vpextrw", "=Gd Ux Ib").l(0));
  // Masked stores at DS:rDI.
  Row maskmovq = mmxRow(1, 0xf7, "maskmovq", "Pq Nq", Feature::sse);
  Row maskmovdqu = legacyVector(1, 0xf7, p66, "maskmovdqu", "Vx Ux", Feature::sse2);
  Row vmaskmovdqu = vexVector(1, 0xf7, p66, "vmaskmovdqu", "Vx Ux").l(0);
  for (Row r : {maskmovq, maskmovdqu, vmaskmovdqu}) {
    r.info.op = Op::maskmov;
    t.add(r);
  }
}

constexpr void addSsse3Rows(RowList& t) {
  struct Name {
    unsigned opcode;
    const char* name;
  };
  constexpr Name kBinary[] = {{0x00, "vpshufb"},    {0x01, "vphaddw"}, {0x02, "vphaddd"}, {0x03, "vphaddsw"},
                              {0x04, "vpmaddubsw"}, {0x05, "vphsubw"}, {0x06, "vphsubd"}, {0x07, "vphsubsw"},
                              {0x08, "vpsignb"},    {0x09, "vpsignw"}, {0x0a, "vpsignd"}, {0x0b, "vpmulhrsw"}};
  for (const Name& n : kBinary) addMmxFamily(t, 2, n.opcode, n.name, Feature::ssse3, Feature::ssse3);
  constexpr Name kAbs[] = {{0x1c, "vpabsb"}, {0x1d, "vpabsw"}, {0x1e, "vpabsd"}};
  for (const Name& n : kAbs) {
    t.add(mmxRow(2, n.opcode, n.name + 1, "=Pq Qq", Feature::ssse3));
    addIntegerPair(t, 2, n.opcode, p66, n.name, "=Vx Wx", "=Vx Wx", Feature::ssse3);
  }
  t.add(mmxRow(3, 0x0f, "palignr", "+Pq Qq Ib", Feature::ssse3));
  addIntegerPair(t, 3, 0x0f, p66, "vpalignr", "+Vx Wx Ib", "=Vx Hx Wx Ib", Feature::ssse3);
}

constexpr void addSse4Rows(RowList& t) {
  using enum Feature;
  struct Name {
    unsigned opcode;
    const char* name;
  };
  constexpr Name kBinary[] = {{0x28, "vpmuldq"}, {0x29, "vpcmpeqq"}, {0x2b, "vpackusdw"}, {0x38, "vpminsb"},
                              {0x39, "vpminsd"}, {0x3a, "vpminuw"},  {0x3b, "vpminud"},   {0x3c, "vpmaxsb"},
                              {0x3d, "vpmaxsd"}, {0x3e, "vpmaxuw"},  {0x3f, "vpmaxud"},   {0x40, "vpmulld"}};
  for (const Name& n : kBinary) addIntegerPair(t, 2, n.opcode, p66, n.name, "+Vx Wx", "=Vx Hx Wx", sse41);
  addIntegerPair(t, 2, 0x37, p66, "vpcmpgtq", "+Vx Wx", "=Vx Hx Wx", sse42);
  // Sign and zero extension: the source is a half, a quarter or an eighth of the vector.
  constexpr Name kSign[] = {{0, "vpmovsxbw"}, {1, "vpmovsxbd"}, {2, "vpmovsxbq"},
                            {3, "vpmovsxwd"}, {4, "vpmovsxwq"}, {5, "vpmovsxdq"}};
  constexpr Name kZero[] = {{0, "vpmovzxbw"}, {1, "vpmovzxbd"}, {2, "vpmovzxbq"},
                            {3, "vpmovzxwd"}, {4, "vpmovzxwq"}, {5, "vpmovzxdq"}};
  constexpr std::string_view kSource[] = {"=Vx Wh", "=Vx Wf", "=Vx We", "=Vx Wh", "=Vx Wf", "=Vx Wh"};
  for (unsigned i = 0; i < 6; ++i) {
    addIntegerPair(t, 2, 0x20 + i, p66, kSign[i].name, kSource[i], kSource[i], sse41);
    addIntegerPair(t, 2, 0x30 + i, p66, kZero[i].name, kSource[i], kSource[i], sse41);
  }
  constexpr Name kBlend[] = {{0x10, "pblendvb"}, {0x14, "blendvps"}, {0x15, "blendvpd"}};
  for (const Name& n : kBlend) {
    t.add(legacyVector(2, n.opcode, p66, n.name, "+Vx Wx", sse41).aligned().attr(attribute::implicitXmm0));
  }
  t.add(legacyVector(2, 0x17, p66, "ptest", "Vx Wx", sse41).aligned().f(0, fAll));
  t.add(vexVector(2, 0x17, p66, "vptest", "Vx Wx").f(0, fAll));
  t.add(legacyVector(2, 0x41, p66, "phminposuw", "=Vx Wx", sse41).aligned());
  t.add(vexVector(2, 0x41, p66, "vphminposuw", "=Vx Wx").l(0));
  addPair(t, 3, 0x08, p66, "vroundps", "=Vx Wx Ib", "=Vx Wx Ib", sse41);
  addPair(t, 3, 0x09, p66, "vroundpd", "=Vx Wx Ib", "=Vx Wx Ib", sse41);
  addPair(t, 3, 0x0a, p66, "vroundss", "+Vx Wd Ib", "=Vx Hx Wd Ib", sse41);
  addPair(t, 3, 0x0b, p66, "vroundsd", "+Vx Wq Ib", "=Vx Hx Wq Ib", sse41);
  addPair(t, 3, 0x0c, p66, "vblendps", "+Vx Wx Ib", "=Vx Hx Wx Ib", sse41);
  addPair(t, 3, 0x0d, p66, "vblendpd", "+Vx Wx Ib", "=Vx Hx Wx Ib", sse41);
  addIntegerPair(t, 3, 0x0e, p66, "vpblendw", "+Vx Wx Ib", "=Vx Hx Wx Ib", sse41);
  addPair(t, 3, 0x40, p66, "vdpps", "+Vx Wx Ib", "=Vx Hx Wx Ib", sse41);
  addIntegerPair(t, 3, 0x42, p66, "vmpsadbw", "+Vx Wx Ib", "=Vx Hx Wx Ib", sse41);
  auto pair128 = [&](unsigned opcode, const char* name, std::string_view legacy, std::string_view vex) {
    Row r = legacyVector(3, opcode, p66, name + 1, legacy, sse41);
    t.add(r.info.memoryBytes == memory_size::vector ? r.aligned() : r);
    t.add(vexVector(3, opcode, p66, name, vex).l(0));
  };
  pair128(0x41, "vdppd", "+Vx Wx Ib", "=Vx Hx Wx Ib");
  pair128(0x14, "vpextrb", "=Eb Vx Ib", "=Eb Vx Ib");
  pair128(0x15, "vpextrw", "=Ew Vx Ib", "=Ew Vx Ib");
  pair128(0x16, "vpextrd", "=Ey Vx Ib", "=Ey Vx Ib");
  pair128(0x17, "vextractps", "=Ed Vx Ib", "=Ed Vx Ib");
  pair128(0x20, "vpinsrb", "+Vx Eb Ib", "=Vx Hx Eb Ib");
  pair128(0x21, "vinsertps", "+Vx Wd Ib", "=Vx Hx Wd Ib");
  pair128(0x22, "vpinsrd", "+Vx Ey Ib", "=Vx Hx Ey Ib");
  // String comparison: 16 bytes, never an alignment fault; the explicit-length forms read rAX and rDX, the index forms
  // write rCX.
  constexpr Name kString[] = {{0x60, "vpcmpestrm"}, {0x61, "vpcmpestri"}, {0x62, "vpcmpistrm"}, {0x63, "vpcmpistri"}};
  for (const Name& n : kString) {
    t.add(legacyVector(3, n.opcode, p66, n.name + 1, "Vx Wx Ib", sse42).f(0, fAll).attr(attribute::implicitGprs));
    t.add(vexVector(3, n.opcode, p66, n.name, "Vx Wx Ib").f(0, fAll).attr(attribute::implicitGprs).l(0));
  }
}

constexpr void addCryptoRows(RowList& t) {
  using enum Feature;
  struct Name {
    unsigned opcode;
    const char* name;
  };
  constexpr Name kAes[] = {{0xdc, "vaesenc"}, {0xdd, "vaesenclast"}, {0xde, "vaesdec"}, {0xdf, "vaesdeclast"}};
  for (const Name& n : kAes) {
    t.add(legacyVector(2, n.opcode, p66, n.name + 1, "+Vx Wx", aes).aligned());
    t.add(vexVector(2, n.opcode, p66, n.name, "=Vx Hx Wx", aes).l(0));
    t.add(vexVector(2, n.opcode, p66, n.name, "=Vx Hx Wx", vaes).l(1));
  }
  t.add(legacyVector(2, 0xdb, p66, "aesimc", "=Vx Wx", aes).aligned());
  t.add(vexVector(2, 0xdb, p66, "vaesimc", "=Vx Wx", aes).l(0));
  t.add(legacyVector(3, 0xdf, p66, "aeskeygenassist", "=Vx Wx Ib", aes).aligned());
  t.add(vexVector(3, 0xdf, p66, "vaeskeygenassist", "=Vx Wx Ib", aes).l(0));
  t.add(legacyVector(3, 0x44, p66, "pclmulqdq", "+Vx Wx Ib", pclmul).aligned());
  t.add(vexVector(3, 0x44, p66, "vpclmulqdq", "=Vx Hx Wx Ib", pclmul).l(0));
  t.add(vexVector(3, 0x44, p66, "vpclmulqdq", "=Vx Hx Wx Ib", vpclmul).l(1));
  constexpr Name kSha[] = {
      {0xc8, "sha1nexte"}, {0xc9, "sha1msg1"}, {0xca, "sha1msg2"}, {0xcc, "sha256msg1"}, {0xcd, "sha256msg2"}};
  // No alignment fault: so on AMD processors; where the host faults, the engines go through an aligned copy.
  for (const Name& n : kSha) t.add(legacyVector(2, n.opcode, np, n.name, "+Vx Wx", sha));
  t.add(legacyVector(2, 0xcb, np, "sha256rnds2", "+Vx Wx", sha).attr(attribute::implicitXmm0));
  t.add(legacyVector(3, 0xcc, np, "sha1rnds4", "+Vx Wx Ib", sha));
  t.add(legacyVector(2, 0xcf, p66, "gf2p8mulb", "+Vx Wx", gfni).aligned());
  t.add(vexVector(2, 0xcf, p66, "vgf2p8mulb", "=Vx Hx Wx", gfni).w(0));
  t.add(legacyVector(3, 0xce, p66, "gf2p8affineqb", "+Vx Wx Ib", gfni).aligned());
  t.add(vexVector(3, 0xce, p66, "vgf2p8affineqb", "=Vx Hx Wx Ib", gfni).w(1));
  t.add(legacyVector(3, 0xcf, p66, "gf2p8affineinvqb", "+Vx Wx Ib", gfni).aligned());
  t.add(vexVector(3, 0xcf, p66, "vgf2p8affineinvqb", "=Vx Hx Wx Ib", gfni).w(1));
}

constexpr void addAvxRows(RowList& t) {
  using enum Feature;
  t.add(vexVector(1, 0x77, np, "vzeroupper", "").l(0));
  t.add(vexVector(1, 0x77, np, "vzeroall", "").l(1));
  t.add(vexVector(2, 0x0c, p66, "vpermilps", "=Vx Hx Wx").w(0));
  t.add(vexVector(2, 0x0d, p66, "vpermilpd", "=Vx Hx Wx").w(0));
  t.add(vexVector(3, 0x04, p66, "vpermilps", "=Vx Wx Ib").w(0));
  t.add(vexVector(3, 0x05, p66, "vpermilpd", "=Vx Wx Ib").w(0));
  t.add(vexVector(2, 0x0e, p66, "vtestps", "Vx Wx").w(0).f(0, fAll));
  t.add(vexVector(2, 0x0f, p66, "vtestpd", "Vx Wx").w(0).f(0, fAll));
  t.add(vexVector(2, 0x16, p66, "vpermps", "=Vx Hx Wx", avx2).w(0).l(1));
  t.add(vexVector(2, 0x36, p66, "vpermd", "=Vx Hx Wx", avx2).w(0).l(1));
  t.add(vexVector(3, 0x00, p66, "vpermq", "=Vx Wx Ib", avx2).w(1).l(1));
  t.add(vexVector(3, 0x01, p66, "vpermpd", "=Vx Wx Ib", avx2).w(1).l(1));
  t.add(vexVector(3, 0x02, p66, "vpblendd", "=Vx Hx Wx Ib", avx2).w(0));
  t.add(vexVector(3, 0x06, p66, "vperm2f128", "=Vx Hx Wx Ib").w(0).l(1));
  t.add(vexVector(3, 0x46, p66, "vperm2i128", "=Vx Hx Wx Ib", avx2).w(0).l(1));
  t.add(vexVector(3, 0x18, p66, "vinsertf128", "=Vx Hx Wdq Ib").w(0).l(1));
  t.add(vexVector(3, 0x19, p66, "vextractf128", "=Wdq Vx Ib").w(0).l(1));
  t.add(vexVector(3, 0x38, p66, "vinserti128", "=Vx Hx Wdq Ib", avx2).w(0).l(1));
  t.add(vexVector(3, 0x39, p66, "vextracti128", "=Wdq Vx Ib", avx2).w(0).l(1));
  t.add(vexVector(3, 0x4a, p66, "vblendvps", "=Vx Hx Wx Lx").w(0));
  t.add(vexVector(3, 0x4b, p66, "vblendvpd", "=Vx Hx Wx Lx").w(0));
  t.add(vexVector(3, 0x4c, p66, "vpblendvb", "=Vx Hx Wx Lx").w(0).l(0));
  t.add(vexVector(3, 0x4c, p66, "vpblendvb", "=Vx Hx Wx Lx", avx2).w(0).l(1));
  // Broadcasts: from memory with AVX, from a register with AVX2.
  t.add(vexVector(2, 0x18, p66, "vbroadcastss", "=Vx Md").w(0));
  t.add(vexVector(2, 0x18, p66, "vbroadcastss", "=Vx Ux", avx2).w(0));
  t.add(vexVector(2, 0x19, p66, "vbroadcastsd", "=Vx Mq").w(0).l(1));
  t.add(vexVector(2, 0x19, p66, "vbroadcastsd", "=Vx Ux", avx2).w(0).l(1));
  t.add(vexVector(2, 0x1a, p66, "vbroadcastf128", "=Vx Mdq").w(0).l(1));
  t.add(vexVector(2, 0x5a, p66, "vbroadcasti128", "=Vx Mdq", avx2).w(0).l(1));
  t.add(vexVector(2, 0x58, p66, "vpbroadcastd", "=Vx Wd", avx2).w(0));
  t.add(vexVector(2, 0x59, p66, "vpbroadcastq", "=Vx Wq", avx2).w(0));
  t.add(vexVector(2, 0x78, p66, "vpbroadcastb", "=Vx Wb", avx2).w(0));
  t.add(vexVector(2, 0x79, p66, "vpbroadcastw", "=Vx Ww", avx2).w(0));
  // Variable shifts.
  t.add(vexVector(2, 0x45, p66, "vpsrlvd", "=Vx Hx Wx", avx2).w(0));
  t.add(vexVector(2, 0x45, p66, "vpsrlvq", "=Vx Hx Wx", avx2).w(1));
  t.add(vexVector(2, 0x46, p66, "vpsravd", "=Vx Hx Wx", avx2).w(0));
  t.add(vexVector(2, 0x47, p66, "vpsllvd", "=Vx Hx Wx", avx2).w(0));
  t.add(vexVector(2, 0x47, p66, "vpsllvq", "=Vx Hx Wx", avx2).w(1));
  struct Name {
    unsigned opcode;
    const char* name;
  };
  constexpr Name kVnni[] = {{0x50, "vpdpbusd"}, {0x51, "vpdpbusds"}, {0x52, "vpdpwssd"}, {0x53, "vpdpwssds"}};
  for (const Name& n : kVnni) t.add(vexVector(2, n.opcode, p66, n.name, "+Vx Hx Wx", avxvnni).w(0));
  // Conditional accesses.
  auto masked = [&](unsigned opcode, const char* name, bool store, unsigned w, Feature feature) {
    Row r = vexVector(2, opcode, p66, name, store ? "=Mx Hx Vx" : "=Vx Hx Mx", feature).w(w);
    r.info.op = Op::vmaskmov;
    t.add(r);
  };
  masked(0x2c, "vmaskmovps", false, 0, avx);
  masked(0x2d, "vmaskmovpd", false, 0, avx);
  masked(0x2e, "vmaskmovps", true, 0, avx);
  masked(0x2f, "vmaskmovpd", true, 0, avx);
  masked(0x8c, "vpmaskmovd", false, 0, avx2);
  masked(0x8c, "vpmaskmovq", false, 1, avx2);
  masked(0x8e, "vpmaskmovd", true, 0, avx2);
  masked(0x8e, "vpmaskmovq", true, 1, avx2);
  constexpr Name kGather[] = {{0x90, "vpgatherdd"}, {0x90, "vpgatherdq"}, {0x91, "vpgatherqd"}, {0x91, "vpgatherqq"},
                              {0x92, "vgatherdps"}, {0x92, "vgatherdpd"}, {0x93, "vgatherqps"}, {0x93, "vgatherqpd"}};
  for (unsigned i = 0; i < 8; ++i) {
    Row r = vexVector(2, kGather[i].opcode, p66, kGather[i].name, i % 2 ? "+Vx Mq Hx" : "+Vx Md Hx", avx2).w(i % 2);
    r.info.op = Op::gather;
    t.add(r.attr(attribute::vsib));
  }
}

constexpr void addFmaRows(RowList& t) {
  struct Fma {
    unsigned opcode;
    const char* single[3];
    const char* twice[3];
    bool scalar;
  };
  constexpr Fma kFma[] = {
      {0x6,
       {"vfmaddsub132ps", "vfmaddsub213ps", "vfmaddsub231ps"},
       {"vfmaddsub132pd", "vfmaddsub213pd", "vfmaddsub231pd"},
       false},
      {0x7,
       {"vfmsubadd132ps", "vfmsubadd213ps", "vfmsubadd231ps"},
       {"vfmsubadd132pd", "vfmsubadd213pd", "vfmsubadd231pd"},
       false},
      {0x8, {"vfmadd132ps", "vfmadd213ps", "vfmadd231ps"}, {"vfmadd132pd", "vfmadd213pd", "vfmadd231pd"}, false},
      {0x9, {"vfmadd132ss", "vfmadd213ss", "vfmadd231ss"}, {"vfmadd132sd", "vfmadd213sd", "vfmadd231sd"}, true},
      {0xa, {"vfmsub132ps", "vfmsub213ps", "vfmsub231ps"}, {"vfmsub132pd", "vfmsub213pd", "vfmsub231pd"}, false},
      {0xb, {"vfmsub132ss", "vfmsub213ss", "vfmsub231ss"}, {"vfmsub132sd", "vfmsub213sd", "vfmsub231sd"}, true},
      {0xc, {"vfnmadd132ps", "vfnmadd213ps", "vfnmadd231ps"}, {"vfnmadd132pd", "vfnmadd213pd", "vfnmadd231pd"}, false},
      {0xd, {"vfnmadd132ss", "vfnmadd213ss", "vfnmadd231ss"}, {"vfnmadd132sd", "vfnmadd213sd", "vfnmadd231sd"}, true},
      {0xe, {"vfnmsub132ps", "vfnmsub213ps", "vfnmsub231ps"}, {"vfnmsub132pd", "vfnmsub213pd", "vfnmsub231pd"}, false},
      {0xf, {"vfnmsub132ss", "vfnmsub213ss", "vfnmsub231ss"}, {"vfnmsub132sd", "vfnmsub213sd", "vfnmsub231sd"}, true}};
  for (const Fma& f : kFma) {
    for (unsigned order = 0; order < 3; ++order) {
      unsigned opcode = 0x90 + 0x10 * order + f.opcode;
      t.add(vexVector(2, opcode, p66, f.single[order], f.scalar ? "+Vx Hx Wd" : "+Vx Hx Wx", Feature::fma).w(0));
      t.add(vexVector(2, opcode, p66, f.twice[order], f.scalar ? "+Vx Hx Wq" : "+Vx Hx Wx", Feature::fma).w(1));
    }
  }
}

constexpr void addVectorRows(RowList& t) {
  addVectorMoves(t);
  addFloatRows(t);
  addConversionRows(t);
  addIntegerVectorRows(t);
  addSsse3Rows(t);
  addSse4Rows(t);
  addCryptoRows(t);
  addAvxRows(t);
  addFmaRows(t);
}

}  // namespace lodge::x86::table
