// SPDX-License-Identifier: Apache-2.0
#include "tests/differential/program.h"

#include <cstring>

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

/// VEX opcodes with general registers.
constexpr std::uint16_t kGeneralVex[] = {0x2f2, 0x2f3, 0x2f5, 0x2f6, 0x2f7, 0x3f0};

bool escapesControl(const Instruction& i) {
  return i.info->cls == OpClass::branch || i.info->op == Op::int3 || i.info->op == Op::hlt;
}

}  // namespace

Program::Register Program::pointer() {
  if (fixed_.on) return fixed_.base;
  return pointers_[below(5)];
}

void Program::chooseRegisters() {
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
    std::uint64_t at = chance(40) ? 4096 - 128 + 8 * below(32) : 512 + 16 * below((kDataBytes - 1024) / 16);
    if (chance(15)) at += below(16);
    std::uint64_t base = chance(8) ? kReadOnlyBase : kDataBase;
    to_.before.gpr[pointers_[i]] = base + (base == kReadOnlyBase ? at & 4095 : at);
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

/// Fills in the displacement that ends at `end`, so that it leads to what comes next.
void Program::jumpHere(unsigned end, unsigned size) {
  std::uint32_t distance = to_.length - end;
  std::memcpy(to_.code + end - size, &distance, size);
}

void Program::moveImmediate(Register r, std::uint32_t value) {
  if (r >= 8) byte(0x41);
  byte(0xb8 | (r & 7));
  dword(value);
}

/// LEA r, [RIP + ?]: returns where the displacement ends.
unsigned Program::leaCode(Register r) {
  byte(0x48 | (r >> 3) << 2);
  byte(0x8d);
  byte((r & 7) << 3 | 5);
  dword(0);
  return to_.length;
}

/// LEA r, [a pointer + something].
void Program::leaData(Register r) {
  Register base = pointer();
  byte(0x48 | (r >> 3) << 2 | base >> 3);
  byte(0x8d);
  byte(0x40 | (r & 7) << 3 | (base & 7));
  if ((base & 7) == rsp) byte(0x24);
  byte(static_cast<std::uint8_t>(below(256)));
}

/// ModRM and what follows, with room for any immediate. Base and index must already be in the prefix.
unsigned Program::operand(std::uint8_t* p, std::uint8_t reg, Register base, Register index, bool isMemory) {
  unsigned n = 0;
  auto middle = static_cast<std::uint8_t>((reg & 7) << 3);
  if (!isMemory) {
    p[n++] = static_cast<std::uint8_t>(0xc0 | middle | (base & 7));
  } else if (!fixed_.on && chance(6) && !mindsStores()) {
    p[n++] = static_cast<std::uint8_t>(middle | 5);  // RIP-relative, to the snippet itself
    auto distance = static_cast<std::uint32_t>(below(96) - 64);
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
  bool isMemory = chance(70);
  auto reg = static_cast<Register>(below(16));
  Register rm = isMemory ? pointer() : static_cast<Register>(below(16));
  Register index = index_;
  unsigned n = 0;
  if (chance(kind < 23 ? 40 : 15)) p[n++] = 0x66;
  if (chance(kind < 23 ? 30 : 3)) p[n++] = chance(50) ? 0xf2 : 0xf3;
  if (chance(8)) p[n++] = 0xf0;
  if (chance(2)) p[n++] = 0x67;
  if (chance(3)) p[n++] = static_cast<std::uint8_t>(0x64 | below(2));
  unsigned rex = (reg >> 3) << 2 | (index >> 3) << 1 | rm >> 3 | (chance(45) ? 8u : 0u);
  if (rex != 0 || chance(20)) p[n++] = static_cast<std::uint8_t>(0x40 | rex);
  unsigned map = what >> 8;
  if (map != 0) p[n++] = 0x0f;
  if (map >= 2) p[n++] = map == 2 ? 0x38 : 0x3a;
  p[n++] = static_cast<std::uint8_t>(what);
  return n + operand(p + n, reg, rm, index, isMemory);
}

unsigned Program::vexCandidate(std::uint8_t* p) {
  bool general = chance(40);
  auto what = static_cast<std::uint16_t>((1 + below(3)) << 8 | below(256));
  if (general) what = kGeneralVex[below(sizeof kGeneralVex / sizeof kGeneralVex[0])];
  bool isMemory = chance(70);
  auto reg = static_cast<Register>(below(16));
  Register rm = isMemory ? pointer() : static_cast<Register>(below(16));
  auto third = static_cast<Register>(below(16));
  bool none = !general && chance(30);
  unsigned pp = chance(60) && !general ? 1 : static_cast<unsigned>(below(4));
  p[0] = 0xc4;
  p[1] = static_cast<std::uint8_t>((~reg & 8) << 4 | (~index_ & 8) << 3 | (~rm & 8) << 2 | what >> 8);
  p[2] = static_cast<std::uint8_t>((chance(40) ? 0x80 : 0) | (none ? 0x78 : (~third & 15) << 3) |
                                   (!general && chance(50) ? 4 : 0) | pp);
  p[3] = static_cast<std::uint8_t>(what);
  return 4 + operand(p + 4, reg, rm, index_, isMemory);
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
  if (i.info->cls == OpClass::system && !chance(10)) return false;
  std::uint16_t written = translate::writtenRegisters(i);
  if ((i.info->attributes & attribute::stackAccess) != 0) written &= static_cast<std::uint16_t>(~(1u << rsp));
  if ((written & kept_) != 0 && !chance(2)) return false;
  if (i.lock && !i.memory && !chance(5)) return false;
  return !plain_ || isPlain(i);
}

void Program::focused() {
  for (int tries = 0; tries < 200; ++tries) {
    std::uint8_t raw[64];
    unsigned available = chance(20) ? vexCandidate(raw) : legacyCandidate(raw);
    Instruction i{};
    if (decode(raw, available < 15 ? available : 15, CodeSize::bits64, i) != DecodeStatus::ok) continue;
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
  if (decode(raw, length, CodeSize::bits64, i) != DecodeStatus::ok || escapesControl(i)) return;
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
