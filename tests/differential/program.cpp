// SPDX-License-Identifier: Apache-2.0
#include "tests/differential/program.h"

#include <cstring>
#include <utility>

#include "engine/translate/register_effects.h"

namespace lodge::differential {

using namespace x86;

namespace {

/// Opcodes of ordinary code: map << 8 | opcode.
constexpr std::uint16_t kCommon[] = {
    0x000, 0x001, 0x002, 0x003, 0x008, 0x009, 0x00b, 0x010, 0x011, 0x013, 0x019, 0x01b, 0x021, 0x023, 0x028,
    0x029, 0x02b, 0x030, 0x031, 0x033, 0x038, 0x039, 0x03a, 0x03b, 0x063, 0x069, 0x06b, 0x080, 0x081, 0x083,
    0x083, 0x084, 0x085, 0x086, 0x087, 0x088, 0x088, 0x089, 0x089, 0x089, 0x08a, 0x08b, 0x08b, 0x08b, 0x08b,
    0x08d, 0x08d, 0x090, 0x091, 0x094, 0x098, 0x099, 0x09e, 0x09f, 0x09c, 0x0a8, 0x0a9, 0x0b0, 0x0b4, 0x0b8,
    0x0c0, 0x0c1, 0x0c6, 0x0c7, 0x0d0, 0x0d1, 0x0d2, 0x0d3, 0x0f5, 0x0f6, 0x0f7, 0x0f8, 0x0f9, 0x0fe, 0x0ff,
    0x0fc, 0x0d7, 0x0a1, 0x08f, 0x0c9, 0x050, 0x053, 0x054, 0x055, 0x057, 0x058, 0x05b, 0x05c, 0x05d, 0x05f,
    0x068, 0x06a, 0x0ff, 0x117, 0x11f, 0x140, 0x144, 0x14c, 0x190, 0x194, 0x19c, 0x1a3, 0x1ab, 0x1b3, 0x1bb,
    0x1ba, 0x1a4, 0x1a5, 0x1ac, 0x1ad, 0x1af, 0x1b0, 0x1b1, 0x1b6, 0x1b7, 0x1be, 0x1bf, 0x1bc, 0x1bd, 0x1b8,
    0x1c0, 0x1c1, 0x1c3, 0x1c7, 0x1c8, 0x1cc, 0x1cf, 0x2f0, 0x2f1, 0x2f6};

/// What 64-bit code does not have: INC and DEC, PUSHA, POPA, BOUND, INTO, SALC, and one by another opcode.
constexpr std::uint16_t kNarrow[] = {0x40, 0x41, 0x43, 0x46, 0x48, 0x4a, 0x4b,
                                     0x4f, 0x60, 0x61, 0x62, 0x82, 0xce, 0xd6};

/// VEX opcodes with general registers.
constexpr std::uint16_t kGeneralVex[] = {0x2f2, 0x2f3, 0x2f5, 0x2f6, 0x2f7, 0x3f0};

bool escapesControl(const Instruction& i) {
  return i.info->cls == OpClass::branch || i.info->op == Op::int3 || i.info->op == Op::hlt;
}

}  // namespace

Program::Register Program::pointer() {
  if (fixed_.on) return fixed_.base;
  if (short16()) return pointers_[1 + below(pointerCount_ - 1)];  // SP is no base
  return pointers_[below(pointerCount_)];
}

/// A good value for pointer number `n`.
void Program::point(unsigned n) {
  std::uint64_t at = chance(40) ? 4096 - 128 + 8 * below(32) : 512 + 16 * below((kDataBytes - 1024) / 16);
  if (chance(15)) at += below(16);
  std::uint64_t base = chance(8) ? kReadOnlyBase : kDataBase;
  std::uint64_t value = base + (base == kReadOnlyBase ? at & 4095 : at);
  if (from_.mmio_ && chance(20)) value = kMmioBase + (chance(40) ? 4096 * below(2) + below(24) - 12 : below(4096));
  to_.before.gpr[pointers_[n]] = value;
}

/// In 32- and 16-bit code: fewer pointers, as there are fewer registers. 16-bit addresses have BX, BP, SI and DI.
void Program::chooseNarrow() {
  from_.registers(to_.before);
  Register order[] = {rbx, rbp, rsi, rdi, rax, rdx, rcx};
  auto shuffle = [&](unsigned first, unsigned count) {
    for (unsigned n = count; n > 1; --n) std::swap(order[first + n - 1], order[first + below(n)]);
  };
  if (short16()) {
    shuffle(0, 4);
    shuffle(4, 2);
  } else {
    shuffle(0, 6);
  }
  pointers_[0] = rsp;
  pointerCount_ = 4;
  std::uint16_t taken = 1u << rsp;
  for (unsigned n = 0; n + 1 < pointerCount_; ++n) {
    pointers_[1 + n] = order[n];
    taken = static_cast<std::uint16_t>(taken | 1u << order[n]);
    point(1 + n);
  }
  index_ = order[3];
  counter_ = order[4];
  spare_ = order[5];
  if (chance(30)) to_.before.gpr[rsp] = kDataBase + 4096 + 8 * below(24) - 96;
  if (chance(4)) to_.before.gpr[rsp] += below(8);
  to_.before.gpr[index_] = chance(70) ? below(16) : ~below(16);
  kept_ = to_.pointers = static_cast<std::uint16_t>(taken | 1u << index_ | 1u << counter_);
}

void Program::chooseRegisters() {
  if (!wide()) return chooseNarrow();
  from_.registers(to_.before);
  std::uint16_t taken = 1u << rsp;
  auto pick = [&](bool pointerToo) {
    for (;;) {
      auto r = static_cast<Register>(below(16));
      if (chance(30)) r = static_cast<Register>(chance(40) ? std::uint64_t{rbp} : 12 + below(4));
      if ((taken >> r & 1) != 0 || (!pointerToo && r == rcx)) continue;
      taken = static_cast<std::uint16_t>(taken | 1u << r);
      return r;
    }
  };
  pointers_[0] = rsp;
  for (int i = 1; i < 5; ++i) {
    pointers_[i] = pick(true);
    point(static_cast<unsigned>(i));
  }
  if (chance(30)) to_.before.gpr[rsp] = kDataBase + 4096 + 8 * below(24) - 96;
  if (chance(4)) to_.before.gpr[rsp] += below(8);
  index_ = pick(false);
  counter_ = pick(false);
  to_.before.gpr[index_] = chance(70) ? below(16) : ~below(16);
  kept_ = to_.pointers = taken;
  spare_ = pick(false);
}

void Program::dword(std::uint64_t d) {
  auto value = static_cast<std::uint32_t>(d);
  std::memcpy(to_.code + to_.length, &value, 4);
  to_.length += 4;
}

void Program::word(std::uint64_t w) {
  dword(w);
  if (short16()) to_.length -= 2;
}

/// `offset`: in the snippet.
void Program::fill(const Place& place, std::uint64_t offset) {
  std::uint64_t value = offset - place.negative;
  std::memcpy(to_.code + place.end - place.size, &value, place.size);
}

/// What 32- and 16-bit code jumps to when it jumps to the snippet's first byte.
std::uint64_t Program::codeStart() const {
  if (short16()) return to_.inPatchArea ? to_.before.rip - kPatchBase : 0;
  return to_.inPatchArea ? to_.before.rip - kPatchBase + kPatchAlias : kCode32Base + slot_ * kSlotBytes;
}

void Program::moveImmediate(Register r, std::uint32_t value) {
  if (r >= 8) byte(0x41);
  byte(0xb8 | (r & 7));
  word(value);
}

/// r = an address in the snippet: LEA r, [RIP + ?]; without RIP as operand MOV, or CALL, POP and ADD, as
/// position-independent code does it.
Program::Place Program::leaCode(Register r) {
  if (wide()) {
    rex(8 | (r >> 3) << 2);
    byte(0x8d);
    byte((r & 7) << 3 | 5);
    dword(0);
    return {to_.length, 4, to_.length};
  }
  if (chance(70)) {
    moveImmediate(r, 0);
    return {to_.length, wordBytes(), 0 - codeStart()};
  }
  byte(0xe8);
  word(0);
  unsigned here = to_.length;
  byte(0x58 | r);
  byte(0x81);
  byte(0xc0 | r);
  word(0);
  return {to_.length, wordBytes(), here};
}

/// ModRM with a displacement of one byte.
void Program::nearOperand(unsigned reg, Register base, std::uint64_t displacement) {
  constexpr std::uint8_t kBases[8] = {0, 0, 0, 7, 0, 6, 4, 5};
  byte(0x40 | (reg & 7) << 3 | (short16() ? kBases[base] : base & 7));
  if (!short16() && (base & 7) == rsp) byte(0x24);
  byte(displacement);
}

/// LEA r, [a pointer + something].
void Program::leaData(Register r) {
  Register base = pointer();
  rex(8 | (r >> 3) << 2 | base >> 3);
  byte(0x8d);
  nearOperand(r, base, below(256));
}

/// With a 16-bit address, in the snippet itself.
unsigned Program::ownCodeOperand(std::uint8_t* p, std::uint8_t reg) {
  p[0] = static_cast<std::uint8_t>((reg & 7) << 3 | 6);
  std::uint64_t address = codeStart() + to_.length + below(96) - 64;
  std::memcpy(p + 1, &address, 2);
  for (unsigned i = 0; i < 8; ++i) p[3 + i] = static_cast<std::uint8_t>(from_.random());
  return 11;
}

/// With a 16-bit address off a pointer.
unsigned Program::operand16(std::uint8_t* p, std::uint8_t reg, Register base, Register index) {
  constexpr std::uint8_t kAlone[8] = {0, 0, 0, 7, 0, 6, 4, 5};
  unsigned n = 0, mod = chance(15) ? 0 : chance(80) ? 1 : 2, rm = kAlone[base];
  bool baseIsFirst = base == rbx || base == rbp, indexIsFirst = index == rbx || index == rbp;
  if (baseIsFirst != indexIsFirst && (fixed_.on ? fixed_.indexed : chance(20))) {
    Register first = baseIsFirst ? base : index, second = baseIsFirst ? index : base;
    rm = (first == rbp ? 2u : 0u) | (second == rdi ? 1u : 0u);
  }
  if (mod == 0 && rm == 6) mod = 1;
  p[n++] = static_cast<std::uint8_t>(mod << 6 | (reg & 7) << 3 | rm);
  auto displacement = static_cast<std::int16_t>(static_cast<int>(below(256)) - 128);
  if (chance(60)) displacement = static_cast<std::int16_t>(displacement & ~7);
  std::memcpy(p + n, &displacement, 2);
  return n + (mod == 2 ? 2 : mod);
}

/// ModRM and what follows, with room for any immediate. Base and index must already be in the prefix.
unsigned Program::operand(std::uint8_t* p, std::uint8_t reg, Register base, Register index, bool isMemory) {
  unsigned n = 0;
  auto middle = static_cast<std::uint8_t>((reg & 7) << 3);
  if (!isMemory) {
    p[n++] = static_cast<std::uint8_t>(0xc0 | middle | (base & 7));
  } else if (short16()) {
    n += operand16(p, reg, base, index);
  } else if (!fixed_.on && chance(6) && !mindsStores()) {
    p[n++] = static_cast<std::uint8_t>(middle | 5);  // RIP-relative, or all of the address: to the snippet itself
    auto distance = static_cast<std::uint32_t>(below(96) - 64);
    if (!wide()) distance += static_cast<std::uint32_t>(codeStart() + to_.length);
    std::memcpy(p + n, &distance, 4);
    n += 4;
  } else {
    unsigned mod = chance(15) ? 0 : chance(80) ? 1 : 2;
    if (mod == 0 && (base & 7) == 5) mod = 1;
    bool indexed = (index & 7) != 4 || index >= 8;
    bool sib = (base & 7) == 4 || (indexed && (fixed_.on ? fixed_.indexed : chance(20)));
    p[n++] = static_cast<std::uint8_t>(mod << 6 | middle | (sib ? 4 : base & 7));
    if (sib) {
      bool use = indexed && (fixed_.on ? fixed_.indexed : chance(60));
      std::uint64_t scale = fixed_.on ? fixed_.scale : below(4);
      p[n++] = static_cast<std::uint8_t>(use ? scale << 6 | (index & 7) << 3 | (base & 7) : 0x20 | (base & 7));
    }
    std::int32_t displacement = static_cast<std::int32_t>(below(mod == 2 ? 512 : 256)) - (mod == 2 ? 256 : 128);
    if (chance(60)) displacement &= chance(50) ? ~7 : ~15;
    if (mod == 1) p[n++] = static_cast<std::uint8_t>(displacement);
    if (mod == 2) {
      std::memcpy(p + n, &displacement, 4);
      n += 4;
    }
  }
  for (unsigned i = 0; i < 8; ++i) p[n + i] = static_cast<std::uint8_t>(from_.random());
  return n + 8;
}

unsigned Program::legacyCandidate(std::uint8_t* p) {
  std::uint16_t what = kCommon[below(sizeof kCommon / sizeof kCommon[0])];
  unsigned kind = static_cast<unsigned>(below(100));
  if (kind < 18) what = static_cast<std::uint16_t>(0x100 | below(256));  // SSE, MMX
  if (kind >= 18 && kind < 23) what = static_cast<std::uint16_t>((2 + below(2)) << 8 | below(256));
  if (kind >= 23 && kind < 29) what = static_cast<std::uint16_t>(0xd8 + below(8));
  if (!wide() && chance(10)) what = kNarrow[below(sizeof kNarrow / sizeof kNarrow[0])];
  bool isMemory = chance(70);
  auto reg = static_cast<Register>(below(registers_));
  Register rm = isMemory ? pointer() : static_cast<Register>(below(registers_));
  Register index = index_;
  unsigned n = 0;
  if (chance(kind < 23 ? 40 : 15)) p[n++] = 0x66;
  if (chance(kind < 23 ? 30 : 3)) p[n++] = chance(50) ? 0xf2 : 0xf3;
  if (chance(8)) p[n++] = 0xf0;
  if (chance(2)) p[n++] = 0x67;
  n += from_.segmentPrefix(p + n);
  bool ownCode = short16() && isMemory && !fixed_.on && chance(6);
  if (ownCode) p[n++] = 0x2e;  // CS: loads only, or #GP
  unsigned rex = (reg >> 3) << 2 | (index >> 3) << 1 | rm >> 3 | (chance(45) ? 8u : 0u);
  if (wide() && (rex != 0 || chance(20))) p[n++] = static_cast<std::uint8_t>(0x40 | rex);
  unsigned map = what >> 8;
  if (map != 0) p[n++] = 0x0f;
  if (map >= 2) p[n++] = map == 2 ? 0x38 : 0x3a;
  p[n++] = static_cast<std::uint8_t>(what);
  return n + (ownCode ? ownCodeOperand(p + n, reg) : operand(p + n, reg, rm, index, isMemory));
}

unsigned Program::vexCandidate(std::uint8_t* p) {
  bool general = chance(40);
  auto what = static_cast<std::uint16_t>((1 + below(3)) << 8 | below(256));
  if (general) what = kGeneralVex[below(sizeof kGeneralVex / sizeof kGeneralVex[0])];
  bool isMemory = chance(70);
  auto reg = static_cast<Register>(below(registers_));
  Register rm = isMemory ? pointer() : static_cast<Register>(below(registers_));
  auto third = static_cast<Register>(below(registers_));
  bool none = !general && chance(30);
  unsigned pp = chance(60) && !general ? 1 : static_cast<unsigned>(below(4));
  unsigned prefix = from_.segmentPrefix(p);
  p += prefix;
  p[0] = 0xc4;
  p[1] = static_cast<std::uint8_t>((~reg & 8) << 4 | (~index_ & 8) << 3 | (~rm & 8) << 2 | what >> 8);
  p[2] = static_cast<std::uint8_t>((chance(40) ? 0x80 : 0) | (none ? 0x78 : (~third & 15) << 3) |
                                   (!general && chance(50) ? 4 : 0) | pp);
  p[3] = static_cast<std::uint8_t>(what);
  return prefix + 4 + operand(p + 4, reg, rm, index_, isMemory);
}

/// What the translator takes into loops without probes: no guest register that it keeps in memory, among others.
bool Program::isPlain(const Instruction& i) {
  if (i.lock || i.info->cls == OpClass::system || (i.info->attributes & attribute::stackAccess) != 0) return false;
  if (i.base != kNoRegister && i.base >= 12) return false;
  bool vex = i.encoding == Encoding::vex;
  return i.reg < 12 && (i.memory || i.rm < 12) && (!vex || i.vexV < 12 || i.encoding == Encoding::evex);
}

bool Program::acceptable(const Instruction& i) {
  if (!from_.reasonToLeaveOut(i).empty() || !from_.isWanted(i) || escapesControl(i)) return false;
  if (!wide() && i.map == 0 && from_.leavesFlagsUndefined(i.opcode)) return false;
  if (i.info->cls == OpClass::system && !chance(10)) return false;
  std::uint16_t written = translate::writtenRegisters(i);
  if ((i.info->attributes & attribute::stackAccess) != 0) written &= static_cast<std::uint16_t>(~(1u << rsp));
  if ((written & kept_) != 0 && !chance(2)) return false;
  if (i.lock && !i.memory && !chance(5)) return false;
  if (mindsStores() && i.info->op == Op::maskmov) return false;  // at RDI, which may hold an address of the code
  return !plain_ || isPlain(i);
}

void Program::focused() {
  for (int tries = 0; tries < 200; ++tries) {
    std::uint8_t raw[64];
    unsigned available = chance(20) ? vexCandidate(raw) : legacyCandidate(raw);
    Instruction i{};
    if (decode(raw, available < 15 ? available : 15, size_, i) != DecodeStatus::ok) continue;
    if (!acceptable(i)) continue;
    ++from_.generated_[i.info->mnemonic];
    std::memcpy(to_.code + to_.length, raw, i.length);
    to_.length += i.length;
    return;
  }
}

void Program::anyInstruction() {
  if (mindsStores()) return focused();
  std::uint8_t raw[kMaxInstructionLength];
  unsigned length = from_.instruction(raw);
  Instruction i{};
  if (decode(raw, length, size_, i) != DecodeStatus::ok || escapesControl(i)) return;
  if (from_.leavesFlagsUndefined(raw[length - 1])) return;  // the last byte, as they have no operand
  std::memcpy(to_.code + to_.length, raw, length);
  to_.length += length;
}

void Program::write() {
  chooseRegisters();
  if (chance(15)) {
    to_.inPatchArea = true;
    std::uint64_t room = kPatchBytes - kSlotBytes;
    to_.before.rip = kPatchBase + (chance(70) ? 4096 - below(kSlotBytes) : below(room));
  } else {
    to_.before.rip = kCodeBase + slot_ * kSlotBytes;
  }
  unsigned items = 2 + static_cast<unsigned>(below(12));
  for (unsigned n = 0; n < items && room(0); ++n) item(0);
}

}  // namespace lodge::differential
