// SPDX-License-Identifier: Apache-2.0
// MOV, LEA, XCHG, BSWAP: what a move does is simple enough to be better than generic().
#include "engine/translate/rewriter.h"

namespace lodge::translate {

namespace {
using namespace x86;

bool isHighByte(const Instruction& i, std::uint8_t r) {
  return i.operandSize == 1 && i.rex == 0 && r >= 4 && r < 8;
}
bool moved(std::uint8_t r) {
  return r == rsp || (r >= 12 && r <= 15);
}
}  // namespace

bool Rewriter::move(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  switch (i.info->form) {
    case Form::z_i:
      if (isHighByte(i, i.rm) || !moved(i.rm)) {
        verbatim();
        return true;
      }
      return moveImmediate(i.rm, i.immediate, i.operandSize);
    case Form::e_i:
      if (i.memory) return generic(g);
      if (isHighByte(i, i.rm) || !moved(i.rm)) {
        verbatim();
        return true;
      }
      return moveImmediate(i.rm, i.immediate, i.operandSize);
    case Form::a_o:
    case Form::o_a:
      return moveOffset(g);
    case Form::e_g:
    case Form::g_e: {
      if (i.memory) return generic(g);
      std::uint8_t to = i.info->form == Form::e_g ? i.rm : i.reg;
      std::uint8_t from = i.info->form == Form::e_g ? i.reg : i.rm;
      bool high = isHighByte(i, to) || isHighByte(i, from);
      if ((isHighByte(i, to) || !moved(to)) && (isHighByte(i, from) || !moved(from))) {
        verbatim();
        return true;
      }
      return !high && moveRegisters(to, from, i.operandSize);
    }
    default:
      return false;
  }
}

bool Rewriter::moveRegisters(std::uint8_t to, std::uint8_t from, unsigned width) {
  if (!isSpilled(to)) {
    if (isSpilled(from)) {
      hot_.load(width, hostOf(to), slot(from));
    } else {
      hot_.mov(width, hostOf(to), hostOf(from));
    }
    return true;
  }
  std::uint8_t source = hostOf(from);
  if (isSpilled(from)) {
    source = host::addend;
    hot_.load(width < 4 ? 8 : width, source, slot(from));
  } else if (width == 4) {
    source = host::addend;
    hot_.mov(4, source, hostOf(from));
  }
  hot_.store(width == 4 ? 8 : width, slot(to), source);
  return true;
}

bool Rewriter::moveImmediate(std::uint8_t to, std::uint64_t value, unsigned width) {
  if (width == 4) value = static_cast<std::uint32_t>(value);
  if (!isSpilled(to)) {
    if (width < 4) {  // MOV r15w/r15b
      if (width == 2) hot_.byte(0x66);
      hot_.byte(0x41);
      hot_.byte(width == 1 ? 0xb7 : 0xbf);
      hot_.byte(static_cast<std::uint8_t>(value));
      if (width == 2) hot_.byte(static_cast<std::uint8_t>(value >> 8));
    } else {
      hot_.movImmediate(hostOf(to), value);
    }
    return true;
  }
  bool fits = static_cast<std::int64_t>(value) == static_cast<std::int32_t>(value);
  if (width == 1) {
    hot_.storeImmediate8(slot(to), static_cast<std::uint8_t>(value));
  } else if (width >= 4 && fits) {
    hot_.storeImmediate32(8, slot(to), static_cast<std::int32_t>(value));
  } else {
    hot_.movImmediate(host::addend, value);
    hot_.store(width == 2 ? 2 : 8, slot(to), host::addend);
  }
  return true;
}

/// MOV between AL/AX/EAX/RAX and an absolute address.
bool Rewriter::moveOffset(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  Mem m = operand(i);
  if (i.info->form == Form::a_o) {
    hot_.load(i.operandSize, host::rax, m);
  } else {
    hot_.store(i.operandSize, m, host::rax);
  }
  return true;
}

bool Rewriter::loadAddress(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  std::uint8_t to = isSpilled(i.reg) ? host::addend : hostOf(i.reg);
  // LEA ignores segments.
  std::uint64_t constant = static_cast<std::uint64_t>(i.displacement) + (i.ripRelative ? block_.nextRip(g) : 0);
  if (i.addressSize == 4) constant = static_cast<std::uint32_t>(constant);
  if (i.operandSize == 2) {
    if (isSpilled(i.reg)) return false;
  }
  unsigned width = i.operandSize == 8 && i.addressSize == 4 ? 4 : i.operandSize;
  if (i.base == kNoRegister && i.index == kNoRegister) {
    if (width == 2) return false;
    if (i.ripRelative && block_.isShared) {
      if (loop_) return false;  // which counts in r12
      std::uint64_t linear = block_.nextRip(g) + static_cast<std::uint64_t>(i.displacement);
      std::int32_t rest = pageBase(hot_, host::address, linear);
      hot_.lea(width, to, Mem{.base = host::address, .displacement = rest});
    } else {
      hot_.movImmediate(to, width == 4 ? static_cast<std::uint32_t>(constant) : constant);
    }
  } else {
    Mem m{.displacement = static_cast<std::int32_t>(i.displacement)};
    if (i.base != kNoRegister) {
      m.base = isSpilled(i.base) ? host::address : hostOf(i.base);
      if (isSpilled(i.base)) hot_.load(8, host::address, slot(i.base));
    }
    if (i.index != kNoRegister) {
      m.scale = i.scale;
      m.index = isSpilled(i.index) ? host::addend : hostOf(i.index);
      if (isSpilled(i.index)) hot_.load(8, host::addend, slot(i.index));
    }
    // A 16-bit result of a 32-bit address is the same low bits.
    hot_.lea(width, to, m);
  }
  if (isSpilled(i.reg)) hot_.store(8, slot(i.reg), host::addend);
  return true;
}

bool Rewriter::exchange(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  if (i.memory) return generic(g);
  std::uint8_t a = i.info->form == Form::a_z ? std::uint8_t{rax} : i.reg;
  std::uint8_t b = i.rm;
  bool highA = isHighByte(i, a);
  bool highB = isHighByte(i, b);
  if ((highA || !moved(a)) && (highB || !moved(b))) {
    verbatim();
    return true;
  }
  if (highA || highB) return false;
  unsigned width = i.operandSize;
  unsigned loadWidth = width < 4 ? 8 : width;
  auto fetch = [&](std::uint8_t to, std::uint8_t guest) {
    if (isSpilled(guest)) {
      hot_.load(loadWidth, to, slot(guest));
    } else {
      hot_.mov(loadWidth, to, hostOf(guest));
    }
  };
  auto put = [&](std::uint8_t guest, std::uint8_t from) {
    if (isSpilled(guest)) {
      hot_.store(width == 4 ? 8 : width, slot(guest), from);
    } else {
      hot_.mov(width, hostOf(guest), from);
    }
  };
  fetch(host::addend, a);
  fetch(host::address, b);
  put(a, host::address);
  committing();
  put(b, host::addend);
  return true;
}

bool Rewriter::byteSwap(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  if (!moved(i.rm)) {
    verbatim();
    return true;
  }
  if (i.operandSize == 2) return false;
  std::uint8_t r = isSpilled(i.rm) ? host::addend : hostOf(i.rm);
  if (isSpilled(i.rm)) hot_.load(8, r, slot(i.rm));
  hot_.byte(static_cast<std::uint8_t>(i.operandSize == 8 ? 0x49 : 0x41));
  hot_.byte(0x0f);
  hot_.byte(static_cast<std::uint8_t>(0xc8 | (r & 7)));
  if (isSpilled(i.rm)) hot_.store(8, slot(i.rm), r);
  return true;
}

}  // namespace lodge::translate
