// SPDX-License-Identifier: Apache-2.0
// Control registers, MSRs, flags, time, CPUID and the rest of the system instructions: privilege and operands here, the
// architecture in x86/system.h.
#include "engine/interpret/handlers.h"
#include "engine/interpret/operands.h"
#include "engine/interpret/vector_state.h"
#include "x86/smm.h"

namespace lodge::interpret {
namespace {

using x86::Op;
namespace cr4 = x86::cr4;

Outcome gp(Cpu& cpu) {
  return outcomeOf(x86::raiseGp(cpu, 0));
}
Outcome ud(Cpu& cpu) {
  return outcomeOf(x86::raiseUd(cpu));
}
bool enabled(const Cpu& cpu, std::uint64_t cr4Bit) {
  return (cpu.state.cr4 & cr4Bit) != 0;
}
std::uint32_t ecx(const Cpu& cpu) {
  return static_cast<std::uint32_t>(cpu.state.gpr[x86::rcx]);
}
std::uint64_t edxEax(const Cpu& cpu) {
  return cpu.state.gpr[x86::rdx] << 32 | static_cast<std::uint32_t>(cpu.state.gpr[x86::rax]);
}
void setEdxEax(Cpu& cpu, std::uint64_t value) {
  cpu.state.gpr[x86::rax] = static_cast<std::uint32_t>(value);
  cpu.state.gpr[x86::rdx] = value >> 32;
}

// --- flags

Outcome pushf(Cpu& cpu, const Decoded& d) {
  std::uint64_t image;
  return outcomeOf(x86::pushFlags(cpu, d.insn.operandSize, image) &&
                   pushSized(cpu, d.code64, d.insn.operandSize, image));
}
Outcome popf(Cpu& cpu, const Decoded& d) {
  std::uint64_t value;
  if (!peekSized(cpu, d.code64, d.insn.operandSize, value)) return Outcome::fault;
  if (!x86::popFlags(cpu, value, d.insn.operandSize)) return Outcome::fault;
  dropStack(cpu, d.code64, d.insn.operandSize);
  return Outcome::next;
}
template <bool value>
Outcome interruptFlag(Cpu& cpu, const Decoded&) {
  return outcomeOf(x86::setInterruptFlag(cpu, value));
}
template <bool value>
Outcome accessCheck(Cpu& cpu, const Decoded&) {
  if (!isSupervisor(cpu) || !enabled(cpu, cr4::smap)) return ud(cpu);
  x86::setAccessCheck(cpu, value);
  return Outcome::next;
}

// --- control and debug registers

Outcome moveFromControl(Cpu& cpu, const Decoded& d) {
  if (!isSupervisor(cpu)) return gp(cpu);
  std::uint64_t value;
  if (!x86::readControl(cpu, d.insn.reg, value)) return Outcome::fault;
  writeRegSized(cpu, d.rm, d.insn.operandSize, value);
  return Outcome::next;
}
Outcome moveToControl(Cpu& cpu, const Decoded& d) {
  if (!isSupervisor(cpu)) return gp(cpu);
  return outcomeOf(x86::writeControl(cpu, d.insn.reg, readRegSized(cpu, d.rm, d.insn.operandSize)));
}
Outcome moveFromDebug(Cpu& cpu, const Decoded& d) {
  if (!isSupervisor(cpu)) return gp(cpu);
  std::uint64_t value;
  if (!x86::readDebug(cpu, d.insn.reg, value)) return Outcome::fault;
  writeRegSized(cpu, d.rm, d.insn.operandSize, value);
  return Outcome::next;
}
Outcome moveToDebug(Cpu& cpu, const Decoded& d) {
  if (!isSupervisor(cpu)) return gp(cpu);
  return outcomeOf(x86::writeDebug(cpu, d.insn.reg, readRegSized(cpu, d.rm, d.insn.operandSize)));
}
Outcome smsw(Cpu& cpu, const Decoded& d) {
  if (!x86::checkUmip(cpu)) return Outcome::fault;
  return outcomeOf(writeRmSized(cpu, d, d.insn.memory ? 2 : d.insn.operandSize, cpu.state.cr0));
}
/// Writes PE, MP, EM, TS; PE can only be set.
Outcome lmsw(Cpu& cpu, const Decoded& d) {
  if (!isSupervisor(cpu)) return gp(cpu);
  std::uint16_t value;
  if (!readRm<std::uint16_t>(cpu, d, value)) return Outcome::fault;
  return outcomeOf(x86::writeControl(cpu, 0, (cpu.state.cr0 & ~std::uint64_t{0xe}) | (value & 0xf)));
}
Outcome clts(Cpu& cpu, const Decoded&) {
  if (!isSupervisor(cpu)) return gp(cpu);
  return outcomeOf(x86::writeControl(cpu, 0, cpu.state.cr0 & ~x86::cr0::ts));
}
Outcome invlpg(Cpu& cpu, const Decoded& d) {
  if (!isSupervisor(cpu)) return gp(cpu);
  std::uint64_t offset = effectiveAddress(cpu, d);
  const x86::SegmentRegister& s = cpu.state.segment[d.segment];
  std::uint64_t linear =
      d.code64 ? offset + (d.segment >= x86::fs ? s.base : 0) : static_cast<std::uint32_t>(s.base + offset);
  if (!d.code64 || x86::isCanonical(cpu, linear)) x86::invalidatePage(cpu, linear);
  return Outcome::next;
}
Outcome invpcid(Cpu& cpu, const Decoded& d) {
  if (!isSupervisor(cpu)) return gp(cpu);
  std::uint64_t descriptor[2], linear;
  if (!x86::linearAddressFast(cpu, static_cast<Segment>(d.segment), effectiveAddress(cpu, d), 16, Access::read,
                              linear) ||
      !x86::readLinearBytes(cpu, linear, descriptor, 16)) {
    return Outcome::fault;
  }
  return outcomeOf(
      x86::invalidatePcid(cpu, readRegSized(cpu, d.reg, d.insn.operandSize), descriptor[0], descriptor[1]));
}

// --- MSRs, time, identification

Outcome rdmsr(Cpu& cpu, const Decoded&) {
  if (!isSupervisor(cpu)) return gp(cpu);
  std::uint64_t value;
  if (!x86::readMsr(cpu, ecx(cpu), value)) return Outcome::fault;
  setEdxEax(cpu, value);
  return Outcome::next;
}
Outcome wrmsr(Cpu& cpu, const Decoded&) {
  if (!isSupervisor(cpu)) return gp(cpu);
  return outcomeOf(x86::writeMsr(cpu, ecx(cpu), edxEax(cpu)));
}
Outcome rdtsc(Cpu& cpu, const Decoded& d) {
  if (enabled(cpu, cr4::tsd) && !isSupervisor(cpu)) return gp(cpu);
  setEdxEax(cpu, x86::readTsc(cpu));
  if (d.insn.info->op == Op::rdtscp) cpu.state.gpr[x86::rcx] = static_cast<std::uint32_t>(cpu.state.tscAux);
  return Outcome::next;
}
Outcome rdpid(Cpu& cpu, const Decoded& d) {
  writeRegSized(cpu, d.rm, d.insn.operandSize, static_cast<std::uint32_t>(cpu.state.tscAux));
  return Outcome::next;
}
/// No performance counters are offered.
Outcome rdpmc(Cpu& cpu, const Decoded&) {
  return gp(cpu);
}
Outcome cpuid(Cpu& cpu, const Decoded&) {
  CpuState& s = cpu.state;
  std::uint32_t out[4];
  x86::cpuid(cpu, static_cast<std::uint32_t>(s.gpr[x86::rax]), ecx(cpu), out);
  s.gpr[x86::rax] = out[0];
  s.gpr[x86::rbx] = out[1];
  s.gpr[x86::rcx] = out[2];
  s.gpr[x86::rdx] = out[3];
  return Outcome::next;
}

// --- bases

template <bool gs>
Outcome readBase(Cpu& cpu, const Decoded& d) {
  if (!enabled(cpu, cr4::fsgsbase)) return ud(cpu);
  writeRegSized(cpu, d.rm, d.insn.operandSize, cpu.state.segment[gs ? x86::gs : x86::fs].base);
  return Outcome::next;
}
template <bool gs>
Outcome writeBase(Cpu& cpu, const Decoded& d) {
  if (!enabled(cpu, cr4::fsgsbase)) return ud(cpu);
  std::uint64_t value = readRegSized(cpu, d.rm, d.insn.operandSize);
  if (!x86::isCanonical(cpu, value)) return gp(cpu);
  cpu.state.segment[gs ? x86::gs : x86::fs].base = value;
  return Outcome::next;
}
Outcome swapgs(Cpu& cpu, const Decoded&) {
  if (!isSupervisor(cpu)) return gp(cpu);
  std::uint64_t base = cpu.state.segment[x86::gs].base;
  cpu.state.segment[x86::gs].base = cpu.state.kernelGsBase;
  cpu.state.kernelGsBase = base;
  return Outcome::next;
}

// --- extended control registers, protection keys

Outcome xgetbv(Cpu& cpu, const Decoded&) {
  if (!enabled(cpu, cr4::osxsave)) return ud(cpu);
  if (ecx(cpu) == 0) {
    setEdxEax(cpu, cpu.state.xcr0);
  } else if (ecx(cpu) == 1 && hasFeature(cpu, x86::Feature::xsavec)) {
    setEdxEax(cpu, componentsInUse(cpu) & cpu.state.xcr0);
  } else {
    return gp(cpu);
  }
  return Outcome::next;
}
Outcome xsetbv(Cpu& cpu, const Decoded&) {
  if (!enabled(cpu, cr4::osxsave)) return ud(cpu);
  if (!isSupervisor(cpu)) return gp(cpu);
  return outcomeOf(x86::writeXcr(cpu, ecx(cpu), edxEax(cpu)));
}
Outcome rdpkru(Cpu& cpu, const Decoded&) {
  if (!enabled(cpu, cr4::pke)) return ud(cpu);
  if (ecx(cpu) != 0) return gp(cpu);
  setEdxEax(cpu, static_cast<std::uint32_t>(cpu.state.pkru));
  return Outcome::next;
}
Outcome wrpkru(Cpu& cpu, const Decoded&) {
  if (!enabled(cpu, cr4::pke)) return ud(cpu);
  if (ecx(cpu) != 0 || static_cast<std::uint32_t>(cpu.state.gpr[x86::rdx]) != 0) return gp(cpu);
  x86::setPkru(cpu, static_cast<std::uint32_t>(cpu.state.gpr[x86::rax]));
  return Outcome::next;
}

// --- execution

Outcome hlt(Cpu& cpu, const Decoded&) {
  if (!isSupervisor(cpu)) return gp(cpu);
  cpu.state.activity = x86::Activity::halted;
  return Outcome::next;
}
Outcome supervisorNop(Cpu& cpu, const Decoded&) {
  return isSupervisor(cpu) ? Outcome::next : gp(cpu);
}
Outcome monitor(Cpu& cpu, const Decoded& d) {
  if (!isSupervisor(cpu)) return ud(cpu);
  if (ecx(cpu) != 0) return gp(cpu);
  std::uint8_t touched;
  return outcomeOf(readAt<std::uint8_t>(cpu, d.code64, d.segment, cpu.state.gpr[x86::rax] & d.addressMask, touched));
}
/// May wake at any time: at once.
Outcome mwait(Cpu& cpu, const Decoded&) {
  return isSupervisor(cpu) ? Outcome::next : ud(cpu);
}
Outcome hypercall(Cpu& cpu, const Decoded&) {
  x86::hypercall(cpu);
  return Outcome::next;
}
Outcome syscall(Cpu& cpu, const Decoded& d) {
  return jumpOutcome(x86::syscallInstruction(cpu, nextRip(cpu, d)));
}
Outcome sysret(Cpu& cpu, const Decoded& d) {
  return jumpOutcome(x86::sysretInstruction(cpu, d.insn.operandSize));
}
Outcome sysenter(Cpu& cpu, const Decoded&) {
  return jumpOutcome(x86::sysenterInstruction(cpu));
}
Outcome sysexit(Cpu& cpu, const Decoded& d) {
  return jumpOutcome(x86::sysexitInstruction(cpu, d.insn.operandSize));
}

Outcome rsm(Cpu& cpu, const Decoded&) {
  return jumpOutcome(x86::resumeFromSmm(cpu));
}

/// Fences order the host's accesses, which are the guest's.
Outcome fence(Cpu&, const Decoded&) {
  asm volatile("mfence" ::: "memory");
  return Outcome::next;
}
/// CLFLUSH and its kin act like a byte load for faults (SDM vol. 2); guest RAM is coherent.
Outcome clflush(Cpu& cpu, const Decoded& d) {
  std::uint8_t touched;
  return outcomeOf(readMemory<std::uint8_t>(cpu, d, touched));
}

Handler registerHandler(Op op) {
  switch (op) {
    case Op::mov_from_cr:
      return &moveFromControl;
    case Op::mov_to_cr:
      return &moveToControl;
    case Op::mov_from_dr:
      return &moveFromDebug;
    case Op::mov_to_dr:
      return &moveToDebug;
    case Op::smsw:
      return &smsw;
    case Op::lmsw:
      return &lmsw;
    case Op::clts:
      return &clts;
    case Op::invlpg:
      return &invlpg;
    case Op::invpcid:
      return &invpcid;
    case Op::rdmsr:
      return &rdmsr;
    case Op::wrmsr:
      return &wrmsr;
    case Op::rdfsbase:
      return &readBase<false>;
    case Op::rdgsbase:
      return &readBase<true>;
    case Op::wrfsbase:
      return &writeBase<false>;
    case Op::wrgsbase:
      return &writeBase<true>;
    case Op::swapgs:
      return &swapgs;
    case Op::xgetbv:
      return &xgetbv;
    case Op::xsetbv:
      return &xsetbv;
    case Op::rdpkru:
      return &rdpkru;
    case Op::wrpkru:
      return &wrpkru;
    default:
      return nullptr;
  }
}

}  // namespace

Handler systemHandler(const Instruction& i) {
  switch (i.info->op) {
    case Op::pushf:
      return &pushf;
    case Op::popf:
      return &popf;
    case Op::cli:
      return &interruptFlag<false>;
    case Op::sti:
      return &interruptFlag<true>;
    case Op::clac:
      return &accessCheck<false>;
    case Op::stac:
      return &accessCheck<true>;
    case Op::rdtsc:
    case Op::rdtscp:
      return &rdtsc;
    case Op::rdpid:
      return &rdpid;
    case Op::rdpmc:
      return &rdpmc;
    case Op::cpuid:
      return &cpuid;
    case Op::hlt:
      return &hlt;
    case Op::invd:
    case Op::wbinvd:
      return &supervisorNop;
    case Op::monitor:
      return &monitor;
    case Op::mwait:
      return &mwait;
    case Op::vmcall:
    case Op::vmmcall:
      return &hypercall;
    case Op::syscall:
      return &syscall;
    case Op::sysret:
      return &sysret;
    case Op::sysenter:
      return &sysenter;
    case Op::sysexit:
      return &sysexit;
    case Op::lfence:
    case Op::mfence:
    case Op::sfence:
      return &fence;
    case Op::clflush:
      return &clflush;
    case Op::rsm:
      return &rsm;
    case Op::ud:
      return &undefined;
    default:
      return registerHandler(i.info->op);
  }
}

}  // namespace lodge::interpret
