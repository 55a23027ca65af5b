// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "x86/state.h"

namespace lodge {

/// One model-specific register.
struct MsrValue {
  std::uint32_t number = 0;
  std::uint64_t value = 0;
  bool operator==(const MsrValue&) const = default;
};

/// Which of the processor's virtualization a guest has turned on; without it, an engine cannot go on with the guest.
enum class Virtualization : std::uint8_t { none, svm, vmx };

inline constexpr std::uint64_t kCr4Vmxe = 1 << 13;

/// Its name, and the bit that tells.
constexpr std::string_view nameOf(Virtualization used) {
  return used == Virtualization::svm ? "SVM (EFER.SVME)" : used == Virtualization::vmx ? "VMX (CR4.VMXE)" : "nothing";
}

/// A CPU that may be a host itself (GuestInterfaces::nested), beside its CpuState, which is the nested guest's while
/// that runs. As KVM gives it (Linux Documentation/virt/kvm/api.rst, KVM_GET_NESTED_STATE): the processor's makers keep
/// it in no form of their own.
struct NestedState {
  static constexpr std::uint16_t kGuestMode = 1, kRunPending = 2, kInterruptsOpen = 0x100;  ///< GIF
  static constexpr std::uint16_t kVmx = 0, kSvm = 1, kNone = 0xffff;                        ///< kNone: as at power-up

  Virtualization inUse = Virtualization::none;
  std::uint16_t flags = 0, format = kNone;
  std::array<std::uint8_t, 120> header{};  ///< addresses of control structures
  std::vector<std::uint8_t> blocks;        ///< in guest mode, the control structures as the processor has them
  std::vector<MsrValue> registers;

  /// What is on its way to the CPU: a nested guest's host may want to see it first, so that only the engine can deliver
  /// it. KVM_GET_VCPU_EVENTS.
  struct Events {
    bool exceptionInjected = false, exceptionPending = false, hasErrorCode = false, hasPayload = false;
    bool interruptInjected = false, interruptIsSoft = false, nmiInjected = false;
    bool smiPending = false, initLatched = false, tripleFault = false;
    std::uint8_t exception = 0, interrupt = 0, nmisPending = 0;
    std::uint32_t errorCode = 0;
    std::uint64_t payload = 0;
  } events;

  bool runsGuest() const { return (flags & kGuestMode) != 0; }
  /// The guest has executed VMXON (struct kvm_vmx_nested_state_hdr: the region's address; all ones: it has not).
  bool vmxIsOn() const {
    return format == kVmx && std::any_of(header.begin(), header.begin() + 8, [](std::uint8_t b) { return b != 0xff; });
  }
  /// The guest has said where VMRUN keeps its host's state (VM_HSAVE_PA, APM vol. 2, 15.30.4), which comes before the
  /// first one. `registers` must be there.
  bool hasHostArea() const {
    constexpr std::uint32_t kHostArea = 0xc001'0117;
    return format == kSvm && std::any_of(registers.begin(), registers.end(),
                                         [](const MsrValue& r) { return r.number == kHostArea && r.value != 0; });
  }
};

/// Both are in use in system management mode, too, where CR4.VMXE and EFER.SVME are clear (SDM vol. 3, 32.14; APM vol.
/// 2, 10.3.5).
inline Virtualization virtualizationInUse(const x86::CpuState& state, const NestedState& nested) {
  if ((state.efer & x86::efer::svme) != 0 || (state.smm != 0 && nested.hasHostArea())) return Virtualization::svm;
  bool vmx = (state.cr4 & kCr4Vmxe) != 0 || (state.smm != 0 && nested.vmxIsOn());
  return vmx ? Virtualization::vmx : Virtualization::none;
}

/// What an engine alone knows of one CPU, where the guest was offered GuestInterfaces.
struct InterfaceState {
  NestedState nested;
  std::vector<MsrValue> hyperv;  ///< those of the whole machine are with the first CPU
};

}  // namespace lodge
