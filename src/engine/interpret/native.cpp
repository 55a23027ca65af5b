// SPDX-License-Identifier: Apache-2.0
// Execution of Op::native and of the small state instructions that need nothing but checks before they run natively.
#include "base/bytes.h"
#include "engine/interpret/evex_memory.h"
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"
#include "engine/interpret/thunk.h"
#include "engine/interpret/vector_state.h"
#include "engine/interpret/x87_image.h"

namespace lodge::interpret {

namespace attribute = x86::attribute;

bool checkVectorState(Cpu& cpu, const Instruction& insn) {
  const CpuState& s = cpu.state;
  std::uint32_t a = insn.info->attributes;
  bool monitored = (s.cr0 & x86::cr0::ts) != 0;
  if (a & (attribute::avx | attribute::avx512)) {
    std::uint64_t components = a & attribute::avx512 ? 0xe6 : 6;
    bool enabled = (s.cr4 & x86::cr4::osxsave) != 0 && (s.xcr0 & components) == components && cpu.protectedMode() &&
                   !cpu.virtual8086();
    if (!enabled) return x86::raiseUd(cpu);
  } else if (a & attribute::sse) {
    if ((s.cr0 & x86::cr0::em) != 0 || (s.cr4 & x86::cr4::osfxsr) == 0) return x86::raiseUd(cpu);
  } else if (a & attribute::mmx) {
    if ((s.cr0 & x86::cr0::em) != 0) return x86::raiseUd(cpu);
  } else if (insn.info->op == x86::Op::fwait) {
    monitored = monitored && (s.cr0 & x86::cr0::mp) != 0;
  } else if (a & attribute::x87) {
    monitored = monitored || (s.cr0 & x86::cr0::em) != 0;
  }
  return !monitored || x86::raise(cpu, x86::Vector::nm);
}

bool raiseFloatingPoint(Cpu& cpu, std::uint64_t hostVector) {
  if (hostVector == static_cast<std::uint64_t>(x86::Vector::mf)) return x86::raise(cpu, x86::Vector::mf);
  if ((cpu.state.cr4 & x86::cr4::osxmmexcpt) == 0) return x86::raiseUd(cpu);
  return x86::raise(cpu, x86::Vector::xm);
}

std::uint64_t runOnBuffer(Cpu& cpu, const Instruction& insn, void* buffer) {
  const Thunk* t = contextOf(cpu).thunks->find(insn);
  cpu.unparkFpu();
  std::uint64_t registers[3] = {}, flags = 0x202;
  return t->entry(buffer, registers, &flags);
}

namespace {

/// Where the memory operand of a native instruction is.
struct NativeOperand {
  void* host = nullptr;
  std::uint64_t linear = 0;
  std::byte* written = nullptr;  ///< guest memory that the instruction stores to
  bool store = false;            ///< `host` is a buffer that goes to `linear` afterwards
};

bool isAligned(const Thunk& t, std::uint64_t linear) {
  return !t.aligned || (linear & (t.bytes - 1u)) == 0;
}
bool alignedOrFault(Cpu& cpu, const Thunk& t, std::uint64_t linear) {
  if (isAligned(t, linear)) return true;
  return x86::raiseGp(cpu, 0);
}

bool mayStoreNothing(Cpu& cpu, const Thunk& t) {
  if (!t.recordsPointers) return false;
  cpu.unparkFpu();
  std::uint16_t control;
  asm volatile("fnstcw %0" : "=m"(control));
  return (control & 0x3f) != 0x3f;
}

/// Everything that is not a hit: faults, page crossings, MMIO.
bool locateSlow(Cpu& cpu, const Decoded& d, const Thunk& t, NativeOperand& o) {
  Context& c = contextOf(cpu);
  Access access = t.writes ? Access::write : Access::read;
  std::uint64_t offset = effectiveAddress(cpu, d);
  // A misaligned address is #GP even where a stack address beyond its limits would be #SS.
  std::uint64_t segmentBase = d.code64 ? 0 : cpu.state.segment[d.segment].base;
  if ((!d.code64 || d.segment < x86::fs) && !alignedOrFault(cpu, t, segmentBase + offset)) return false;
  if (!x86::linearAddressFast(cpu, static_cast<Segment>(d.segment), offset, t.bytes, access, o.linear)) return false;
  if (!alignedOrFault(cpu, t, o.linear)) return false;
  // #AC goes by the operand's size, up to 16 bytes (10 bytes: 8; SDM vol. 3, table 6-7).
  unsigned alignment = t.bytes == 10 ? 8 : t.bytes >= 32 && !t.bounce ? 16 : t.bytes & (0u - t.bytes);
  if (!checkAlignment(cpu, o.linear, alignment)) return false;
  cpu.exception.valid = false;
  o.host = c.area;
  if (t.writes) {
    o.written = t.bounce ? nullptr : x86::writablePointer(cpu, o.linear, t.bytes);
    if (cpu.exception.valid) return false;
    if (o.written) {
      o.host = o.written;
      return true;
    }
    o.store = true;
    if (!x86::probeLinear(cpu, o.linear, t.bytes, Access::write)) return false;
    // An unmasked x87 exception keeps the instruction from storing anything.
    return !mayStoreNothing(cpu, t) || x86::readLinearBytes(cpu, o.linear, c.area, t.bytes);
  }
  const std::byte* p = x86::readablePointer(cpu, o.linear, t.bytes);
  if (p && !(t.alignCopy && (o.linear & 15) != 0)) {
    o.host = const_cast<std::byte*>(p);
    return true;
  }
  return !cpu.exception.valid && x86::readLinearBytes(cpu, o.linear, c.area, t.bytes);
}

/// A hit in the TLB. False: look closer; no exception is pending.
[[gnu::always_inline]] inline bool locateQuick(Cpu& cpu, const Decoded& d, const Thunk& t, NativeOperand& o) {
  std::uint64_t offset = effectiveAddress(cpu, d);
  x86::Rights rights = x86::currentRights(cpu);
  if (t.writes) {
    if (!t.bounce && quickLinear<Access::write>(cpu, d.code64, d.segment, offset, t.bytes, o.linear)) {
      if (!isAligned(t, o.linear)) return false;
      o.host = o.written = x86::tlbWritable(cpu, o.linear, t.bytes, rights);
    }
  } else if (quickLinear<Access::read>(cpu, d.code64, d.segment, offset, t.bytes, o.linear)) {
    if (!isAligned(t, o.linear)) return false;
    if (!t.alignCopy || (o.linear & 15) == 0) o.host = x86::tlbReadable(cpu, o.linear, t.bytes, rights);
  }
  return o.host != nullptr;
}

void notePointers(Cpu& cpu, const Decoded& d, const Thunk& t, const NativeOperand& o) {
  x86::X87Pointers& p = cpu.x87;
  if (t.loadsPointers) loadPointers(cpu, d, static_cast<const std::byte*>(o.host));
  if (t.clearsPointers) p = x86::X87Pointers{};
  if (!t.recordsPointers) return;
  const CpuState& s = cpu.state;
  p.ip = s.rip;
  p.cs = s.segment[x86::cs].selector;
  p.opcode = static_cast<std::uint16_t>((d.insn.opcode & 7) << 8 | d.insn.modrm);
  if (t.bytes == 0) return;
  p.dp = effectiveAddress(cpu, d);
  p.ds = s.segment[d.segment].selector;
}

/// Whether an unmasked x87 exception waits and `t` is an instruction that takes it first.
bool pendingX87(Cpu& cpu, const Thunk& t) {
  if (!t.waits) return false;
  cpu.unparkFpu();
  std::uint16_t status;
  asm volatile("fnstsw %0" : "=m"(status));
  return (status & 0x80) != 0;
}

/// The operand is found.
[[gnu::always_inline]] inline Outcome execute(Cpu& cpu, const Decoded& d, const Thunk& t, const NativeOperand& o) {
  CpuState& s = cpu.state;
  std::uint64_t registers[3] = {s.gpr[x86::rax], s.gpr[x86::rdx], 0};
  if (t.gpr == ThunkGpr::reg) registers[0] = s.gpr[d.insn.reg];
  if (t.gpr == ThunkGpr::rm) registers[0] = s.gpr[d.insn.rm];
  std::uint64_t flags = (s.rflags & x86::flag::arithmetic) | 0x202;
  cpu.unparkFpu();
  std::uint64_t raised = t.entry(o.host, registers, &flags);
  if (raised != 0) [[unlikely]]
    return outcomeOf(raiseFloatingPoint(cpu, raised));
  if (t.bounce) storePointers(cpu, d, static_cast<std::byte*>(o.host));
  if (o.store && !x86::writeLinearBytes(cpu, o.linear, o.host, t.bytes)) return Outcome::fault;
  if (o.written) x86::wroteTo(cpu, o.written, t.bytes);
  if (t.recordsPointers || t.clearsPointers || t.loadsPointers) notePointers(cpu, d, t, o);
  if (t.gprWritten) {
    if (t.gpr == ThunkGpr::implicit) s.gpr[x86::rcx] = registers[2];
    if (t.gpr == ThunkGpr::reg) s.gpr[d.insn.reg] = registers[0];
    if (t.gpr == ThunkGpr::rm) s.gpr[d.insn.rm] = registers[0];
  }
  if (t.usesFlags) s.rflags = (s.rflags & ~x86::flag::arithmetic) | (flags & x86::flag::arithmetic);
  return Outcome::next;
}

Outcome runNative(Cpu& cpu, const Decoded& d) {
  if (!checkVectorState(cpu, d.insn)) return Outcome::fault;
  const Thunk& t = *static_cast<const Thunk*>(d.native);
  NativeOperand o;
  if (t.bytes != 0 && !locateQuick(cpu, d, t, o) && !locateSlow(cpu, d, t, o)) {
    if (pendingX87(cpu, t)) x86::raise(cpu, x86::Vector::mf);  // comes before the operand's fault
    return Outcome::fault;
  }
  return execute(cpu, d, t, o);
}

/// EVEX: masked elements of the memory operand are not accessed. Where all of it may be, the host sees to that.
Outcome runMasked(Cpu& cpu, const Decoded& d) {
  if (!checkVectorState(cpu, d.insn)) return Outcome::fault;
  const Thunk& t = *static_cast<const Thunk*>(d.native);
  NativeOperand o;
  if (locateQuick(cpu, d, t, o)) return execute(cpu, d, t, o);
  return maskedElements(cpu, d);
}

/// Outside 64-bit code VZEROUPPER and VZEROALL leave registers 8 to 15 alone.
Outcome zeroEightRegisters(Cpu& cpu, const Decoded& d) {
  if (!checkVectorState(cpu, d.insn)) return Outcome::fault;
  std::byte* content = contextOf(cpu).vectors[0];
  for (unsigned i = 0; i < 32; i += 8) storeLe(content + i, std::uint64_t{0});
  for (unsigned n = 0; n < 8; ++n) {
    if (d.insn.vexL == 0) storeVector(cpu, n, 16, content);
    loadVector(cpu, n, 16, content);  // clears the rest
  }
  return Outcome::next;
}

bool zeroesRegisters(const Instruction& i) {
  return i.encoding == x86::Encoding::vex && i.map == 1 && i.opcode == 0x77;
}

/// The new value must have no reserved bits: the host would fault.
Outcome ldmxcsr(Cpu& cpu, const Decoded& d) {
  if (!checkVectorState(cpu, d.insn)) return Outcome::fault;
  std::uint32_t value;
  if (!readMemory<std::uint32_t>(cpu, d, value)) return Outcome::fault;
  if ((value & ~mxcsrMask()) != 0) return outcomeOf(x86::raiseGp(cpu, 0));
  runOnBuffer(cpu, d.insn, &value);
  return Outcome::next;
}

}  // namespace

Handler vectorHandler(const Instruction& i) {
  switch (i.info->op) {
    case x86::Op::native:
      // A masked store leaves what is masked, whether or not faults there are suppressed (VEXTRACTF32X4).
      if (i.memory && i.opmask != 0 && (i.info->attributes & (attribute::suppressesFaults | attribute::writesRm)) != 0)
        return &runMasked;
      return zeroesRegisters(i) && i.codeSize != x86::CodeSize::bits64 ? &zeroEightRegisters : &runNative;
    case x86::Op::compress:
    case x86::Op::expand:
      return i.memory && i.opmask != 0 ? &runPacked : &runNative;
    case x86::Op::stmxcsr:
    case x86::Op::fwait:
    case x86::Op::emms:
      return &runNative;
    case x86::Op::ldmxcsr:
      return &ldmxcsr;
    default:
      return maskedHandler(i);
  }
}

bool runsThunk(const Instruction& i) {
  Handler handler = vectorHandler(i);
  return handler == &runNative || handler == &runMasked || handler == &runPacked;
}

}  // namespace lodge::interpret
