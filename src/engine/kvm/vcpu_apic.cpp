// SPDX-License-Identifier: Apache-2.0
// A vCPU whose local APIC is KVM's: HLT, IPIs, INIT and SIPI, its timer and EOIs are KVM's work. The 8259A's interrupts
// come from the board, unless that is KVM's, too.
#include <utility>

#include "engine/kvm/abi.h"
#include "engine/kvm/vcpu.h"
#include "x86/events.h"
#include "x86/system.h"

namespace lodge::kvm {

namespace {

namespace event = x86::event;
using x86::Activity;

constexpr unsigned kTaskPriority = 0x08, kSpurious = 0x0f;  // LocalApicRegisters::words
// SDM vol. 3, 11.8.5: EOIs are not told to I/O APICs.
constexpr std::uint32_t kSuppressBroadcasts = 1 << 12;

}  // namespace

/// What other threads ask of the vCPU, but for `stop`.
void KvmVcpu::attendWithApic() {
  std::uint32_t pending = cpu_.events.load(std::memory_order_seq_cst);
  auto take = [&](std::uint32_t bit) {
    if ((pending & bit) == 0) return false;
    cpu_.events.fetch_and(~bit, std::memory_order_seq_cst);
    return true;
  };
  if (cpu_.state.activity == Activity::shutdown) return;
  take(event::sipi);  // who gave the APIC to KVM has taken it
  if (take(event::unhalt) && cpu_.state.activity == Activity::halted) cpu_.state.activity = Activity::running;
  bool nmi = take(event::nmi), smi = take(event::smi), init = take(event::init);
  if ((nmi || smi || init) && !registersInKvm_ && !load()) return;
  if (nmi && call(fd_.get(), KVM_NMI) != 0) failCall("KVM_NMI");
  if (smi && vm_.hasSmm() && call(fd_.get(), KVM_SMI) != 0) failCall("KVM_SMI");
  if (init) latchInit();
  if (take(event::interrupt)) interruptWanted_ = true;
}

/// An INIT that another engine had put off until the end of system management mode.
void KvmVcpu::latchInit() {
  kvm_vcpu_events events{};
  if (call(fd_.get(), KVM_GET_VCPU_EVENTS, &events) != 0) return;
  events.smi.latched_init = 1;
  events.flags = KVM_VCPUEVENT_VALID_SMM;
  if (call(fd_.get(), KVM_SET_VCPU_EVENTS, &events) != 0) failCall("KVM_SET_VCPU_EVENTS");
}

/// Before KVM_RUN: the 8259A's interrupt, if the guest takes it now; else a window for it is asked for.
void KvmVcpu::prepareExtInt() {
  run_->request_interrupt_window = 0;
  run_->kvm_valid_regs = 0;
  if ((cpu_.deferredEvents & event::nmi) != 0) {
    cpu_.deferredEvents &= ~event::nmi;
    call(fd_.get(), KVM_NMI);
  }
  interruptWanted_ = false;
  if (vm_.hasChips()) return;  // the 8259A is KVM's
  x86::LocalApic& board = cpu_.environment->apic();
  if (!board.pending()) return;
  // The exit that opens the window brings along what injectExtInt() needs.
  if (syncsEvents_) run_->kvm_valid_regs = KVM_SYNC_X86_EVENTS;
  if (!windowKnown_) {
    // KVM_RUN comes back at once and has said whether the window is open. A guest in HLT would sleep otherwise.
    std::atomic_ref(run_->immediate_exit).store(1, std::memory_order_seq_cst);
    return;
  }
  if (windowOpen_) {
    int vector = board.acknowledge();
    if (vector >= 0) injectExtInt(vector);
  }
  run_->request_interrupt_window = board.pending();
}

/// As if the processor had taken the vector just now: save() finds it where it finds other deliveries that have begun,
/// which it would not with KVM_INTERRUPT.
void KvmVcpu::injectExtInt(int vector) {
  kvm_mp_state activity{};
  if (call(fd_.get(), KVM_GET_MP_STATE, &activity) == 0 && activity.mp_state == KVM_MP_STATE_HALTED) {
    activity.mp_state = KVM_MP_STATE_RUNNABLE;
    if (call(fd_.get(), KVM_SET_MP_STATE, &activity) != 0) failCall("KVM_SET_MP_STATE");
  }
  kvm_vcpu_events own{};
  kvm_vcpu_events& events = eventsInRun_ ? run_->s.regs.events : own;
  if (!eventsInRun_ && call(fd_.get(), KVM_GET_VCPU_EVENTS, &events) != 0) {
    failCall("KVM_GET_VCPU_EVENTS");
    return;
  }
  events.interrupt.injected = 1;
  events.interrupt.nr = static_cast<std::uint8_t>(vector);
  events.interrupt.soft = 0;
  events.flags = 0;
  if (eventsInRun_)
    run_->kvm_dirty_regs = KVM_SYNC_X86_EVENTS;  // KVM_RUN, which follows, takes them first of all
  else if (call(fd_.get(), KVM_SET_VCPU_EVENTS, &events) != 0)
    failCall("KVM_SET_VCPU_EVENTS");
  eventsInRun_ = false;
  windowOpen_ = false;
  count(kInterrupts);
}

bool KvmVcpu::loadActivity() {
  kvm_mp_state activity{};
  switch (cpu_.state.activity) {
    case Activity::halted:
      activity.mp_state = KVM_MP_STATE_HALTED;
      break;
    case Activity::waitForSipi:
      activity.mp_state = KVM_MP_STATE_INIT_RECEIVED;
      break;
    default:
      activity.mp_state = KVM_MP_STATE_RUNNABLE;
      break;
  }
  if (call(fd_.get(), KVM_SET_MP_STATE, &activity) != 0) return failCall("KVM_SET_MP_STATE");
  cpu_.state.activity = Activity::running;  // as far as its thread is concerned
  return true;
}

/// First of all that is saved: KVM carries an INIT or SIPI out now that the vCPU has not seen yet.
bool KvmVcpu::saveActivity() {
  kvm_mp_state activity{};
  if (call(fd_.get(), KVM_GET_MP_STATE, &activity) != 0) return failCall("KVM_GET_MP_STATE");
  switch (activity.mp_state) {
    case KVM_MP_STATE_HALTED:
      cpu_.state.activity = Activity::halted;
      break;
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED:
      cpu_.state.activity = Activity::waitForSipi;
      break;
    default:
      cpu_.state.activity = Activity::running;
      break;
  }
  return true;
}

/// Those are CpuState's from now on; what other CPUs send meanwhile is not to be lost with them.
void KvmVcpu::dropTakenEvents(const kvm_vcpu_events& taken) {
  if (taken.nmi.pending == 0 && taken.smi.pending == 0 && taken.smi.latched_init == 0) return;
  kvm_vcpu_events rest = taken;
  rest.nmi.pending = 0;
  rest.smi.pending = 0;
  rest.smi.latched_init = 0;
  rest.flags &= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;
  if (call(fd_.get(), KVM_SET_VCPU_EVENTS, &rest) != 0) failCall("KVM_SET_VCPU_EVENTS");
}

/// What other CPUs have sent since save() is not for the processor after its reset.
void KvmVcpu::forgetEvents() {
  kvm_mp_state activity{};  // asked for, since KVM carries INITs and SIPIs out for that
  if (call(fd_.get(), KVM_GET_MP_STATE, &activity) != 0) failCall("KVM_GET_MP_STATE");
  kvm_vcpu_events none{};
  none.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
  if (vm_.hasSmm()) none.flags |= KVM_VCPUEVENT_VALID_SMM;
  if (call(fd_.get(), KVM_SET_VCPU_EVENTS, &none) != 0) failCall("KVM_SET_VCPU_EVENTS");
}

std::uint64_t KvmVcpu::readMsrOfKvm(std::uint32_t number) {
  MsrList list(1);
  list.entries()[0] = {number, 0, 0};
  return call(fd_.get(), kGetMsrs, list.data()) == 1 ? list.entries()[0].data : 0;
}

bool KvmVcpu::writeMsrOfKvm(std::uint32_t number, std::uint64_t value) {
  MsrList list(1);
  list.entries()[0] = {number, 0, value};
  return call(fd_.get(), kSetMsrs, list.data()) == 1;
}

Status KvmVcpu::readApic(x86::LocalApicRegisters& registers) {
  kvm_lapic_state page{};
  if (call(fd_.get(), KVM_GET_LAPIC, &page) != 0) return Error::fromErrno(errno, "KVM_GET_LAPIC");
  for (std::size_t n = 0; n < std::size(registers.words); ++n)
    std::memcpy(&registers.words[n], page.regs + 16 * n, sizeof registers.words[n]);
  registers.base = readMsrOfKvm(msr::apicBase);
  registers.tscDeadline = readMsrOfKvm(msr::tscDeadline);
  return {};
}

Status KvmVcpu::writeApic(const x86::LocalApicRegisters& registers) {
  // The mode comes first: it says what the registers' bits are. A deadline is one of the guest's TSC.
  if (!writeMsrOfKvm(msr::apicBase, registers.base)) return Error(ErrorKind::io, "KVM does not take the APIC's base");
  kvm_lapic_state page{};
  for (std::size_t n = 0; n < std::size(registers.words); ++n) {
    std::uint32_t word = registers.words[n];
    // KVM's I/O APIC has no EOI register: its level-triggered pins would ask once, and then never.
    if (n == kSpurious && vm_.hasChips()) word &= ~kSuppressBroadcasts;
    std::memcpy(page.regs + 16 * n, &word, sizeof word);
  }
  if (call(fd_.get(), KVM_SET_LAPIC, &page) != 0) return Error::fromErrno(errno, "KVM_SET_LAPIC");
  if (!setTscOffset()) return Error(ErrorKind::io, "KVM does not take the TSC's offset");
  if (registers.tscDeadline != 0 && !writeMsrOfKvm(msr::tscDeadline, registers.tscDeadline))
    return Error(ErrorKind::io, "KVM does not take the TSC deadline");
  cpu_.state.apicBase = registers.base;
  taskPriority_ = registers.words[kTaskPriority] >> 4 & 15;
  return {};
}

}  // namespace lodge::kvm
