// SPDX-License-Identifier: Apache-2.0
// Segment registers, descriptor tables, far transfers and software interrupts: operands are fetched here, the rest is
// x86/system.h's.
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"

namespace lodge::interpret {
namespace {

using x86::Form;
using x86::Op;

bool realOrVirtual(const Cpu& cpu) {
  return !cpu.protectedMode() || cpu.virtual8086();
}

bool loadSegmentWithShadow(Cpu& cpu, Segment segment, std::uint16_t selector) {
  if (!x86::loadSegment(cpu, segment, selector)) return false;
  if (segment == x86::ss) cpu.state.interruptShadow = 2;
  return true;
}

Outcome moveToSegment(Cpu& cpu, const Decoded& d) {
  std::uint16_t selector;
  if (!readRm<std::uint16_t>(cpu, d, selector)) return Outcome::fault;
  return outcomeOf(loadSegmentWithShadow(cpu, static_cast<Segment>(d.insn.reg & 7), selector));
}

/// Memory gets a word; a register the whole operand, zero-extended.
Outcome moveFromSegment(Cpu& cpu, const Decoded& d) {
  std::uint16_t selector = cpu.state.segment[d.insn.reg & 7].selector;
  return outcomeOf(writeRmSized(cpu, d, d.insn.memory ? 2 : d.insn.operandSize, selector));
}

Outcome popSegment(Cpu& cpu, const Decoded& d) {
  std::uint64_t selector;
  if (!peekSized(cpu, d.code64, d.insn.operandSize, selector)) return Outcome::fault;
  // The stack pointer's width is SS's before the load.
  std::uint64_t mask = stackMask(cpu, d.code64);
  if (!loadSegmentWithShadow(cpu, static_cast<Segment>(d.reg), static_cast<std::uint16_t>(selector)))
    return Outcome::fault;
  setStackPointer(cpu, mask, cpu.state.gpr[x86::rsp] + d.insn.operandSize);
  return Outcome::next;
}

/// A far pointer in memory: offset, then selector.
bool readFarPointer(Cpu& cpu, const Decoded& d, std::uint64_t& offset, std::uint16_t& selector) {
  std::uint64_t address = effectiveAddress(cpu, d);
  unsigned size = d.insn.operandSize;
  std::uint64_t wide;
  if (!readSlow(cpu, d.segment, address, size, offset)) return false;
  if (!readSlow(cpu, d.segment, (address + size) & d.addressMask, 2, wide)) return false;
  selector = static_cast<std::uint16_t>(wide);
  return true;
}

Segment pointerSegment(Op op) {
  switch (op) {
    case Op::les:
      return x86::es;
    case Op::lds:
      return x86::ds;
    case Op::lss:
      return x86::ss;
    case Op::lfs:
      return x86::fs;
    default:
      return x86::gs;
  }
}
Outcome loadFarPointer(Cpu& cpu, const Decoded& d) {
  std::uint64_t offset;
  std::uint16_t selector;
  if (!readFarPointer(cpu, d, offset, selector)) return Outcome::fault;
  if (!x86::loadSegment(cpu, pointerSegment(d.insn.info->op), selector)) return Outcome::fault;
  writeRegSized(cpu, d.reg, d.insn.operandSize, offset);
  return Outcome::next;
}

Outcome jumpFar(Cpu& cpu, const Decoded& d) {
  return jumpOutcome(x86::farJump(cpu, d.insn.immediate2, d.insn.immediate, d.insn.operandSize, nextRip(cpu, d)));
}
Outcome callFar(Cpu& cpu, const Decoded& d) {
  return jumpOutcome(x86::farCall(cpu, d.insn.immediate2, d.insn.immediate, d.insn.operandSize, nextRip(cpu, d)));
}
template <bool call>
Outcome farIndirect(Cpu& cpu, const Decoded& d) {
  std::uint64_t offset;
  std::uint16_t selector;
  if (!readFarPointer(cpu, d, offset, selector)) return Outcome::fault;
  return jumpOutcome(call ? x86::farCall(cpu, selector, offset, d.insn.operandSize, nextRip(cpu, d))
                          : x86::farJump(cpu, selector, offset, d.insn.operandSize, nextRip(cpu, d)));
}
Outcome returnFar(Cpu& cpu, const Decoded& d) {
  return jumpOutcome(x86::farReturn(cpu, d.insn.operandSize, static_cast<std::uint16_t>(d.insn.immediate)));
}
Outcome interruptReturn(Cpu& cpu, const Decoded& d) {
  return jumpOutcome(x86::interruptReturn(cpu, d.insn.operandSize, nextRip(cpu, d)));
}

Outcome softwareInterrupt(Cpu& cpu, const Decoded& d) {
  using Kind = x86::SoftwareInterrupt;
  Op op = d.insn.info->op;
  if (op == Op::into && (cpu.state.rflags & x86::flag::of) == 0) return Outcome::next;
  std::uint8_t vector = op == Op::int3   ? 3
                        : op == Op::into ? 4
                        : op == Op::int1 ? 1
                                         : static_cast<std::uint8_t>(d.insn.immediate);
  Kind kind = op == Op::int_ ? Kind::intN : op == Op::int1 ? Kind::int1 : Kind::int3OrInto;
  return jumpOutcome(x86::softwareInterrupt(cpu, vector, nextRip(cpu, d), kind));
}

Outcome bound(Cpu& cpu, const Decoded& d) {
  std::uint64_t address = effectiveAddress(cpu, d), low, high;
  unsigned size = d.insn.operandSize;
  if (!readSlow(cpu, d.segment, address, size, low)) return Outcome::fault;
  if (!readSlow(cpu, d.segment, (address + size) & d.addressMask, size, high)) return Outcome::fault;
  auto extend = [size](std::uint64_t v) {
    return size == 2 ? static_cast<std::int64_t>(static_cast<std::int16_t>(v))
                     : static_cast<std::int64_t>(static_cast<std::int32_t>(v));
  };
  std::int64_t index = extend(readRegSized(cpu, d.reg, size));
  if (index < extend(low) || index > extend(high)) return outcomeOf(x86::raise(cpu, x86::Vector::br));
  return Outcome::next;
}

// --- descriptor tables

template <bool idt>
Outcome storeTable(Cpu& cpu, const Decoded& d) {
  if (!x86::checkUmip(cpu)) return Outcome::fault;
  const x86::DescriptorTable& table = idt ? cpu.state.idtr : cpu.state.gdtr;
  unsigned size = d.code64 ? 10 : 6;
  std::byte image[10];
  *reinterpret_cast<std::uint16_t*>(image) = static_cast<std::uint16_t>(table.limit);
  for (unsigned i = 0; i < 8; ++i) image[2 + i] = static_cast<std::byte>(table.base >> (8 * i));
  std::uint64_t linear;
  if (!x86::linearAddressFast(cpu, static_cast<Segment>(d.segment), effectiveAddress(cpu, d), size, Access::write,
                              linear)) {
    return Outcome::fault;
  }
  return outcomeOf(x86::writeLinearBytes(cpu, linear, image, size));
}

template <bool idt>
Outcome loadTable(Cpu& cpu, const Decoded& d) {
  if (!isSupervisor(cpu)) return outcomeOf(x86::raiseGp(cpu, 0));
  unsigned size = d.code64 ? 10 : 6;
  std::byte image[10] = {};
  std::uint64_t linear;
  if (!x86::linearAddressFast(cpu, static_cast<Segment>(d.segment), effectiveAddress(cpu, d), size, Access::read,
                              linear) ||
      !x86::readLinearBytes(cpu, linear, image, size)) {
    return Outcome::fault;
  }
  std::uint64_t base = 0;
  for (unsigned i = 0; i < size - 2; ++i) base |= static_cast<std::uint64_t>(image[2 + i]) << (8 * i);
  if (!d.code64 && d.insn.operandSize == 2) base &= 0xffffff;
  if (d.code64 && !x86::isCanonical(cpu, base)) return outcomeOf(x86::raiseGp(cpu, 0));
  x86::DescriptorTable& table = idt ? cpu.state.idtr : cpu.state.gdtr;
  table.limit = *reinterpret_cast<std::uint16_t*>(image);
  table.base = base;
  return Outcome::next;
}

Outcome storeSelector(Cpu& cpu, const Decoded& d) {
  if (realOrVirtual(cpu)) return outcomeOf(x86::raiseUd(cpu));
  if (!x86::checkUmip(cpu)) return Outcome::fault;
  std::uint16_t selector = d.insn.info->op == Op::sldt ? cpu.state.ldtr.selector : cpu.state.tr.selector;
  return outcomeOf(writeRmSized(cpu, d, d.insn.memory ? 2 : d.insn.operandSize, selector));
}

Outcome loadSelector(Cpu& cpu, const Decoded& d) {
  if (realOrVirtual(cpu)) return outcomeOf(x86::raiseUd(cpu));
  if (!isSupervisor(cpu)) return outcomeOf(x86::raiseGp(cpu, 0));
  std::uint16_t selector;
  if (!readRm<std::uint16_t>(cpu, d, selector)) return Outcome::fault;
  return outcomeOf(d.insn.info->op == Op::lldt ? x86::loadLdtr(cpu, selector) : x86::loadTr(cpu, selector));
}

void setZero(Cpu& cpu, bool ok) {
  cpu.state.rflags = (cpu.state.rflags & ~x86::flag::zf) | (ok ? x86::flag::zf : 0);
}

Outcome querySelector(Cpu& cpu, const Decoded& d) {
  if (realOrVirtual(cpu)) return outcomeOf(x86::raiseUd(cpu));
  std::uint16_t selector;
  if (!readRm<std::uint16_t>(cpu, d, selector)) return Outcome::fault;
  Op op = d.insn.info->op;
  bool ok = false;
  std::uint32_t value = 0;
  bool good = op == Op::lar   ? x86::loadAccessRights(cpu, selector, ok, value)
              : op == Op::lsl ? x86::loadLimit(cpu, selector, ok, value)
                              : x86::verifySegment(cpu, selector, op == Op::verw, ok);
  if (!good) return Outcome::fault;
  if (ok && (op == Op::lar || op == Op::lsl)) writeRegSized(cpu, d.reg, d.insn.operandSize, value);
  setZero(cpu, ok);
  return Outcome::next;
}

Outcome arpl(Cpu& cpu, const Decoded& d) {
  if (realOrVirtual(cpu)) return outcomeOf(x86::raiseUd(cpu));
  auto source = readReg<std::uint16_t>(cpu, d.reg);
  bool raised = false;
  auto adjust = [&](std::uint16_t target) {
    raised = (target & 3) < (source & 3);
    return raised ? static_cast<std::uint16_t>((target & ~3) | (source & 3)) : target;
  };
  if (d.insn.memory) {
    // Written only if it changes (so on AMD processors).
    std::uint16_t target = 0;
    if (!readMemory<std::uint16_t>(cpu, d, target)) return Outcome::fault;
    std::uint16_t adjusted = adjust(target);
    if (raised && !writeMemory<std::uint16_t>(cpu, d, adjusted)) return Outcome::fault;
  } else {
    writeReg(cpu, d.rm, adjust(readReg<std::uint16_t>(cpu, d.rm)));
  }
  setZero(cpu, raised);
  return Outcome::next;
}

}  // namespace

Handler segmentHandler(const Instruction& i) {
  switch (i.info->op) {
    case Op::movsreg_to:
      return &moveToSegment;
    case Op::movsreg_from:
      return &moveFromSegment;
    case Op::pop:
      return i.info->form == Form::sreg ? &popSegment : nullptr;
    case Op::les:
    case Op::lds:
    case Op::lss:
    case Op::lfs:
    case Op::lgs:
      return &loadFarPointer;
    case Op::jmp_far:
      return &jumpFar;
    case Op::call_far:
      return &callFar;
    case Op::jmp_far_indirect:
      return &farIndirect<false>;
    case Op::call_far_indirect:
      return &farIndirect<true>;
    case Op::ret_far:
      return &returnFar;
    case Op::iret:
      return &interruptReturn;
    case Op::int_:
    case Op::int3:
    case Op::int1:
    case Op::into:
      return &softwareInterrupt;
    case Op::bound:
      return &bound;
    case Op::sgdt:
      return &storeTable<false>;
    case Op::sidt:
      return &storeTable<true>;
    case Op::lgdt:
      return &loadTable<false>;
    case Op::lidt:
      return &loadTable<true>;
    case Op::sldt:
    case Op::str:
      return &storeSelector;
    case Op::lldt:
    case Op::ltr:
      return &loadSelector;
    case Op::lar:
    case Op::lsl:
    case Op::verr:
    case Op::verw:
      return &querySelector;
    case Op::arpl:
      return &arpl;
    default:
      return nullptr;
  }
}

}  // namespace lodge::interpret
