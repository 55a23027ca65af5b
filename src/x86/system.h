// SPDX-License-Identifier: Apache-2.0
// The system architecture: exceptions and interrupts, segments, control registers, MSRs, far transfers, CPUID.
// Engine-neutral; the interpreter calls these for each system instruction, the translator for the rare ones.
// Convention: `false` means that an exception was raised into cpu.exception and no architectural state changed (other
// than what the manual lets a faulting instruction change). RIP is the faulting instruction's; the caller advances it
// on success, except where said otherwise ("sets RIP").
#pragma once

#include <cstdint>

#include "x86/cpu.h"
#include "x86/instruction.h"

namespace lodge::x86 {

// --- raising (into cpu.exception; always returns false, for `return raiseGp(cpu, 0);`)
bool raise(Cpu& cpu, Vector vector);
bool raise(Cpu& cpu, Vector vector, std::uint32_t errorCode);
inline bool raiseGp(Cpu& cpu, std::uint32_t code) {
  return raise(cpu, Vector::gp, code);
}
inline bool raiseUd(Cpu& cpu) {
  return raise(cpu, Vector::ud);
}
bool raisePageFault(Cpu& cpu, std::uint64_t address, std::uint32_t code);
bool raiseDebug(Cpu& cpu, std::uint64_t dr6Bits);

/// Delivers cpu.exception through the IDT, in every mode; double-fault merging and, at the end of that road, a triple
/// fault: state.activity = shutdown. Sets RIP, CS, SS, RSP, flags; CR2, DR6.
void deliverException(Cpu& cpu);
/// Delivers an external interrupt or NMI.
void deliverInterrupt(Cpu& cpu, std::uint8_t vector);
enum class SoftwareInterrupt : std::uint8_t { intN, int3OrInto, int1 };
/// INT n, INT3, INTO, INT1 with the return address `nextRip`; sets RIP.
bool softwareInterrupt(Cpu& cpu, std::uint8_t vector, std::uint64_t nextRip, SoftwareInterrupt kind);

/// Looks at cpu.events when not inside an instruction: INIT, SIPI, NMI, interrupts (respecting IF, shadow, TPR),
/// halting. Returns whether the CPU may go on executing (false: activity is not running, or `stop` is set).
bool handleEvents(Cpu& cpu);
/// Whether instructions must go one at a time between beforeInstruction() and afterInstruction(): TF, RF, an interrupt
/// shadow, or enabled breakpoints.
inline bool instructionHooksNeeded(const Cpu& cpu) {
  return ((cpu.state.rflags & (flag::tf | flag::rf)) | cpu.state.interruptShadow | (cpu.state.dr[7] & 0xff) |
          cpu.state.pendingDebug) != 0;
}
/// Instruction breakpoints, unless RF; clears RF. False: #DB is in cpu.exception, to be delivered instead of the
/// instruction.
bool beforeInstruction(Cpu& cpu);
/// Ends the interrupt shadow, delivers the single-step trap and data breakpoints: to be called after each instruction
/// that completed (faults and partial REP strings are no completion) while instructionHooksNeeded() held before it;
/// with RFLAGS and the shadow as they were before it.
void afterInstruction(Cpu& cpu, std::uint64_t rflagsBefore, std::uint8_t shadowBefore);

/// Power-up state (SDM vol. 3, table 9-1); INIT keeps what INIT keeps. The BSP starts running, APs wait for SIPI.
void resetCpu(Cpu& cpu, bool isInit);

// --- segments. MOV SS and POP SS (not LSS) set state.interruptShadow = 2 themselves after loadSegment().
bool loadSegment(Cpu& cpu, Segment segment, std::uint16_t selector);  // MOV/POP/LxS to ES, SS, DS, FS, GS
/// User code is in another code segment now, by a far transfer that is done. #GP or #NP if the tables have no such.
bool changeUserCode(Cpu& cpu, std::uint16_t selector);
bool loadLdtr(Cpu& cpu, std::uint16_t selector);
bool loadTr(Cpu& cpu, std::uint16_t selector);
/// Far transfers set CS:RIP themselves (and SS:RSP, CPL, TR where the gate says so). `nextRip` is the return address.
bool farJump(Cpu& cpu, std::uint16_t selector, std::uint64_t offset, unsigned operandSize, std::uint64_t nextRip);
bool farCall(Cpu& cpu, std::uint16_t selector, std::uint64_t offset, unsigned operandSize, std::uint64_t nextRip);
bool farReturn(Cpu& cpu, unsigned operandSize, std::uint16_t popBytes);
bool interruptReturn(Cpu& cpu, unsigned operandSize, std::uint64_t nextRip);
/// LAR, LSL, VERR, VERW: result valid if `ok` (ZF).
bool loadAccessRights(Cpu& cpu, std::uint16_t selector, bool& ok, std::uint32_t& rights);
bool loadLimit(Cpu& cpu, std::uint16_t selector, bool& ok, std::uint32_t& limit);
bool verifySegment(Cpu& cpu, std::uint16_t selector, bool forWrite, bool& ok);
bool syscallInstruction(Cpu& cpu, std::uint64_t nextRip);  // sets RIP
bool sysretInstruction(Cpu& cpu, unsigned operandSize);    // sets RIP
bool sysenterInstruction(Cpu& cpu);                        // sets RIP
bool sysexitInstruction(Cpu& cpu, unsigned operandSize);   // sets RIP

// --- registers
bool readControl(Cpu& cpu, unsigned number, std::uint64_t& value);
bool writeControl(Cpu& cpu, unsigned number, std::uint64_t value);
bool readDebug(Cpu& cpu, unsigned number, std::uint64_t& value);
bool writeDebug(Cpu& cpu, unsigned number, std::uint64_t value);
bool readMsr(Cpu& cpu, std::uint32_t number, std::uint64_t& value);  // RDMSR's #GP(0) for unknown ones
bool writeMsr(Cpu& cpu, std::uint32_t number, std::uint64_t value);
bool writeXcr(Cpu& cpu, std::uint32_t number, std::uint64_t value);
/// WRPKRU's and XRSTOR's effect: the register, and the TLB entries that depend on it.
void setPkru(Cpu& cpu, std::uint32_t value);
/// INVLPG (the caller checked CPL).
void invalidatePage(Cpu& cpu, std::uint64_t linear);
/// CLAC and STAC (the caller checked CPL and CR4.SMAP).
void setAccessCheck(Cpu& cpu, bool value);
/// UMIP: whether SGDT, SIDT, SLDT, SMSW and STR may execute; else #GP(0).
bool checkUmip(Cpu& cpu);
/// POPF/IRET-style flag writes: which bits change depends on CPL, IOPL, mode. `operandSize` 2, 4, 8.
bool popFlags(Cpu& cpu, std::uint64_t value, unsigned operandSize);
/// What PUSHF stores; false: virtual-8086 mode forbids it.
bool pushFlags(Cpu& cpu, unsigned operandSize, std::uint64_t& image);
bool setInterruptFlag(Cpu& cpu, bool value);  // CLI, STI (with the shadow), VME/PVI
/// I/O permission: CPL <= IOPL or the TSS bitmap.
bool checkIoPermission(Cpu& cpu, std::uint16_t port, unsigned size);
bool invalidatePcid(Cpu& cpu, std::uint64_t type, std::uint64_t pcid, std::uint64_t linear);
void cpuid(Cpu& cpu, std::uint32_t leaf, std::uint32_t subleaf, std::uint32_t (&out)[4]);  // EAX, EBX, ECX, EDX
std::uint64_t readTsc(Cpu& cpu);
/// VMCALL/VMMCALL at CPL 0 with KVM's convention; result goes to RAX.
void hypercall(Cpu& cpu);
/// Paravirtual EOI: whether the guest's flag says that the last EOI was skipped (called before the APIC is
/// re-evaluated).
bool paravirtEoiPending(Cpu& cpu);

}  // namespace lodge::x86
