// SPDX-License-Identifier: Apache-2.0
// What KVM alone knows of a CPU whose guest is a host itself or uses Hyper-V's interface: Linux
// Documentation/virt/kvm/api.rst (KVM_GET_NESTED_STATE, KVM_GET_VCPU_EVENTS); Hypervisor Top-Level Functional
// Specification, 10 to 12.
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/log.h"
#include "engine/kvm/abi.h"
#include "engine/kvm/vcpu.h"
#include "x86/cpu_model.h"
#include "x86/system.h"

namespace lodge::kvm {

namespace {

// Model-specific registers of the processor's virtualization: VMX's capabilities (SDM vol. 3, appendix A), which KVM
// takes if it has them; VM_CR, VM_HSAVE_PA and TSC_RATIO (APM vol. 2, 15.30).
constexpr std::uint32_t kVmxFirst = 0x480, kVmxLast = 0x491;
constexpr std::uint32_t kSvmRegisters[] = {0xc001'0114, 0xc001'0117, 0xc000'0104};
constexpr std::uint8_t kInvalidOpcode = 6;

namespace hv {
constexpr std::uint32_t guestId = 0x4000'0000, hypercall = 0x4000'0001, vpIndex = 0x4000'0002, runtime = 0x4000'0010;
constexpr std::uint32_t referenceCounter = 0x4000'0020, referenceTsc = 0x4000'0021, assistPage = 0x4000'0073;
constexpr std::uint32_t control = 0x4000'0080, eventPage = 0x4000'0082, messagePage = 0x4000'0083;
constexpr std::uint32_t source = 0x4000'0090, timer = 0x4000'00b0, crash = 0x4000'0100;
constexpr unsigned sources = 16, timers = 4, crashRegisters = 6;
constexpr std::uint64_t masked = 1 << 16;  ///< a source at power-up
constexpr std::uint64_t ticksInNs = 100;   ///< of the reference counter
constexpr std::uint64_t invalidHypercallCode = 2;
}  // namespace hv

/// In the order in which they can be set: the identity before the hypercall page, the counter before the page that says
/// where it stands, a timer's count before what may start it.
std::vector<std::uint32_t> hypervRegisters(bool firstCpu) {
  std::vector<std::uint32_t> all;
  if (firstCpu) {
    all = {hv::guestId, hv::hypercall, hv::referenceCounter, hv::referenceTsc};
    for (unsigned n = 0; n < hv::crashRegisters; ++n) all.push_back(hv::crash + n);
  }
  for (std::uint32_t number : {hv::vpIndex, hv::runtime, hv::assistPage, hv::control, hv::eventPage, hv::messagePage})
    all.push_back(number);
  for (unsigned n = 0; n < hv::sources; ++n) all.push_back(hv::source + n);
  for (unsigned n = 0; n < hv::timers; ++n) {
    all.push_back(hv::timer + 2 * n + 1);
    all.push_back(hv::timer + 2 * n);
  }
  return all;
}

std::vector<std::uint32_t> nestedRegisters(bool amd) {
  if (amd) return {std::begin(kSvmRegisters), std::end(kSvmRegisters)};
  std::vector<std::uint32_t> all;
  for (std::uint32_t number = kVmxFirst; number <= kVmxLast; ++number) all.push_back(number);
  all.push_back(msr::featureControl);
  return all;
}

/// Those that this KVM has.
std::vector<MsrValue> readAll(int vcpu, const std::vector<std::uint32_t>& numbers) {
  std::vector<MsrValue> values;
  for (std::uint32_t number : numbers) {
    MsrList list(1);
    list.entries()[0] = {number, 0, 0};
    if (call(vcpu, kGetMsrs, list.data()) == 1) values.push_back({number, list.entries()[0].data});
  }
  return values;
}

/// A CPU without a nested guest, as after a reset.
NestedState noNested(bool amd) {
  NestedState none;
  none.format = amd ? NestedState::kSvm : NestedState::kVmx;
  none.flags = amd ? NestedState::kInterruptsOpen : 0;
  // No VMXON region and no current VMCS.
  if (!amd) std::fill_n(none.header.begin(), 16, std::uint8_t{0xff});
  return none;
}

}  // namespace

Status KvmVcpu::openInterfaces() {
  auto enable = [](int fd, unsigned capability, std::uint64_t argument) {
    kvm_enable_cap cap{};
    cap.cap = capability;
    cap.args[0] = argument;
    return call(fd, KVM_ENABLE_CAP, &cap) == 0;
  };
  bool amd = cpu_.model->vendor == x86::CpuVendor::amd;
  if (vm_.interfaces().nested) {
    interfaces_.nested = noNested(amd);
    // What firmware does on Intel's processors: VMXON is allowed, and that is locked.
    constexpr std::uint64_t kLocked = 1, kVmxon = 4;
    if (!amd) writeMsrOfKvm(msr::featureControl, kLocked | kVmxon);
    // Exceptions that a nested guest's host has not seen yet are told from those that are being delivered.
    for (unsigned capability : {KVM_CAP_EXCEPTION_PAYLOAD, KVM_CAP_X86_TRIPLE_FAULT_EVENT}) {
      if (vm_.capability(capability) > 0 && !enable(vm_.fd(), capability, 1))
        return Error::fromErrno(errno, "make KVM tell of nested guests' exceptions");
    }
  }
  if (!vm_.interfaces().hyperv) return {};
  if (vm_.hasApics() && vm_.capability(KVM_CAP_HYPERV_SYNIC2) > 0 && !enable(fd_.get(), KVM_CAP_HYPERV_SYNIC2, 0))
    return Error::fromErrno(errno, "enable KVM_CAP_HYPERV_SYNIC2");
  // What the leaves offer, and nothing else; before Linux 5.14 all that KVM has can be reached.
  if (vm_.capability(KVM_CAP_HYPERV_ENFORCE_CPUID) > 0) enable(fd_.get(), KVM_CAP_HYPERV_ENFORCE_CPUID, 1);
  return {};
}

void KvmVcpu::forgetInterfaces() {
  if (vm_.interfaces().hyperv) {
    for (unsigned n = 0; n < hv::timers; ++n) writeMsrOfKvm(hv::timer + 2 * n, 0);
    for (unsigned n = 0; n < hv::sources; ++n) writeMsrOfKvm(hv::source + n, hv::masked);
    for (std::uint32_t number :
         {hv::control, hv::eventPage, hv::messagePage, hv::referenceTsc, hv::assistPage, hv::hypercall, hv::guestId})
      writeMsrOfKvm(number, 0);
  }
  if (!vm_.interfaces().nested) return;
  bool amd = cpu_.model->vendor == x86::CpuVendor::amd;
  interfaces_.nested = noNested(amd);
  for (std::uint32_t number : kSvmRegisters) {
    if (amd) writeMsrOfKvm(number, number == kSvmRegisters[2] ? std::uint64_t{1} << 32 : 0);
  }
  storeNested(interfaces_.nested);
}

bool KvmVcpu::storeNested(const NestedState& state) {
  std::vector<std::uint64_t> words((sizeof(NestedHeader) + state.blocks.size() + 7) / 8);
  auto* bytes = reinterpret_cast<std::uint8_t*>(words.data());
  NestedHeader header{};
  header.flags = state.flags;
  header.format = state.format;
  header.size = static_cast<std::uint32_t>(sizeof header + state.blocks.size());
  std::copy(state.header.begin(), state.header.end(), header.addresses);
  std::memcpy(bytes, &header, sizeof header);
  std::copy(state.blocks.begin(), state.blocks.end(), bytes + sizeof header);
  return call(fd_.get(), kSetNestedState, words.data()) == 0 || failCall("KVM_SET_NESTED_STATE");
}

/// On the way into KVM, before the control registers: a nested guest that is not to be there would take them away.
bool KvmVcpu::leaveNested() {
  bool amd = cpu_.model->vendor == x86::CpuVendor::amd;
  if (!virtualizes()) interfaces_.nested = noNested(amd);
  return interfaces_.nested.runsGuest() || storeNested(noNested(amd));
}

/// Whether events may be a nested guest's host's to see first.
bool KvmVcpu::virtualizes() const {
  return vm_.interfaces().nested && virtualizationInUse(cpu_.state, interfaces_.nested) != Virtualization::none;
}

/// The guest's host and its guest, as they were when the CPU's registers were taken out of KVM.
bool KvmVcpu::saveNested(const kvm_vcpu_events& taken) {
  std::vector<std::uint64_t> words(static_cast<std::size_t>(vm_.capability(KVM_CAP_NESTED_STATE)) / 8 + 1);
  auto* bytes = reinterpret_cast<std::uint8_t*>(words.data());
  NestedHeader header{};
  header.size = static_cast<std::uint32_t>(words.size() * 8);
  std::memcpy(bytes, &header, sizeof header);
  if (call(fd_.get(), kGetNestedState, words.data()) != 0) return failCall("KVM_GET_NESTED_STATE");
  std::memcpy(&header, bytes, sizeof header);
  NestedState& state = interfaces_.nested;
  state.flags = header.flags;
  state.format = header.format;
  std::copy(std::begin(header.addresses), std::end(header.addresses), state.header.begin());
  std::size_t size = std::clamp<std::size_t>(header.size, sizeof header, words.size() * 8);
  state.blocks.assign(bytes + sizeof header, bytes + size);
  state.events = {};
  if (!virtualizes()) return true;  // they are delivered (finishDelivery())
  NestedState::Events& events = state.events;
  events.exceptionInjected = taken.exception.injected != 0;
  events.exceptionPending = taken.exception.pending != 0;
  events.exception = taken.exception.nr;
  events.hasErrorCode = taken.exception.has_error_code != 0;
  events.errorCode = taken.exception.error_code;
  events.hasPayload = taken.exception_has_payload != 0;
  events.payload = taken.exception_payload;
  events.interruptInjected = taken.interrupt.injected != 0;
  events.interrupt = taken.interrupt.nr;
  events.interruptIsSoft = taken.interrupt.soft != 0;
  events.nmiInjected = taken.nmi.injected != 0;
  events.nmisPending = taken.nmi.pending;
  events.smiPending = taken.smi.pending != 0;
  events.initLatched = taken.smi.latched_init != 0;
  events.tripleFault = (taken.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) != 0 && taken.triple_fault.pending != 0;
  return true;
}

/// What is on its way to the CPU, back into KVM's hands.
void KvmVcpu::addNestedEvents(kvm_vcpu_events& events) const {
  const NestedState::Events& from = interfaces_.nested.events;
  events.exception.injected = from.exceptionInjected;
  events.exception.pending = from.exceptionPending;
  events.exception.nr = from.exception;
  events.exception.has_error_code = from.hasErrorCode;
  events.exception.error_code = from.errorCode;
  if (vm_.capability(KVM_CAP_EXCEPTION_PAYLOAD) > 0) {
    events.exception_has_payload = from.hasPayload;
    events.exception_payload = from.payload;
    events.flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
  }
  events.interrupt.injected = from.interruptInjected;
  events.interrupt.nr = from.interrupt;
  events.interrupt.soft = from.interruptIsSoft;
  events.nmi.injected = from.nmiInjected;
  events.nmi.pending = from.nmisPending;
  events.smi.pending = from.smiPending;
  events.smi.latched_init = from.initLatched;
  if (vm_.capability(KVM_CAP_X86_TRIPLE_FAULT_EVENT) > 0) {
    events.triple_fault.pending = from.tripleFault;
    events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
  }
}

/// An instruction of a nested guest that KVM cannot emulate, and that nobody else here can: as KVM does it by itself.
/// False: it is not a nested guest's.
bool KvmVcpu::refuseNestedInstruction() {
  if (!vm_.interfaces().nested || !interfaces_.nested.runsGuest()) return false;
  NestedState::Events& events = interfaces_.nested.events;
  events.exceptionPending = true;
  events.exception = kInvalidOpcode;
  events.hasErrorCode = events.hasPayload = false;
  return true;
}

/// KVM_EXIT_HYPERV: that a register of the synthetic interrupt controller was written, which is KVM's to act upon; or a
/// hypercall that has to do with messages between machines, of which there are none.
void KvmVcpu::hypervExit() {
  if (run_->hyperv.type != KVM_EXIT_HYPERV_HCALL) return;
  accessOpen_ = true;
  run_->hyperv.u.hcall.result = hv::invalidHypercallCode;
}

/// KVM_EXIT_SYSTEM_EVENT: what a guest of Hyper-V's says by its crash registers. It goes on.
void KvmVcpu::systemEvent() {
  if (run_->system_event.type != KVM_SYSTEM_EVENT_CRASH) return;
  auto values = readAll(fd_.get(), {hv::crash, hv::crash + 1, hv::crash + 2, hv::crash + 3, hv::crash + 4});
  std::string text;
  for (const MsrValue& each : values) text += fmt::format(" {:#x}", each.value);
  log(LogLevel::error, "the guest says that it has crashed:{}", text);
}

Status KvmVcpu::readInterfaces(InterfaceState& state) {
  bool amd = cpu_.model->vendor == x86::CpuVendor::amd;
  state = interfaces_;
  if (vm_.interfaces().nested) state.nested.registers = readAll(fd_.get(), nestedRegisters(amd));
  if (vm_.interfaces().hyperv) state.hyperv = readAll(fd_.get(), hypervRegisters(cpu_.index == 0));
  return {};
}

Status KvmVcpu::writeInterfaces(const InterfaceState& state) {
  bool amd = cpu_.model->vendor == x86::CpuVendor::amd;
  if (vm_.interfaces().nested) {
    bool none = state.nested.format == NestedState::kNone;
    if (!none && state.nested.format != (amd ? NestedState::kSvm : NestedState::kVmx))
      return Error(ErrorKind::unsupported, "nested virtualization of the other maker's processors");
    if (Status done = writeRegisters(state.nested.registers, nestedRegisters(amd)); !done) return done;
    interfaces_.nested = none ? noNested(amd) : state.nested;
  }
  return vm_.interfaces().hyperv ? writeRegisters(state.hyperv, hypervRegisters(cpu_.index == 0)) : Status{};
}

Status KvmVcpu::tryNested() {
  if (!virtualizes()) return {};
  if (Status synced = vm_.syncMemory(); !synced) return synced;
  std::string why;
  whyNot_ = &why;
  bool taken = load() && save();
  whyNot_ = nullptr;
  if (taken) return {};
  auto used = virtualizationInUse(cpu_.state, interfaces_.nested);
  return Error(ErrorKind::unsupported, fmt::format("this host's KVM does not go on with what CPU {} has of {}: {}",
                                                   cpu_.index, nameOf(used), why))
      .withHint("restore it on a host whose processor and kernel are like those of the host that it ran on");
}

/// Sets what differs. Errors: corrupt, a register that is not one of `known`; unsupported, one that KVM does not take.
Status KvmVcpu::writeRegisters(const std::vector<MsrValue>& values, const std::vector<std::uint32_t>& known) {
  for (const MsrValue& each : values) {
    if (std::find(known.begin(), known.end(), each.number) == known.end())
      return Error(ErrorKind::corrupt, fmt::format("model-specific register {:#x} is not part of it", each.number));
  }
  for (std::uint32_t number : known) {  // in their order
    auto found = std::find_if(values.begin(), values.end(), [&](const MsrValue& v) { return v.number == number; });
    if (found == values.end()) continue;
    if (number == hv::referenceCounter) {
      kvm_clock_data clock{};
      clock.clock = found->value * hv::ticksInNs;
      if (call(vm_.fd(), KVM_SET_CLOCK, &clock) != 0) return Error::fromErrno(errno, "KVM_SET_CLOCK");
      continue;
    }
    auto now = readAll(fd_.get(), {number});
    if (!now.empty() && now[0].value == found->value) continue;
    if (!writeMsrOfKvm(number, found->value)) {
      return Error(
          ErrorKind::unsupported,
          fmt::format("this host's KVM does not take {:#x} as model-specific register {:#x}", found->value, number));
    }
  }
  return {};
}

}  // namespace lodge::kvm
