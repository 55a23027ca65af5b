// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "engine/engine.h"
#include "engine/kvm/abi.h"
#include "x86/cpu.h"
#include "x86/cpu_model.h"

namespace lodge::kvm {

/// The CPU's leaves for KVM_SET_CPUID2, as the CPU would answer at power-up. KVM itself follows what depends on its
/// control registers later.
CpuidList cpuidEntries(x86::Cpu& cpu);

/// What KVM_GET_SUPPORTED_CPUID says of /dev/kvm, as a function of leaf and subleaf; zeros where it says nothing.
/// Errors: io.
Result<CpuidList> supportedCpuid(int system);

/// Takes from the model what KVM cannot give its guests on this host, so that a guest is told the truth: before there
/// are CPUs. Features that Lodge carries out itself (the local APIC's, paravirtual ones) stay. `apicsInKvm`: KVM has
/// the local APICs, and with them the hypercalls that reach other CPUs.
void limitModel(x86::CpuModel& model, CpuidList& supported, std::uint64_t archCapabilities, bool apicsInKvm);

/// The same by the host's KVM. Errors: unsupported, io.
Status limitModel(x86::CpuModel& model, Irqchip irqchip, const char* device = "/dev/kvm");

/// Adds what was asked for, after limitModel(): the CPUID leaves of the processor's virtualization as this KVM has it,
/// and Hyper-V's, behind which KVM's own then begin at 0x40000100. Its synthetic interrupts and timers need local APICs
/// in KVM. Errors: unsupported with a hint, io.
Status offerInterfaces(x86::CpuModel& model, GuestInterfaces interfaces, Irqchip irqchip = Irqchip::best,
                       const char* device = "/dev/kvm");

}  // namespace lodge::kvm
