// SPDX-License-Identifier: Apache-2.0
// The notation in which the opcode table is written. Internal to the decoder, its tests and generators.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "x86/instruction.h"
#include "x86/opcodes.h"
#include "x86/state.h"

namespace lodge::x86::table {

/// Mandatory prefixes, as sets: an opcode without a `pp` restriction takes all of them.
enum PrefixSet : std::uint8_t { np = 1, p66 = 2, pF3 = 4, pF2 = 8, np66 = 3, anyPrefix = 15 };

/// Never defined: a call during constant evaluation ends the build, with the message in the compiler's output.
void tableError(const char* message);

/// Groups of flags.
inline constexpr std::uint32_t fC = flag::cf, fP = flag::pf, fA = flag::af, fZ = flag::zf, fS = flag::sf, fO = flag::of,
                               fD = flag::df, fAll = flag::arithmetic;

/// One row: what the opcode is and which encodings select it. Rows of one opcode are told apart by sets of prefixes,
/// modes, and ModRM and REX/VEX fields; two rows that overlap do not compile.
struct Row {
  OpcodeInfo info{};
  Encoding encoding = Encoding::legacy;
  std::uint8_t map = 0;
  std::uint8_t opcode = 0;
  std::uint8_t opcodeCount = 1;  ///< 8 for opcodes with a register in their low bits
  std::uint8_t prefixes = anyPrefix;
  std::uint8_t mods = 3;     ///< bit 0: memory, bit 1: register
  std::uint8_t regs = 0xff;  ///< set of ModRM.reg values
  std::uint8_t rms = 0xff;   ///< set of ModRM.rm values
  std::uint8_t modes = 3;    ///< bit 0: 16/32-bit, bit 1: 64-bit
  std::uint8_t ws = 3;       ///< REX.W/VEX.W
  std::uint8_t ls = 7;       ///< VEX.L, EVEX.L'L: set of vector lengths
  std::uint8_t bs = 3;       ///< REX.B (for 90 only)
  bool modrm = false;
  bool usesVvvv = false;
  bool regIsMask = false, rmIsMask = false, vvvvIsMask = false;
  bool needsMask = false;  ///< k0 is #UD
  bool sizedByW = false;   ///< operands of size y and none of size v: 66 has no say

