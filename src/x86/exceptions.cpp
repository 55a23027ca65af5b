// SPDX-License-Identifier: Apache-2.0
// Raising, merging and delivering exceptions and interrupts (SDM vol. 3, chapter 6).
#include "x86/debug_registers.h"
#include "x86/delivery.h"
#include "x86/system.h"

namespace lodge::x86 {

namespace {

void set(Cpu& cpu, Vector vector, bool hasErrorCode, std::uint32_t errorCode) {
  PendingException& exception = cpu.exception;
  exception.vector = static_cast<std::uint8_t>(vector);
  exception.hasErrorCode = hasErrorCode;
  exception.valid = true;
  exception.softwareInterrupt = false;
  exception.errorCode = errorCode;
  exception.address = 0;
  exception.debugStatus = 0;
}

}  // namespace

bool raise(Cpu& cpu, Vector vector) {
  // #DF and #AC always carry a 0.
  set(cpu, vector, vector == Vector::df || vector == Vector::ac, 0);
  return false;
}

bool raise(Cpu& cpu, Vector vector, std::uint32_t errorCode) {
  set(cpu, vector, true, errorCode);
  return false;
}

bool raisePageFault(Cpu& cpu, std::uint64_t address, std::uint32_t code) {
  set(cpu, Vector::pf, true, code);
  cpu.exception.address = address;
  return false;
}

bool raiseDebug(Cpu& cpu, std::uint64_t dr6Bits) {
  set(cpu, Vector::db, false, 0);
  cpu.exception.debugStatus = dr6Bits;
  return false;
}

namespace {

enum class Class : std::uint8_t { benign, contributory, pageFault, doubleFault };

// SDM vol. 3, table 6-4.
Class classOf(std::uint8_t vector) {
  switch (static_cast<Vector>(vector)) {
    case Vector::de:
    case Vector::ts:
    case Vector::np:
    case Vector::ss:
    case Vector::gp:
    case Vector::cp:
      return Class::contributory;
    case Vector::pf:
      return Class::pageFault;
    case Vector::df:
      return Class::doubleFault;
    default:
      return Class::benign;
  }
}

// Table 6-5: what `second`, raised while `first` was being delivered, leads to.
enum class Merge : std::uint8_t { serial, doubleFault, shutdown };

Merge merge(Class first, Class second) {
  if (second == Class::benign) return first == Class::doubleFault ? Merge::shutdown : Merge::serial;
  switch (first) {
    case Class::benign:
      return Merge::serial;
    case Class::contributory:
      return second == Class::pageFault ? Merge::serial : Merge::doubleFault;
    case Class::pageFault:
      return Merge::doubleFault;
    case Class::doubleFault:
      return Merge::shutdown;
  }
  return Merge::shutdown;
}

// Faults push RF = 1, so that an instruction breakpoint does not fire again at the return (17.3.1.1); #DB is either a
// trap or the very breakpoint, whose handler sets RF itself.
bool pushesResumeFlag(std::uint8_t vector) {
  auto v = static_cast<Vector>(vector);
  return v != Vector::db && v != Vector::bp && v != Vector::of && v != Vector::nmi && v != Vector::mc;
}

// The effects that come with the detection of an exception, delivered or not.
void applySideEffects(Cpu& cpu, const PendingException& exception) {
  CpuState& state = cpu.state;
  if (exception.vector == static_cast<std::uint8_t>(Vector::pf)) state.cr2 = exception.address;
  if (exception.vector == static_cast<std::uint8_t>(Vector::db)) {
    state.dr[6] = (state.dr[6] & ~dr6::hits) | exception.debugStatus | dr6::fixedOnes;
    state.dr[7] &= ~dr7::gd;
  }
}

}  // namespace

bool deliverEvent(Cpu& cpu, const Event& event) {
  if (!cpu.protectedMode()) return deliverReal(cpu, event);
  return cpu.longMode() ? deliverLong(cpu, event) : deliverProtected(cpu, event);
}

void enterHandler(Cpu& cpu, bool interruptGate) {
  CpuState& state = cpu.state;
  state.rflags &= ~(flag::tf | flag::nt | flag::rf | flag::vm);
  if (interruptGate) state.rflags &= ~flag::if_;
  state.interruptShadow = 0;
  state.activity = Activity::running;
  if (cpu.listener) cpu.listener->modeChanged();
}

void deliverException(Cpu& cpu) {
  PendingException current = cpu.exception;
  cpu.exception.valid = false;
  cpu.state.pendingDebug = 0;  // of accesses that the faulting instruction will make again
  // Ends: each round is of a higher class than the one before (benign, contributory, page fault, double fault), for no
  // benign exception arises from a delivery.
  for (;;) {
    applySideEffects(cpu, current);
    Event event{current.vector, false, current.hasErrorCode, current.errorCode, cpu.state.rip, cpu.state.rflags};
    if (pushesResumeFlag(current.vector)) event.flags |= flag::rf;
    if (deliverEvent(cpu, event)) return;
    PendingException second = cpu.exception;
    cpu.exception.valid = false;
    Merge result = merge(classOf(current.vector), classOf(second.vector));
    if (result == Merge::shutdown) {
      cpu.state.activity = Activity::shutdown;
      return;
    }
    if (result == Merge::serial) {
      current = second;
      continue;
    }
    applySideEffects(cpu, second);
    set(cpu, Vector::df, true, 0);
    current = cpu.exception;
    cpu.exception.valid = false;
  }
}

void deliverInterrupt(Cpu& cpu, std::uint8_t vector) {
  Event event{vector, false, false, 0, cpu.state.rip, cpu.state.rflags};
  if (!deliverEvent(cpu, event)) deliverException(cpu);
}

bool softwareInterrupt(Cpu& cpu, std::uint8_t vector, std::uint64_t nextRip, SoftwareInterrupt kind) {
  CpuState& state = cpu.state;
  Event event{vector, kind != SoftwareInterrupt::int1, false, 0, nextRip, state.rflags & ~flag::rf};
  if (cpu.virtual8086() && kind == SoftwareInterrupt::intN) {
    bool handled = false;
    if (!virtual8086Interrupt(cpu, vector, nextRip, handled)) return false;
    if (handled) return true;
  }
  return deliverEvent(cpu, event);
}

}  // namespace lodge::x86
