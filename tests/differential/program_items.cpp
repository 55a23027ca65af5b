// SPDX-License-Identifier: Apache-2.0
// The pieces of a program that are more than one instruction.
#include <iterator>

#include "tests/differential/program.h"

namespace lodge::differential {

using namespace x86;

void Program::item(unsigned depth) {
  if (!room(0)) return;
  if (from_.kernel_ && chance(30)) return wide() ? system() : system32();
  if (!from_.kernel_ && hostHasFsgsbase() && chance(4)) return segments();
  switch (below(depth == 0 ? 27 : 18)) {
    case 0:
      anyInstruction();
      break;
    case 1:
    case 2:
      forwardBranch(depth);
      break;
    case 3:
      pushesAndPops();
      break;
    case 4:
      bitString();
      break;
    case 5:
      if (chance(30)) {
        flags();
      } else {
        focused();
      }
      break;
    case 6:
      fields();
      break;
    case 18:
    case 19:
      loop(depth);
      break;
    case 20:
      callLeaf(depth);
      break;
    case 21:
      indirectJump();
      break;
    case 22:
      if (chance(50)) {
        strings();
      } else {
        frame(depth);
      }
      break;
    case 23:
      patch();
      break;
    case 24:
    case 25:
    case 26:
      stream();
      break;
    default:
      focused();
      break;
  }
}

/// Jcc, JMP or JRCXZ over some items, short or near.
void Program::forwardBranch(unsigned depth) {
  if (depth >= 2) return focused();  // so that short displacements suffice
  unsigned kind = static_cast<unsigned>(below(10));
  bool near = chance(40);
  if (kind == 0) {
    near = false;
    byte(0xe3);
  } else if (kind == 1) {
    byte(near ? 0xe9 : 0xeb);
  } else {
    std::uint64_t condition = below(16);
    if (near) byte(0x0f);
    byte((near ? 0x80 : 0x70) | condition);
  }
  unsigned size = near ? wordBytes() : 1;
  for (unsigned i = 0; i < size; ++i) byte(0);
  unsigned end = to_.length;
  unsigned inside = static_cast<unsigned>(below(4));
  for (unsigned i = 0; i < inside && to_.length - end < (depth == 0 ? 60 : 20); ++i) item(depth + 1);
  jumpHere(end, size);
}

/// A few rounds, counted by a register that the rest leaves alone; or by RCX, with LOOP and its kin.
void Program::loop(unsigned depth) {
  bool byRcx = chance(25) && (kept_ >> rcx & 1) == 0;
  Register counter = byRcx ? Register{rcx} : counter_;
  std::uint16_t before = kept_;
  kept_ = static_cast<std::uint16_t>(kept_ | 1u << counter);
  moveImmediate(counter, static_cast<std::uint32_t>(1 + below(chance(10) ? 200 : 6)));
  unsigned top = to_.length;
  unsigned inside = 1 + static_cast<unsigned>(below(5));
  for (unsigned i = 0; i < inside && to_.length - top < 50; ++i) item(depth + 1);
  if (byRcx) {
    byte(0xe0 + below(3));
  } else {
    rex(8 | counter >> 3);
    if (chance(50)) {
      byte(0xff);
      byte(0xc8 | (counter & 7));  // DEC
    } else {
      byte(0x83);
      byte(0xe8 | (counter & 7));  // SUB 1
      byte(1);
    }
    byte(chance(60) ? 0x75 : 0x7f);
  }
  byte(top - (to_.length + 1));
  kept_ = before;
}

/// ADD or SUB of a constant to a register, or LEA, or INC and DEC.
void Program::step(Register r, std::int8_t by) {
  auto rexOf = [](Register b) { return 8u | b >> 3; };
  if (by == 1 || by == -1) {
    if (!wide() && chance(50)) return byte((by == 1 ? 0x40u : 0x48u) | r);
    rex(rexOf(r));
    byte(0xff);
    byte((by == 1 ? 0xc0u : 0xc8u) | (r & 7));
  } else if (chance(30) && !short16()) {
    rex(rexOf(r) | (r >> 3) << 2);
    byte(0x8d);
    nearOperand(r, r, static_cast<std::uint8_t>(by));
  } else {
    bool subtract = chance(30);
    rex(rexOf(r));
    byte(0x83);
    byte((subtract ? 0xe8u : 0xc0u) | (r & 7));
    byte(static_cast<std::uint8_t>(subtract ? -by : by));
  }
}

/// A tight loop whose memory operands walk over pages, perhaps with a way out.
void Program::stream() {
  static constexpr std::int8_t kSteps[] = {1, 2, 4, 8, 16, 24, 32, 64, 3, 12, -1, -8, -16, -32, 127, -128};
  Register p = pointer();
  plain_ = chance(80);
  for (unsigned tries = 0; plain_ && p >= 12 && tries < 20; ++tries) p = pointer();
  auto by = static_cast<std::int8_t>(-kSteps[below(std::size(kSteps))]);
  auto count = static_cast<std::uint32_t>(1 + below(chance(50) ? 30 : 300));
  bool indexed = chance(30), both = chance(30);
  std::uint16_t before = kept_;
  kept_ = static_cast<std::uint16_t>(kept_ | 1u << counter_ | 1u << index_ | 1u << p);
  moveImmediate(counter_, count);
  unsigned top = to_.length;
  unsigned inside = 1 + static_cast<unsigned>(below(4));
  unsigned exit = 0;
  for (unsigned n = 0; n < inside && to_.length - top < 40; ++n) {
    fixed_ = {!both || chance(60), indexed, p, 0};
    focused();
    if (chance(10)) step(indexed ? index_ : p, by);
    if (exit == 0 && chance(20)) {
      byte(0x70 | below(16));
      byte(0);
      exit = to_.length;
    }
  }
  fixed_.on = plain_ = false;
  step(indexed ? index_ : p, by);
  if (both && chance(50)) step(pointers_[below(pointerCount_)], static_cast<std::int8_t>(chance(50) ? by : 8));
  rex(8 | counter_ >> 3);
  byte(0x83);
  byte(0xe8 | (counter_ & 7));
  byte(1);
  byte(0x75);
  byte(top - (to_.length + 1));
  if (exit != 0) jumpHere(exit, 1);
  kept_ = before;
}

/// CALL to code that comes later and returns, directly or through a register or memory.
void Program::callLeaf(unsigned depth) {
  unsigned kind = static_cast<unsigned>(below(short16() ? 2 : 3));
  Register r = counter_;
  Place end{};
  if (kind == 0) {
    byte(0xe8);
    word(0);
    end = {to_.length, wordBytes(), to_.length};
  } else {
    end = leaCode(r);
    if (kind == 2) {  // PUSH r; CALL [RSP]; POP r
      if (r >= 8) byte(0x41);
      byte(0x50 | (r & 7));
      byte(0xff);
      byte(0x14);
      byte(0x24);
      if (r >= 8) byte(0x41);
      byte(0x58 | (r & 7));
    } else {
      if (r >= 8) byte(0x41);
      byte(0xff);
      byte(0xd0 | (r & 7));
    }
  }
  focused();
  byte(0xeb);
  byte(0);
  unsigned over = to_.length;
  jumpHere(end);
  unsigned inside = static_cast<unsigned>(below(4));
  for (unsigned i = 0; i < inside && to_.length - over < 60; ++i) item(depth + 1);
  byte(0xc3);
  jumpHere(over, 1);
}

/// To a computed address: JMP r, JMP [m], or PUSH and RET.
void Program::indirectJump() {
  Register r = counter_;
  Place end = leaCode(r);
  unsigned kind = static_cast<unsigned>(below(short16() ? 3 : 4));
  if (kind >= 2) {
    if (r >= 8) byte(0x41);
    byte(0x50 | (r & 7));
    if (kind == 2) {
      byte(0xc3);
    } else {
      byte(0xff);  // JMP [RSP]
      byte(0x24);
      byte(0x24);
    }
  } else {
    if (r >= 8) byte(0x41);
    byte(0xff);
    byte(0xe0 | (r & 7));
  }
  for (std::uint64_t n = below(4); n > 0; --n) byte(chance(50) ? 0x90 : 0x98);
  jumpHere(end);
  if (kind == 3) {
    if (r >= 8) byte(0x41);
    byte(0x58 | (r & 7));
  }
}

void Program::pushesAndPops() {
  unsigned pushes = static_cast<unsigned>(below(5)), pops = static_cast<unsigned>(below(5));
  unsigned start = to_.length;
  auto go = [&] { return to_.length - start < 20; };
  for (unsigned i = 0; i < pushes && go(); ++i) {
    std::uint64_t r = below(registers_);
    if (r >= 8) byte(0x41);
    byte(0x50 | (r & 7));
    if (chance(20)) focused();
  }
  for (unsigned i = 0; i < pops && go(); ++i) {
    std::uint64_t r = below(registers_);
    if ((kept_ >> r & 1) != 0) r = counter_;
    if (r >= 8) byte(0x41);
    byte(0x58 | (r & 7));
    if (chance(20)) focused();
  }
}

/// PUSH RBP; MOV RBP,RSP; SUB RSP,n; ...; LEAVE or its long form.
void Program::frame(unsigned depth) {
  byte(0x55);
  rex(8);
  byte(0x89);
  byte(0xe5);
  std::uint64_t bytes = 8 * below(12);
  rex(8);
  byte(0x83);
  byte(0xec);
  byte(bytes);
  Register& last = pointers_[pointerCount_ - 1];
  Register replaced = last;
  std::uint16_t before = kept_;
  last = rbp;
  kept_ = static_cast<std::uint16_t>(kept_ | 1u << rbp);
  unsigned start = to_.length;
  unsigned inside = 1 + static_cast<unsigned>(below(6));
  for (unsigned i = 0; i < inside && to_.length - start < 90 && room(0); ++i) item(depth + 1);
  if (chance(70)) {
    byte(0xc9);
  } else {
    rex(8);
    byte(0x83);
    byte(0xc4);
    byte(bytes);
    byte(0x5d);
  }
  last = replaced;
  kept_ = before;
}

void Program::segmentPrefix() {
  to_.length += from_.segmentPrefix(to_.code + to_.length);
}

void Program::strings() {
  leaData(rsi);
  leaData(rdi);
  moveImmediate(rcx, static_cast<std::uint32_t>(below(chance(20) ? 700 : 24)));
  bool down = chance(25);
  if (down) byte(0xfd);
  constexpr std::uint8_t kOpcodes[] = {0xa4, 0xa5, 0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
  if (chance(15)) byte(0x66);
  if (chance(75)) byte(chance(70) ? 0xf3 : 0xf2);
  if (chance(4)) byte(0x67);
  segmentPrefix();
  if (chance(50)) rex(8);
  byte(kOpcodes[below(sizeof kOpcodes)]);
  if (down) byte(0xfc);
}

/// Code that changes itself, in the patch area: a byte of an instruction that follows, perhaps next, perhaps in a loop.
void Program::patch() {
  if (!to_.inPatchArea) return focused();
  bool whole = chance(50);
  byte(0xc6);  // MOV byte [RIP + ?], imm8, or with the whole address
  byte(short16() ? 0x06 : 0x05);
  word(0);
  Place target{to_.length, wordBytes(), 0};
  // The last three show flags that were dead until the code changed: without strict flags they may be lost by then.
  constexpr std::uint8_t kOneByte[] = {0x90, 0x98, 0x99, 0xf8, 0xf9, 0xfc, 0xf5, 0x9f, 0xcc};
  byte(whole ? kOneByte[below(sizeof kOneByte - (from_.definedFlags_ ? 3 : 0))] : below(256));
  target.negative = wide() ? to_.length : 0 - (codeStart() + (short16() ? kPatchAlias - kDataAlias : 0));
  if (chance(60)) focused();
  if (!whole) {
    byte(0x05);  // ADD EAX, imm32: its first immediate byte
  }
  jumpHere(target);
  if (whole) {
    byte(0x90);
  } else {
    word(from_.random());
  }
}

/// Several accesses off one base, or one base and index: fields of an object, elements of an array.
void Program::fields() {
  if (fixed_.on) return focused();
  fixed_ = {true, chance(40), pointer(), static_cast<unsigned>(below(4))};
  unsigned start = to_.length;
  for (std::uint64_t n = 2 + below(4); n > 0 && to_.length - start < 20; --n) {
    focused();
    if (chance(15)) {  // the base moves on: LEA base, [base + 8]
      Register b = fixed_.base;
      rex(8 | (b >> 3) << 2 | b >> 3);
      byte(0x8d);
      nearOperand(b, b, chance(50) ? 8 : 0xf8);
    }
  }
  fixed_.on = false;
}

/// POPF of arithmetic flags, and now and then of DF and AC: pushed as a constant, or changed on the stack.
void Program::flags() {
  std::uint32_t image = static_cast<std::uint32_t>(from_.random()) & 0x8d5;
  if (!short16() && chance(50)) {
    byte(0x9c);
    byte(0x81);  // XOR dword [RSP], imm32
    byte(0x34);
    byte(0x24);
  } else {
    byte(0x68);
    image |= 0x202;
  }
  if (chance(10)) image |= 0x400;
  if (chance(4)) image |= 0x40000;
  if (from_.kernel_ && chance(4)) image |= 0x100;  // TF
  word(image);
  byte(0x9d);
}

/// BT, BTS, BTR, BTC of a bit string in memory with a register offset.
void Program::bitString() {
  if (from_.definedFlags_) return focused();
  Register base = pointer(), bit = chance(80) ? index_ : static_cast<Register>(below(registers_));
  unsigned size = static_cast<unsigned>(below(3));
  if (chance(20)) byte(0xf0);
  if (size == 0) byte(0x66);
  segmentPrefix();
  rex((size == 2 ? 8 : 0) | (bit >> 3) << 2 | base >> 3);
  byte(0x0f);
  byte(0xa3 | below(4) << 3);
  nearOperand(bit, base, below(256));
}

}  // namespace lodge::differential
