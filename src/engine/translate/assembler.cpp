// SPDX-License-Identifier: Apache-2.0
// Encodings: SDM vol. 2, chapter 2.
#include "engine/translate/assembler.h"

#include "base/bytes.h"

namespace lodge::translate {

namespace {
constexpr std::uint8_t kMandatoryPrefix[4] = {0, 0x66, 0xf3, 0xf2};

bool isExtended(std::uint8_t r) {
  return r != host::none && (r & 8) != 0;
}
bool fitsInt8(std::int64_t v) {
  return v >= -128 && v <= 127;
}
}  // namespace

void Assembler::bytes(const std::uint8_t* from, unsigned count) {
  for (unsigned i = 0; i < count; ++i) byte(from[i]);
}

void Assembler::word32(std::uint32_t v) {
  storeLe(write_ + size_, v);
  size_ += 4;
}

void Assembler::word64(std::uint64_t v) {
  storeLe(write_ + size_, v);
  size_ += 8;
}

void Assembler::align(unsigned alignment) {
  // SDM vol. 2, NOP, table 4-12.
  static constexpr std::uint8_t nops[8][8] = {{0x90},
                                              {0x66, 0x90},
                                              {0x0f, 0x1f, 0x00},
                                              {0x0f, 0x1f, 0x40, 0x00},
                                              {0x0f, 0x1f, 0x44, 0x00, 0x00},
                                              {0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00},
                                              {0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00},
                                              {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00}};
  auto count = static_cast<unsigned>(-here() & (alignment - 1));
  while (count != 0) {
    unsigned n = count < 8 ? count : 8;
    bytes(nops[n - 1], n);
    count -= n;
  }
}

void Assembler::keepTogether(unsigned before, unsigned bytes) {
  constexpr std::uint64_t line = 64;
  while ((here() + before) / line != (here() + before + bytes - 1) / line) byte(0x90);
}

void Assembler::rex(bool w, std::uint8_t reg, const RegMem& rm, bool force) {
  bool b = rm.isMemory ? isExtended(rm.mem.base) : isExtended(rm.reg);
  bool x = rm.isMemory && isExtended(rm.mem.index);
  auto value = static_cast<std::uint8_t>(0x40 | (w ? 8 : 0) | (isExtended(reg) ? 4 : 0) | (x ? 2 : 0) | (b ? 1 : 0));
  if (value != 0x40 || force) byte(value);
}

/// `unit`: what an 8-bit displacement counts.
void Assembler::modrm(std::uint8_t reg, const RegMem& rm, int unit) {
  auto field = static_cast<std::uint8_t>((reg & 7) << 3);
  if (!rm.isMemory) {
    byte(static_cast<std::uint8_t>(0xc0 | field | (rm.reg & 7)));
    return;
  }
  const Mem& m = rm.mem;
  if (m.base == host::rip) {  // mod 0, r/m 101
    constexpr unsigned kDisplacement = 4;
    byte(static_cast<std::uint8_t>(field | 5));
    std::uint64_t target = anchor_ + static_cast<std::uint64_t>(std::int64_t{m.displacement});
    word32(static_cast<std::uint32_t>(target - (here() + kDisplacement + trailing_)));
    return;
  }
  unsigned scaleBits = m.scale == 8 ? 3 : m.scale == 4 ? 2 : m.scale == 2 ? 1 : 0;
  auto indexBits = static_cast<unsigned>(m.index == host::none ? 4 : m.index & 7);
  if (m.base == host::none) {  // SIB with base 101, mod 0: disp32 and no base
    byte(static_cast<std::uint8_t>(field | 4));
    byte(static_cast<std::uint8_t>(scaleBits << 6 | indexBits << 3 | 5));
    word32(static_cast<std::uint32_t>(m.displacement));
    return;
  }
  bool needsSib = m.index != host::none || (m.base & 7) == 4;
  bool small = m.displacement % unit == 0 && fitsInt8(m.displacement / unit);
  unsigned mod = m.displacement == 0 && (m.base & 7) != 5 ? 0 : small ? 1 : 2;
  byte(static_cast<std::uint8_t>(mod << 6 | field | (needsSib ? 4u : m.base & 7u)));
  if (needsSib) byte(static_cast<std::uint8_t>(scaleBits << 6 | indexBits << 3 | (m.base & 7u)));
  if (mod == 1) byte(static_cast<std::uint8_t>(m.displacement / unit));
  if (mod == 2) word32(static_cast<std::uint32_t>(m.displacement));
}

void Assembler::opcodeMap(unsigned map) {
  if (map != 0) byte(0x0f);
  if (map == 2) byte(0x38);
  if (map == 3) byte(0x3a);
}

void Assembler::legacy(unsigned width, unsigned map, std::uint8_t opcode, std::uint8_t reg, const RegMem& rm,
                       unsigned mandatory) {
  if (rm.isMemory && rm.mem.segmentPrefix != 0) byte(rm.mem.segmentPrefix);
  if (width == 2) byte(0x66);
  if (mandatory != 0) byte(kMandatoryPrefix[mandatory]);
  bool lowByteRegister = width == 1 && (reg >= 4 || (!rm.isMemory && rm.reg >= 4));  // SPL..DIL need a REX
  if (map == 1 && (opcode == 0xb6 || opcode == 0xbe)) lowByteRegister = !rm.isMemory && rm.reg >= 4;
  rex(width == 8, reg, rm, lowByteRegister);
  opcodeMap(map);
  byte(opcode);
  modrm(reg, rm);
}

void Assembler::vex(unsigned pp, unsigned map, bool w, unsigned l, std::uint8_t opcode, std::uint8_t reg,
                    std::uint8_t vvvv, const RegMem& rm) {
  if (rm.isMemory && rm.mem.segmentPrefix != 0) byte(rm.mem.segmentPrefix);
  bool b = rm.isMemory ? isExtended(rm.mem.base) : isExtended(rm.reg);
  bool x = rm.isMemory && isExtended(rm.mem.index);
  auto last = static_cast<std::uint8_t>((~vvvv & 15) << 3 | (l != 0 ? 4 : 0) | pp);
  if (!b && !x && !w && map == 1) {
    byte(0xc5);
    byte(static_cast<std::uint8_t>(last | (isExtended(reg) ? 0 : 0x80)));
  } else {
    byte(0xc4);
    byte(static_cast<std::uint8_t>((isExtended(reg) ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | map));
    byte(static_cast<std::uint8_t>(last | (w ? 0x80 : 0)));
  }
  byte(opcode);
  modrm(reg, rm);
}

void Assembler::evex(const x86::Instruction& i, std::uint8_t reg, std::uint8_t vvvv, const RegMem& rm) {
  if (rm.isMemory && rm.mem.segmentPrefix != 0) byte(rm.mem.segmentPrefix);
  bool b = rm.isMemory ? isExtended(rm.mem.base) : isExtended(rm.reg);
  bool x = rm.isMemory ? isExtended(rm.mem.index) : (rm.reg & 16) != 0;
  byte(0x62);
  byte(static_cast<std::uint8_t>((isExtended(reg) ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) |
                                 (reg & 16 ? 0 : 0x10) | i.map));
  byte(static_cast<std::uint8_t>((i.vexW ? 0x80 : 0) | (~vvvv & 15) << 3 | 4 | i.vexPp));
  byte(static_cast<std::uint8_t>((i.zeroing ? 0x80 : 0) | i.evexLength << 5 | (i.evexB ? 0x10 : 0) |
                                 (vvvv & 16 ? 0 : 8) | i.opmask));
  byte(i.opcode);
  modrm(reg, rm, static_cast<int>(x86::displacementUnit(i)));
}

void Assembler::storeImmediate32(unsigned width, const Mem& to, std::int32_t value) {
  trailing_ = 4;
  legacy(width, 0, 0xc7, 0, to);
  trailing_ = 0;
  word32(static_cast<std::uint32_t>(value));
}

void Assembler::storeImmediate8(const Mem& to, std::uint8_t value) {
  legacy(1, 0, 0xc6, 0, to);
  byte(value);
}

void Assembler::movImmediate(std::uint8_t to, std::uint64_t value) {
  if (value <= 0xffffffff) {
    if (isExtended(to)) byte(0x41);
    byte(static_cast<std::uint8_t>(0xb8 | (to & 7)));
    word32(static_cast<std::uint32_t>(value));
  } else if (static_cast<std::int64_t>(value) == static_cast<std::int32_t>(value)) {
    legacy(8, 0, 0xc7, 0, to);
    word32(static_cast<std::uint32_t>(value));
  } else {
    movImmediate64(to, value);
  }
}

void Assembler::movImmediate64(std::uint8_t to, std::uint64_t value) {
  byte(static_cast<std::uint8_t>(0x48 | (isExtended(to) ? 1 : 0)));
  byte(static_cast<std::uint8_t>(0xb8 | (to & 7)));
  word64(value);
}

void Assembler::shiftLeft(unsigned width, std::uint8_t r, std::uint8_t count) {
  legacy(width, 0, 0xc1, 4, r);
  byte(count);
}

void Assembler::shiftRight(unsigned width, std::uint8_t r, std::uint8_t count) {
  legacy(width, 0, 0xc1, 5, r);
  byte(count);
}

void Assembler::testImmediate8(std::uint8_t r, std::uint8_t value) {
  if (r == host::rax) {
    byte(0xa8);
  } else {
    legacy(1, 0, 0xf6, 0, r);
  }
  byte(value);
}

void Assembler::testImmediate32(std::uint8_t r, std::uint32_t value) {
  legacy(4, 0, 0xf7, 0, r);
  word32(value);
}

void Assembler::arithmeticImmediate(unsigned width, unsigned op, const RegMem& rm, std::int32_t value) {
  bool small = fitsInt8(value);
  legacy(width, 0, width == 1 ? 0x80 : small ? 0x83 : 0x81, static_cast<std::uint8_t>(op), rm);
  if (width == 1 || small) {
    byte(static_cast<std::uint8_t>(value));
  } else if (width == 2) {
    byte(static_cast<std::uint8_t>(value));
    byte(static_cast<std::uint8_t>(value >> 8));
  } else {
    word32(static_cast<std::uint32_t>(value));
  }
}

void Assembler::arithmetic(unsigned width, unsigned op, std::uint8_t to, const RegMem& from) {
  legacy(width, 0, static_cast<std::uint8_t>(op << 3 | (width == 1 ? 2 : 3)), to, from);
}

std::uint32_t Assembler::jmp() {
  byte(0xe9);
  word32(0);
  return size_ - 4;
}

std::uint32_t Assembler::jcc(Condition cc) {
  byte(0x0f);
  byte(static_cast<std::uint8_t>(0x80 | cc));
  word32(0);
  return size_ - 4;
}

std::uint32_t Assembler::call() {
  byte(0xe8);
  word32(0);
  return size_ - 4;
}

void Assembler::patchTo(std::uint32_t at, std::uint64_t target) {
  storeLe(write_ + at, static_cast<std::uint32_t>(target - (run_ + at + 4)));
}

void Assembler::reencode(const x86::Instruction& i, const std::uint8_t* source, std::uint8_t reg, const RegMem& rm,
                         std::uint8_t vvvv) {
  if (i.encoding == x86::Encoding::vex) {
    vex(i.vexPp, i.map, i.vexW, i.vexL, i.opcode, reg, vvvv, rm);
  } else if (i.encoding == x86::Encoding::evex) {
    evex(i, reg, vvvv, rm);
  } else {
    if (rm.isMemory && rm.mem.segmentPrefix != 0) byte(rm.mem.segmentPrefix);
    if (i.operandSizePrefix) byte(0x66);
    if (i.lock) byte(0xf0);
    if (i.repeat != 0) byte(i.repeat);
    rex((i.rex & 8) != 0, reg, rm, (i.rex & 0x40) != 0);
    opcodeMap(i.map);
    byte(i.opcode);
    modrm(reg, rm);
  }
  bytes(source + i.immediateOffset, i.immediateSize);
}

}  // namespace lodge::translate
