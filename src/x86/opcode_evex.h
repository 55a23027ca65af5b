// SPDX-License-Identifier: Apache-2.0
// The notation in which EVEX rows are written. Internal, see opcode_row.h.
#pragma once

#include "x86/opcode_row.h"

namespace lodge::x86::table {

/// One EVEX instruction. `w`: EVEX.W, or 2 for either; `lengths`: bit n: vector length 128 << n (scalars: all);
/// `element`: bytes of an element in memory; `reg`: ModRM.reg where it is part of the opcode. Properties:
/// `k` takes a mask, `z` a mask and zeroing, `!` needs a mask other than k0, `f` accesses no masked element,
/// `b` broadcasts an element, `r` rounding or SAE in register forms, `v` a vector of indices, `a` aligned memory.
struct EvexLine {
  std::uint8_t opcode;
  PrefixSet prefix;
  std::uint8_t w;
  std::uint8_t lengths;
  const char* name;
  std::string_view operands;
  std::uint8_t element;
  std::string_view properties;
  Feature feature = Feature::avx512;
  int reg = -1;
};

using Feature::avx512bf16, Feature::avx512bitalg, Feature::avx512ifma, Feature::avx512vbmi, Feature::avx512vbmi2,
    Feature::avx512vnni, Feature::avx512vp2intersect, Feature::avx512vpopcnt, Feature::gfni, Feature::vaes,
    Feature::vpclmul;
inline constexpr Feature kF = Feature::avx512;

constexpr std::uint32_t evexAttributes(std::string_view properties) {
  using namespace attribute;
  std::uint32_t a = avx512;
  for (char c : properties) {
    switch (c) {
      case 'k':
      case '!':
        a |= masked;
        break;
      case 'z':
        a |= masked | zeroing;
        break;
      case 'f':
        a |= suppressesFaults;
        break;
      case 'b':
        a |= broadcasts;
        break;
      case 'r':
        a |= rounds;
        break;
      case 'v':
        a |= vsib;
        break;
      case 'a':
        a |= alignedMemory;
        break;
      default:
        tableError("unknown property");
    }
  }
  return a;
}

constexpr Op evexOp(unsigned map, const EvexLine& line) {
  if (map != 2) return Op::native;
  switch (line.opcode) {
    case 0x62:
    case 0x88:
    case 0x89:
      return Op::expand;
    case 0x63:
    case 0x8a:
    case 0x8b:
      return line.prefix == p66 ? Op::compress : Op::native;
    case 0x90:
    case 0x91:
    case 0x92:
    case 0x93:
      return Op::gather;
    case 0xa0:
    case 0xa1:
    case 0xa2:
    case 0xa3:
      return Op::scatter;
    default:
      return Op::native;
  }
}

constexpr Row evexRow(unsigned map, const EvexLine& line) {
  Row r = row(map, line.opcode, evexOp(map, line), line.name, line.operands).pp(line.prefix);
  r = r.ft(line.feature).cls(OpClass::native).attr(evexAttributes(line.properties));
  r.encoding = Encoding::evex;
  r.ls = line.lengths;
  r.info.elementBytes = line.element;
  r.needsMask = line.properties.find('!') != std::string_view::npos;
  if (line.w != 2) r = r.w(line.w);
  if (line.reg >= 0) r = r.reg(static_cast<unsigned>(line.reg));
  return r;
}

}  // namespace lodge::x86::table