  constexpr Row pp(std::uint8_t set) const {
    Row r = *this;
    r.prefixes = set;
    return r;
  }
  constexpr Row reg(unsigned n) const {
    Row r = *this;
    r.regs = static_cast<std::uint8_t>(1u << n);
    r.modrm = true;
    return r;
  }
  constexpr Row regSet(std::uint8_t set) const {
    Row r = *this;
    r.regs = set;
    r.modrm = true;
    return r;
  }
  constexpr Row rm(unsigned n) const {
    Row r = *this;
    r.rms = static_cast<std::uint8_t>(1u << n);
    r.mods = 2;
    r.modrm = true;
    return r;
  }
  constexpr Row mem() const {
    Row r = *this;
    r.mods = 1;
    r.modrm = true;
    return r;
  }
  constexpr Row regOnly() const {
    Row r = *this;
    r.mods = 2;
    r.modrm = true;
    return r;
  }
  constexpr Row w(unsigned n) const {
    Row r = *this;
    r.ws = static_cast<std::uint8_t>(1u << n);
    return r;
  }
  constexpr Row l(unsigned n) const {
    Row r = *this;
    r.ls = static_cast<std::uint8_t>(1u << n);
    return r;
  }
  constexpr Row rexB(unsigned n) const {
    Row r = *this;
    r.bs = static_cast<std::uint8_t>(1u << n);
    return r;
  }
  constexpr Row only64() const {
    Row r = *this;
    r.modes = 2;
    r.info.attributes |= attribute::only64;
    return r;
  }
  constexpr Row not64() const {
    Row r = *this;
    r.modes = 1;
    r.info.attributes |= attribute::invalid64;
    return r;
  }
  constexpr Row in64() const {
    Row r = *this;
    r.modes = 2;
    return r;
  }
  constexpr Row notIn64() const {
    Row r = *this;
    r.modes = 1;
    return r;
  }
  constexpr Row attr(std::uint32_t set) const {
    Row r = *this;
    r.info.attributes |= set;
    return r;
  }
  constexpr Row d64() const { return attr(attribute::default64); }
  constexpr Row f64() const { return attr(attribute::force64); }
  constexpr Row lock() const { return attr(attribute::lockable); }
  constexpr Row stack() const { return attr(attribute::stackAccess); }
  constexpr Row priv() const { return attr(attribute::privileged).cls(OpClass::system); }
  constexpr Row aligned() const { return attr(attribute::alignedMemory); }
  constexpr Row ft(Feature f) const {
    Row r = *this;
    r.info.feature = f;
    return r;
  }
  constexpr Row cls(OpClass c) const {
    Row r = *this;
    r.info.cls = c;
    return r;
  }
  constexpr Row size(std::uint8_t bytes) const {
    Row r = *this;
    r.info.memoryBytes = bytes;
    return r;
  }
  /// Flags: read, written with a defined value, left undefined.
  constexpr Row f(std::uint32_t read, std::uint32_t written, std::uint32_t undefined = 0) const {
    Row r = *this;
    r.info.flagsRead = read;
    r.info.flagsWritten = written;
    r.info.flagsUndefined = undefined;
    if (read != 0) r.info.attributes |= attribute::readsFlags;
    return r;
  }
};

/// A growing list of rows for the compile-time builder.
struct RowList {
  std::array<Row, 2600> rows{};
  std::size_t count = 0;
  constexpr void add(const Row& row) { rows[count++] = row; }
};

/// Sizes in operand codes: SDM appendix A's lower-case letters where it has them.
constexpr std::uint8_t memorySizeOf(std::string_view s) {
  using namespace memory_size;
  if (s == "b") return 1;
  if (s == "w") return 2;
  if (s == "d") return 4;
  if (s == "q") return 8;
  if (s == "t") return 10;
  if (s == "dq") return 16;
  if (s == "qq") return 32;
  if (s == "v") return operand;
  if (s == "x") return vector;
  if (s == "h") return half;
  if (s == "f") return quarter;
  if (s == "e") return eighth;
  if (s == "y") return dwordOrQword;
  if (s == "z") return wordOrDword;
  if (s == "p") return farPointer;
  if (s == "s") return tableRegister;
  if (s == "a") return boundPair;
  if (s == "env") return x87Environment;
  if (s == "st") return x87State;
  if (s == "fx") return fxsaveArea;
  if (s == "xs") return xsaveArea;
  if (s == "2y") return pairOfY;
  if (s.empty()) return none;
  tableError("unknown operand size");
  return 0;
}

constexpr Immediate immediateOf(std::string_view token) {
  if (token == "Ib") return Immediate::byte;
  if (token == "Is") return Immediate::byteSigned;
  if (token == "Iw") return Immediate::word;
  if (token == "Iz") return Immediate::z;
  if (token == "Iv") return Immediate::v;
  if (token == "Iwb") return Immediate::wordByte;
  if (token == "Ap") return Immediate::farPointer;
  if (token == "Ob" || token == "Ov") return Immediate::offset;
  if (token == "Jb") return Immediate::relative8;
  if (token == "Jz") return Immediate::relativeZ;
  tableError("unknown immediate");
  return Immediate::none;
}

/// One operand of the notation: `=` written, `+` read and written, else read; then the letter and the size.
struct OperandCode {
  bool reads = true;
  bool writes = false;
  char letter = 0;
  std::string_view token;
  std::string_view size;
};

constexpr OperandCode operandCode(std::string_view token) {
  OperandCode code;
  if (token[0] == '=' || token[0] == '+') {
    code.writes = true;
    code.reads = token[0] == '+';
    token.remove_prefix(1);
  }
  code.token = token;
  code.letter = token[0];
  code.size = token.substr(1);
  return code;
}

constexpr void applyRm(Row& row, const OperandCode& code) {
  row.modrm = true;
  row.info.memoryBytes = memorySizeOf(code.size);
  bool addressOnly = code.letter == 'M' && code.size.empty();
  if (code.reads && !addressOnly) row.info.attributes |= attribute::readsRm;
  if (code.writes) row.info.attributes |= attribute::writesRm;
}

constexpr void applyReg(Row& row, const OperandCode& code) {
  row.modrm = true;
  if (code.reads) row.info.attributes |= attribute::readsReg;
  if (code.writes) row.info.attributes |= attribute::writesReg;
}

constexpr void memoryForm(Row& row) {
  row.mods = 1;
  row.info.attributes |= attribute::memoryOnly;
}
constexpr void registerForm(Row& row) {
  row.mods = 2;
  row.info.attributes |= attribute::registerOnly;
}

/// Letters. General registers: E r/m, M memory, R register r/m, G reg, B vvvv, Z opcode bits, A accumulator, C CL, 1.
/// Vectors: W r/m, U register r/m, V reg, H vvvv, L imm8[7:4]. MMX: Q r/m, N register r/m, P reg. x87: F register r/m.
/// Mask registers: m r/m, u register r/m, k reg, h vvvv.
/// S segment register, K control or debug register in reg, I/J/O/Ap immediates, X/Y string operands.
constexpr void applyOperand(Row& row, const OperandCode& code) {
  using namespace attribute;
  switch (code.letter) {
    case 'E':
      applyRm(row, code);
      row.info.attributes |= rmIsGpr;
      break;
    case 'M':
      applyRm(row, code);
      memoryForm(row);
      break;
    case 'R':
      applyRm(row, code);
      registerForm(row);
      row.info.attributes |= rmIsGpr;
      break;
    case 'W':
    case 'Q':
      applyRm(row, code);
      break;
    case 'U':
    case 'N':
    case 'F':
      applyRm(row, code);
      registerForm(row);
      break;
    case 'G':
      applyReg(row, code);
      row.info.attributes |= regIsGpr;
      break;
    case 'V':
    case 'P':
    case 'S':
    case 'K':
      applyReg(row, code);
      break;
    case 'B':
      row.usesVvvv = true;
      row.info.attributes |= vvvvIsGpr;
      break;
    case 'k':
      applyReg(row, code);
      row.regIsMask = true;
      break;
    case 'm':
      applyRm(row, code);
      row.rmIsMask = true;
      break;
    case 'u':
      applyRm(row, code);
      row.rmIsMask = true;
      registerForm(row);
      break;
    case 'h':
      row.usesVvvv = row.vvvvIsMask = true;
      break;
    case 'H':
      row.usesVvvv = true;
      break;
    case 'L':
      row.info.immediate = Immediate::byte;
      break;
    case 'Z':
      row.opcodeCount = 8;
      break;
    case 'A':
      if (code.token == "Ap") row.info.immediate = Immediate::farPointer;
      break;
    case 'I':
    case 'J':
    case 'O':
      row.info.immediate = immediateOf(code.token);
      break;
    case 'C':
    case '1':
    case 'X':
    case 'Y':
    case 'D':
      break;
    default:
      tableError("unknown operand letter");
  }
}

constexpr Form formOf(std::string_view letters) {
  constexpr struct {
    std::string_view letters;
    Form form;
  } kForms[] = {{"", Form::none},     {"E", Form::e},     {"M", Form::e},    {"R", Form::e},       {"G", Form::g},
                {"EG", Form::e_g},    {"GE", Form::g_e},  {"GM", Form::g_e}, {"MG", Form::e_g},    {"RG", Form::e_g},
                {"EI", Form::e_i},    {"E1", Form::e_1},  {"EC", Form::e_c}, {"EGI", Form::e_g_i}, {"EGC", Form::e_g_c},
                {"GEI", Form::g_e_i}, {"AI", Form::a_i},  {"Z", Form::z},    {"ZI", Form::z_i},    {"AZ", Form::a_z},
                {"AO", Form::a_o},    {"OA", Form::o_a},  {"I", Form::i},    {"J", Form::j},       {"ES", Form::e_s},
                {"SE", Form::s_e},    {"RK", Form::r_c},  {"KR", Form::c_r}, {"GBE", Form::g_b_e}, {"GEB", Form::g_e_b},
                {"BE", Form::b_e},    {"AD", Form::none}, {"X", Form::none}, {"Y", Form::none},    {"XY", Form::none},
                {"YX", Form::none},   {"S", Form::sreg}};
  for (const auto& entry : kForms) {
    if (entry.letters == letters) return entry.form;
  }
  return Form::vector;
}

/// Makes a row from its opcode and its operands ("+Ev Gv").
constexpr Row row(unsigned map, unsigned opcode, Op op, const char* mnemonic, std::string_view operands = {}) {
  Row row;
  row.map = static_cast<std::uint8_t>(map);
  row.opcode = static_cast<std::uint8_t>(opcode);
  row.info.op = op;
  row.info.cls = OpClass::integer;
  row.info.feature = Feature::base;
  row.info.mnemonic = mnemonic;
  row.info.memoryBytes = memory_size::operand;
  char letters[8] = {};
  std::size_t count = 0;
  bool anyV = false;
  while (!operands.empty()) {
    std::size_t end = operands.find(' ');
    OperandCode code = operandCode(operands.substr(0, end));
    operands = end == std::string_view::npos ? std::string_view{} : operands.substr(end + 1);
    applyOperand(row, code);
    bool sized = code.letter == 'E' || code.letter == 'G' || code.letter == 'Z' || code.letter == 'A' ||
                 code.letter == 'O' || code.letter == 'X' || code.letter == 'Y';
    if (count == 0 && sized && code.size == "b") row.info.attributes |= attribute::byteForm;
    if (code.size == "y") row.sizedByW = true;
    if (code.size == "v") anyV = true;
    letters[count++] = code.letter;
  }
  row.sizedByW = row.sizedByW && !anyV;
  row.info.form = formOf({letters, count});
  if (row.info.immediate == Immediate::wordByte) row.info.form = Form::i_i;
  if (row.info.immediate == Immediate::farPointer) row.info.form = Form::far;
  return row;
}

constexpr Row row0(unsigned opcode, Op op, const char* mnemonic, std::string_view operands = {}) {
  return row(0, opcode, op, mnemonic, operands);
}
constexpr Row row1(unsigned opcode, Op op, const char* mnemonic, std::string_view operands = {}) {
  return row(1, opcode, op, mnemonic, operands);
}

}  // namespace lodge::x86::table
