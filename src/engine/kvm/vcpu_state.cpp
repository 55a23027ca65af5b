// SPDX-License-Identifier: Apache-2.0
// The guest's registers on their way between CpuState and KVM.
#include <fmt/format.h>

#include <algorithm>

#include "engine/kvm/abi.h"
#include "engine/kvm/registers.h"
#include "engine/kvm/vcpu.h"
#include "x86/cpu_model.h"
#include "x86/system.h"
#include "x86/tlb.h"

namespace lodge::kvm {

namespace {

// SDM vol. 4, table 2-2: what KVM keeps (Vm::interceptMsrs()) and no other structure holds.
struct MsrField {
  std::uint32_t number;
  std::uint64_t x86::CpuState::*field;
};
constexpr MsrField kMsrs[] = {
    {0x174, &x86::CpuState::sysenterCs},         {0x175, &x86::CpuState::sysenterEsp},
    {0x176, &x86::CpuState::sysenterEip},        {0x277, &x86::CpuState::pat},
    {0xc000'0081, &x86::CpuState::star},         {0xc000'0082, &x86::CpuState::lstar},
    {0xc000'0083, &x86::CpuState::cstar},        {0xc000'0084, &x86::CpuState::sfmask},
    {0xc000'0102, &x86::CpuState::kernelGsBase},
};
constexpr MsrField kTscAux{0xc000'0103, &x86::CpuState::tscAux}, kSpecCtrl{0x48, &x86::CpuState::spcCtrl};
constexpr std::uint32_t kSmbase = 0x9e;

std::vector<MsrField> keptMsrs(const x86::CpuModel& model) {
  std::vector<MsrField> all(std::begin(kMsrs), std::end(kMsrs));
  if (model.has(x86::Feature::rdtscp) || model.has(x86::Feature::rdpid)) all.push_back(kTscAux);
  if (model.specCtrlSupported != 0) all.push_back(kSpecCtrl);
  return all;
}

}  // namespace

bool KvmVcpu::load() {
  const x86::CpuState& state = cpu_.state;
  if (cpu_.model->has(x86::Feature::xsave)) {
    kvm_xcrs xcrs{};
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].value = state.xcr0;
    if (call(fd_.get(), KVM_SET_XCRS, &xcrs) != 0) return failCall("KVM_SET_XCRS");
  }
  bool nested = vm_.interfaces().nested;
  if (nested && !leaveNested()) return false;
  // What VMX keeps for the end of system management mode is taken in that only.
  if (virtualizes() && state.smm != 0 && !loadEvents()) return false;
  kvm_sregs2 sregs{};
  toKvm(state, sregs);
  sregs.cr8 = vm_.hasApics() ? taskPriority_ : cpu_.environment->apic().taskPriority();
  if (call(fd_.get(), KVM_SET_SREGS2, &sregs) != 0) return failCall("KVM_SET_SREGS2");
  // Behind the registers that allow it, before all others: they are those of the guest that runs.
  if (nested && !storeNested(interfaces_.nested)) return false;
  XsaveArea area{};
  toKvm(state, cpu_.model->xcr0Supported, area);
  if (call(fd_.get(), kSetXsave, &area) != 0) return failCall("KVM_SET_XSAVE");
  kvm_debugregs debug{};
  toKvm(state, debug);
  if (call(fd_.get(), KVM_SET_DEBUGREGS, &debug) != 0) return failCall("KVM_SET_DEBUGREGS");
  kvm_regs regs{};
  toKvm(state, regs);
  if (call(fd_.get(), KVM_SET_REGS, &regs) != 0) return failCall("KVM_SET_REGS");
  if (!loadMsrs() || !loadEvents() || (vm_.hasApics() && !loadActivity())) return false;
  interruptFlag_ = (state.rflags & x86::flag::if_) != 0;
  windowOpen_ = interruptFlag_ && state.interruptShadow == 0;
  windowKnown_ = !vm_.hasApics();
  registersInKvm_ = true;
  return true;
}

bool KvmVcpu::loadMsrs() {
  auto fields = keptMsrs(*cpu_.model);
  MsrList list(fields.size() + (vm_.hasSmm() ? 1 : 0));
  kvm_msr_entry* entry = list.entries();
  for (const MsrField& msr : fields) *entry++ = {msr.number, 0, cpu_.state.*msr.field};
  if (vm_.hasSmm()) *entry = {kSmbase, 0, cpu_.state.smbase};
  int done = call(fd_.get(), kSetMsrs, list.data());
  if (done != static_cast<int>(list.count())) {
    return fail(fmt::format("KVM does not take MSR {:#x}", std::uint32_t{list.entries()[std::max(done, 0)].index}));
  }
  // What a guest wrote on another engine may be no address here: it gets its EOIs' exits then.
  if (vm_.hasApics() && !writeMsrOfKvm(msr::paravirtEoi, cpu_.state.pvEoi)) writeMsrOfKvm(msr::paravirtEoi, 0);
  stealTimeRefused_ = !writeMsrOfKvm(msr::stealTime, cpu_.state.pvSteal);
  return setTscOffset();
}

bool KvmVcpu::loadEvents() {
  kvm_vcpu_events events{};
  toKvm(cpu_.state, events);
  if (!vm_.hasSmm()) events.flags &= ~std::uint32_t{KVM_VCPUEVENT_VALID_SMM};
  if (vm_.interfaces().nested) addNestedEvents(events);
  if (kvm_vcpu_events now{}; vm_.hasApics() && call(fd_.get(), KVM_GET_VCPU_EVENTS, &now) == 0) {
    // Sent by other CPUs since save().
    events.nmi.pending = std::max(events.nmi.pending, now.nmi.pending);
    events.smi.pending |= now.smi.pending;
    events.smi.latched_init |= now.smi.latched_init;
  }
  return call(fd_.get(), KVM_SET_VCPU_EVENTS, &events) == 0 || failCall("KVM_SET_VCPU_EVENTS");
}

/// Lets KVM finish the access that it has handed out, without running the guest.
bool KvmVcpu::completeAccess() {
  while (accessOpen_) {
    std::atomic_ref(run_->immediate_exit).store(1, std::memory_order_seq_cst);
    run_->request_interrupt_window = 0;
    if (!vm_.hasApics()) run_->cr8 = cpu_.environment->apic().taskPriority();
    accessOpen_ = false;
    int result = ::ioctl(fd_.get(), KVM_RUN, 0);
    interruptFlag_ = run_->if_flag != 0;
    windowOpen_ = run_->ready_for_interrupt_injection != 0;
    vm_.drainStores();  // before what came after them
    if (result != 0) return errno == EINTR || errno == EAGAIN || failCall("KVM_RUN");
    if (!handleExit()) return false;
  }
  return true;
}

bool KvmVcpu::save() {
  if (!registersInKvm_) return true;
  count(kSaves);
  if (!completeAccess() || (vm_.hasApics() && !saveActivity())) return false;
  x86::CpuState& state = cpu_.state;
  kvm_regs regs{};
  if (call(fd_.get(), KVM_GET_REGS, &regs) != 0) return failCall("KVM_GET_REGS");
  fromKvm(regs, state);
  kvm_sregs2 sregs{};
  if (call(fd_.get(), KVM_GET_SREGS2, &sregs) != 0) return failCall("KVM_GET_SREGS2");
  fromKvm(sregs, regs.rflags, state);
  if (vm_.hasApics()) {
    state.apicBase = sregs.apic_base;
    taskPriority_ = sregs.cr8;
  }
  XsaveArea area{};
  if (call(fd_.get(), kGetXsave, &area) != 0) return failCall("KVM_GET_XSAVE");
  fromKvm(area, cpu_.model->xcr0Supported, state);
  kvm_xcrs xcrs{};
  if (cpu_.model->has(x86::Feature::xsave) && call(fd_.get(), KVM_GET_XCRS, &xcrs) == 0 && xcrs.nr_xcrs > 0)
    state.xcr0 = xcrs.xcrs[0].value;
  kvm_debugregs debug{};
  if (call(fd_.get(), KVM_GET_DEBUGREGS, &debug) != 0) return failCall("KVM_GET_DEBUGREGS");
  fromKvm(debug, state);
  if (!saveMsrs()) return false;
  kvm_vcpu_events events{};
  if (call(fd_.get(), KVM_GET_VCPU_EVENTS, &events) != 0) return failCall("KVM_GET_VCPU_EVENTS");
  fromKvm(events, state);
  if (vm_.interfaces().nested && !saveNested(events)) return false;
  if (vm_.hasApics()) dropTakenEvents(events);
  registersInKvm_ = false;
  // The guest has changed its page tables since these were filled.
  x86::flushTlbEverything(cpu_);
  if (!virtualizes()) finishDelivery(events);
  return true;
}

bool KvmVcpu::saveMsrs() {
  auto fields = keptMsrs(*cpu_.model);
  MsrList list(fields.size() + (vm_.hasSmm() ? 1 : 0));
  kvm_msr_entry* entry = list.entries();
  for (const MsrField& msr : fields) *entry++ = {msr.number, 0, 0};
  if (vm_.hasSmm()) *entry = {kSmbase, 0, 0};
  if (call(fd_.get(), kGetMsrs, list.data()) != static_cast<int>(list.count())) return failCall("KVM_GET_MSRS");
  entry = list.entries();
  for (const MsrField& msr : fields) cpu_.state.*msr.field = (entry++)->data;
  if (vm_.hasSmm()) cpu_.state.smbase = static_cast<std::uint32_t>(entry->data);
  if (vm_.hasApics()) cpu_.state.pvEoi = readMsrOfKvm(msr::paravirtEoi);
  if (!stealTimeRefused_) saveStealTime();
  return true;
}

// KVM has noted in the guest's structure (Linux Documentation/virt/kvm/x86/msr.rst) that this CPU does not run now;
// another engine would not take that back.
void KvmVcpu::saveStealTime() {
  constexpr std::uint64_t kEnabled = 1, kPreempted = 16;
  cpu_.state.pvSteal = readMsrOfKvm(msr::stealTime);
  if ((cpu_.state.pvSteal & kEnabled) == 0) return;
  std::byte running{0};
  [[maybe_unused]] bool inRam =
      cpu_.memory->write(Gpa{(cpu_.state.pvSteal & ~kEnabled) + kPreempted}, std::span(&running, 1));
}

// An event whose delivery KVM had begun is delivered here: the local APIC has let go of it, and a CpuState has no place
// for it. A software interrupt needs nothing, for RIP is still at its instruction.
void KvmVcpu::finishDelivery(const kvm_vcpu_events& events) {
  if (events.exception.injected != 0 || events.exception.pending != 0) {
    bool software = events.exception.nr == 3 || events.exception.nr == 4;
    if (!software) {
      cpu_.exception = {};
      cpu_.exception.vector = events.exception.nr;
      cpu_.exception.hasErrorCode = events.exception.has_error_code != 0;
      cpu_.exception.errorCode = events.exception.error_code;
      applyPayload(events, cpu_.state);
      cpu_.exception.address = cpu_.state.cr2;
      cpu_.exception.debugStatus = cpu_.state.dr[6];
      cpu_.exception.valid = true;
      x86::deliverException(cpu_);
    }
  } else if (events.interrupt.injected != 0 && events.interrupt.soft == 0) {
    x86::deliverInterrupt(cpu_, events.interrupt.nr);
  } else if (events.nmi.injected != 0) {
    cpu_.state.nmiBlocked = 1;
    x86::deliverInterrupt(cpu_, static_cast<std::uint8_t>(x86::Vector::nmi));
  }
  if (events.nmi.pending != 0) cpu_.raise(x86::event::nmi);
  if ((events.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) != 0 && events.triple_fault.pending != 0)
    cpu_.state.activity = x86::Activity::shutdown;
  if ((events.flags & KVM_VCPUEVENT_VALID_SMM) == 0) return;
  if (events.smi.pending != 0) cpu_.raise(x86::event::smi);
  // Put off until the end of system management mode; saveActivity() has had KVM carry out any other.
  if (events.smi.latched_init != 0) cpu_.raise(x86::event::init);
}

}  // namespace lodge::kvm
