// SPDX-License-Identifier: Apache-2.0
#include "x86/events.h"

#include <linux/futex.h>
#include <sys/syscall.h>

#include "x86/paravirt.h"
#include "x86/smm.h"
#include "x86/system.h"
#include "x86/virtual_memory.h"

namespace lodge::x86 {

namespace {

// A system call keeps vector registers, but its libc wrapper need not.
long futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value) {
  long result;
  register long timeout asm("r10") = 0;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(SYS_futex), "D"(&word), "S"(operation), "d"(value), "r"(timeout)
               : "rcx", "r11", "memory");
  return result;
}

}  // namespace

void Cpu::raise(std::uint32_t bits) {
  std::uint32_t before = events.fetch_or(bits, std::memory_order_seq_cst);
  if (sleeping.load(std::memory_order_seq_cst) != 0) {
    futex(events, FUTEX_WAKE_PRIVATE, 1);
  } else if ((before & bits) != bits && kick) {
    kick(*this);
  }
}

void waitForEvents(Cpu& cpu) {
  cpu.sleeping.store(1, std::memory_order_seq_cst);
  while (cpu.events.load(std::memory_order_seq_cst) == 0) futex(cpu.events, FUTEX_WAIT_PRIVATE, 0);
  cpu.sleeping.store(0, std::memory_order_seq_cst);
}

namespace {

bool take(Cpu& cpu, std::uint32_t& pending, std::uint32_t bit) {
  if ((pending & bit) == 0) return false;
  pending &= ~bit;
  cpu.events.fetch_and(~bit, std::memory_order_seq_cst);
  return true;
}

// SDM vol. 3, 9.4: only a CPU that waits for one takes a SIPI.
void startAt(Cpu& cpu, std::uint8_t vector) {
  CpuState& state = cpu.state;
  if (state.activity != Activity::waitForSipi) return;
  state.segment[cs].selector = static_cast<std::uint16_t>(vector << 8);
  state.segment[cs].base = std::uint64_t{vector} << 12;
  state.rip = 0;
  state.activity = Activity::running;
  rearmDeferredEvents(cpu);
  if (cpu.listener) cpu.listener->modeChanged();
}

// A CPU that waits to be started, or is shut down, is left alone until it runs.
void takeSmi(Cpu& cpu) {
  const CpuState& state = cpu.state;
  bool runs = state.activity == Activity::running || state.activity == Activity::halted;
  if (!runs || state.smm != 0 || state.interruptShadow != 0) {
    cpu.deferredEvents |= event::smi;
    return;
  }
  enterSmm(cpu);
}

void takeNmi(Cpu& cpu) {
  if (cpu.state.nmiBlocked != 0 || cpu.state.interruptShadow != 0) {
    cpu.deferredEvents |= event::nmi;
    return;
  }
  cpu.state.nmiBlocked = 1;
  cpu.state.activity = Activity::running;
  deliverInterrupt(cpu, static_cast<std::uint8_t>(Vector::nmi));
}

void takeInterrupt(Cpu& cpu) {
  if ((cpu.state.rflags & flag::if_) == 0 || cpu.state.interruptShadow != 0) {
    cpu.deferredEvents |= event::interrupt;
    return;
  }
  cpu.parkFpu();
  LocalApic& apic = cpu.environment->apic();
  int vector = apic.acknowledge();
  if (vector < 0) return;
  armParavirtEoi(cpu);
  // A lower one may wait; the handler's IRET looks again.
  if (apic.pending()) cpu.deferredEvents |= event::interrupt;
  cpu.state.activity = Activity::running;
  deliverInterrupt(cpu, static_cast<std::uint8_t>(vector));
}

// Events that change what the CPU is; they count in every activity.
void takeControlEvents(Cpu& cpu, std::uint32_t& pending) {
  if (take(cpu, pending, event::init)) {
    if (cpu.state.smm != 0) {
      cpu.deferredEvents |= event::init;  // until RSM (SDM vol. 3, 32.3)
    } else {
      resetCpu(cpu, true);
    }
  }
  if (take(cpu, pending, event::sipi)) {
    // The INIT before it may wait for the RSM of a CPU whose thread the host has held up.
    if (cpu.state.smm != 0) {
      cpu.deferredEvents |= event::sipi;
    } else {
      startAt(cpu, cpu.sipiVector.load());
    }
  }
  if (take(cpu, pending, event::flushTlb)) flushTlbEverything(cpu);
  if (take(cpu, pending, event::smi)) takeSmi(cpu);
  if (take(cpu, pending, event::unhalt)) cpu.deferredEvents |= event::unhalt;
  if (cpu.state.activity == Activity::halted && (cpu.deferredEvents & event::unhalt) != 0) {
    cpu.deferredEvents &= ~event::unhalt;
    cpu.state.activity = Activity::running;
  }
}

}  // namespace

bool handleEvents(Cpu& cpu) {
  CpuState& state = cpu.state;
  std::uint32_t pending = cpu.events.load(std::memory_order_seq_cst);
  takeControlEvents(cpu, pending);
  bool nmi = take(cpu, pending, event::nmi);
  bool interrupt = take(cpu, pending, event::interrupt);
  if (state.activity == Activity::waitForSipi || state.activity == Activity::shutdown) {
    // Held until there is a CPU to take them.
    cpu.deferredEvents |= (nmi ? event::nmi : 0u) | (interrupt ? event::interrupt : 0u);
    return false;
  }
  if (interrupt) syncParavirtEoi(cpu);
  if (nmi) takeNmi(cpu);
  if (interrupt) takeInterrupt(cpu);
  return state.activity == Activity::running && (pending & event::stop) == 0;
}

}  // namespace lodge::x86
