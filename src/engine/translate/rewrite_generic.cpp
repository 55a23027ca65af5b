// SPDX-License-Identifier: Apache-2.0
// The common case: the guest's own opcode with other registers. Guest RSP becomes r15, guest r12-r15 scratch registers
// that are loaded before and stored after (or their slots as memory operands), a memory operand what probe() gives.
#include "engine/translate/rewriter.h"

namespace lodge::translate {

namespace {
using namespace x86;
using namespace x86::attribute;

bool uses(const Instruction& i, std::uint32_t a) {
  return (i.info->attributes & a) != 0;
}
bool isVex(const Instruction& i) {
  return i.encoding == Encoding::vex;
}

bool regIsGeneral(const Instruction& i) {
  return uses(i, regIsGpr);
}
bool rmIsGeneral(const Instruction& i) {
  return uses(i, rmIsGpr) && i.isRegisterForm();
}
bool vvvvIsGeneral(const Instruction& i) {
  return isVex(i) && uses(i, vvvvIsGpr);
}

/// Whether a byte-sized rm or reg operand of this class integer instruction is a byte register (AH..BH without REX).
bool rmIsByte(const Instruction& i) {
  if (i.info->cls != OpClass::integer || isVex(i)) return false;
  return uses(i, byteForm) ||
         (i.info->memoryBytes == 1 && (i.info->op == Op::movzx || i.info->op == Op::movsx || i.info->op == Op::crc32));
}
bool regIsByte(const Instruction& i) {
  return i.info->cls == OpClass::integer && uses(i, byteForm) && regIsGeneral(i);
}
bool isHighByte(const Instruction& i, std::uint8_t r) {
  return i.rex == 0 && r >= 4 && r < 8;
}

bool writesVvvv(Op op) {
  return op == Op::blsr || op == Op::blsmsk || op == Op::blsi || op == Op::mulx;
}

/// Whether the register form means the same with the register's memory in its place. (LOCK is implied by XCHG; bit
/// strings address beyond; the others that write 32 bits must clear the upper half.)
bool slotMayReplaceRm(const Instruction& i) {
  if (uses(i, registerOnly) || i.evexB) return false;  // with memory the bit would mean a broadcast
  if (i.info->cls == OpClass::native) return !uses(i, writesRm);
  switch (i.info->op) {
    case Op::xchg:
    case Op::cmpxchg:
    case Op::xadd:
      return false;
    case Op::bt:
    case Op::bts:
    case Op::btr:
    case Op::btc:
      if (i.info->form == Form::e_g) return false;
      break;
    default:
      break;
  }
  return !uses(i, writesRm) || i.operandSize != 4 || rmIsByte(i);
}
}  // namespace

void Rewriter::reencode(const RegMem& rm, std::uint8_t reg, std::uint8_t vvvv) {
  hot_.reencode(current_->decoded, current_->bytes, reg, rm, vvvv);
}

void Rewriter::reencodeOp(std::uint8_t opcode, const RegMem& rm, std::uint8_t reg) {
  Instruction changed = current_->decoded;
  changed.opcode = opcode;
  hot_.reencode(changed, current_->bytes, reg, rm, changed.vexV);
}

/// INC and DEC without ModRM: their opcodes are REX prefixes in 64-bit code.
bool Rewriter::shortIncrement(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  if (i.hasModrm || (i.info->op != Op::inc && i.info->op != Op::dec)) return false;
  hot_.legacy(i.operandSize, 0, 0xff, i.info->op == Op::dec ? 1 : 0, hostOf(i.rm));
  return true;
}

/// VZEROUPPER and VZEROALL in 32-bit code leave YMM8-15 alone.
bool Rewriter::zeroVectors(const GuestInstruction& g) {
  constexpr std::uint8_t kVzero = 0x77, kVmovaps = 0x28, kVpxor = 0xef;
  const Instruction& i = g.decoded;
  if (key().has(ModeKey::code64) || !isVex(i) || i.map != 1 || i.opcode != kVzero) return false;
  for (std::uint8_t r = 0; r < 8; ++r) {
    if (i.vexL == 0) {
      hot_.vex(0, 1, false, 0, kVmovaps, r, 0, r);
    } else {
      hot_.vex(1, 1, false, 0, kVpxor, r, r, r);
    }
    if (r == 0) committing();
  }
  return true;
}

bool Rewriter::generic(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  if (shortIncrement(g) || zeroVectors(g)) return true;
  if (!i.hasModrm) {
    verbatim();
    return true;
  }
  return i.memory ? genericMemory(g) : genericRegisters(g);
}

/// ALU instructions between a plain and a spilled register read the slot directly when that is the rm operand.
bool Rewriter::flipOperands(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  if (i.map != 0 || !isSpilled(i.reg) || isSpilled(i.rm)) return false;
  bool alu = i.opcode < 0x40 && (i.opcode & 7) < 2;  // op Ev,Gv and Eb,Gb: bit 1 turns the direction
  bool test = i.opcode == 0x84 || i.opcode == 0x85;
  if (!alu && !test) return false;
  reencodeOp(static_cast<std::uint8_t>(alu ? i.opcode | 2 : i.opcode), slot(i.reg), hostOf(i.rm));
  return true;
}

bool Rewriter::genericRegisters(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  bool regG = regIsGeneral(i);
  bool rmG = rmIsGeneral(i);
  bool vG = vvvvIsGeneral(i);
  bool highByte = (regIsByte(i) && isHighByte(i, i.reg)) || (rmG && rmIsByte(i) && isHighByte(i, i.rm));
  auto moved = [](std::uint8_t r) { return r == rsp || isSpilled(r); };
  bool regMoved = regG && moved(i.reg) && !(regIsByte(i) && isHighByte(i, i.reg));
  bool rmMoved = rmG && moved(i.rm) && !(rmIsByte(i) && isHighByte(i, i.rm));
  bool vMoved = vG && moved(i.vexV);
  if (!regMoved && !rmMoved && !vMoved) {
    if (i.encoding != Encoding::legacy) {
      reencode(i.rm, i.reg, i.vexV);  // 32-bit code may set bits of the prefix that mean nothing there
    } else {
      verbatim();
    }
    return true;
  }
  if (highByte) return false;  // AH..BH cannot be named beside r8-r15
  if (regG && rmG && flipOperands(g)) return true;

  std::uint8_t reg = regG ? hostOf(i.reg) : i.reg;
  std::uint8_t vvvv = vG ? hostOf(i.vexV) : i.vexV;
  RegMem rm = rmG ? hostOf(i.rm) : i.rm;
  bool storeReg = false, storeRm = false, storeV = false;
  bool partial = i.operandSize < 4 || uses(i, byteForm);
  if (regG && isSpilled(i.reg)) {
    reg = host::addend;
    if (uses(i, readsReg) || partial) hot_.load(8, reg, slot(i.reg));
    storeReg = uses(i, writesReg);
  }
  if (rmG && isSpilled(i.rm)) {
    if (slotMayReplaceRm(i)) {
      rm = slot(i.rm);
    } else {
      rm = host::address;
      hot_.load(8, host::address, slot(i.rm));
      storeRm = uses(i, writesRm);
    }
  }
  if (vG && isSpilled(i.vexV)) {
    vvvv = host::group;  // no group goes across such instructions
    storeV = writesVvvv(i.info->op);
    if (!storeV) hot_.load(8, vvvv, slot(i.vexV));
  }
  reencode(rm, reg, vvvv);
  if (storeReg || storeRm || storeV) committing();
  // In this order: MULX with one register twice keeps the high half, XADD the sum.
  if (storeV) hot_.store(8, slot(i.vexV), host::group);
  if (storeReg) hot_.store(8, slot(i.reg), host::addend);
  if (storeRm) hot_.store(8, slot(i.rm), host::address);
  return true;
}

/// AH..BH as the other operand: no REX prefix is possible, so the byte travels through memory at RSP.
bool Rewriter::highByteMemory(const GuestInstruction& g, Mem operand) {
  const Instruction& i = g.decoded;
  Mem byte = atState(FRAME_BYTE_TEMP);
  std::uint8_t spare = spareBeside(operand);
  if (i.info->form == Form::g_e) {
    hot_.load(1, spare, operand);
    hot_.store(1, byte, spare);
    reencode(byte, i.reg, 0);
    return true;
  }
  // MOV [RSP+temp], AH: without REX, registers 4-7 are AH..BH.
  hot_.byte(0x88);
  hot_.byte(static_cast<std::uint8_t>(0x44 | i.reg << 3));
  hot_.byte(0x24);
  hot_.byte(static_cast<std::uint8_t>(FRAME_BYTE_TEMP));
  hot_.load(1, spare, byte);
  reencode(operand, spare, 0);
  return true;
}

bool Rewriter::genericMemory(const GuestInstruction& g) {
  const Instruction& i = g.decoded;
  bool regG = regIsGeneral(i);
  bool vG = vvvvIsGeneral(i);
  bool highByte = regIsByte(i) && isHighByte(i, i.reg);
  if (highByte && i.info->form != Form::g_e && uses(i, writesReg)) return false;
  if (memoryOperand(i).bytes == 0) return false;

  Mem m = operand(i);
  if (highByte) return highByteMemory(g, m);
  std::uint8_t reg = regG ? hostOf(i.reg) : i.reg;
  std::uint8_t vvvv = vG ? hostOf(i.vexV) : i.vexV;
  bool storeReg = false, storeV = false;
  bool partial = i.operandSize < 4 || uses(i, byteForm);
  if (vG && isSpilled(i.vexV)) {  // not in a group
    vvvv = host::addend;
    hot_.lea(8, host::address, m);
    m = Mem{.base = host::address};
    storeV = writesVvvv(i.info->op);
    if (!storeV) hot_.load(8, vvvv, slot(i.vexV));
  }
  if (regG && isSpilled(i.reg)) {
    storeReg = uses(i, writesReg);
    bool needsOld = uses(i, readsReg) || (storeReg && partial);
    if (vvvv == host::addend) {
      reg = host::group;
    } else {
      reg = needsOld ? spareBeside(m) : host::addend;  // a plain load may overwrite its own address
    }
    if (needsOld) hot_.load(8, reg, slot(i.reg));
  }
  reencode(m, reg, vvvv);
  if (storeReg || storeV) committing();
  if (storeV) hot_.store(8, slot(i.vexV), host::addend);
  if (storeReg) hot_.store(8, slot(i.reg), reg);
  return true;
}

}  // namespace lodge::translate
