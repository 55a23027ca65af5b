// SPDX-License-Identifier: Apache-2.0
// Lodge's CpuState in KVM's structures and back: plain conversions, each way without loss for what a guest can see.
#pragma once

#include "engine/kvm/abi.h"
#include "x86/state.h"

namespace lodge::kvm {

void toKvm(const x86::CpuState& state, kvm_regs& regs);
void fromKvm(const kvm_regs& regs, x86::CpuState& state);

/// Segments, tables, control registers, EFER, the APIC's base and PDPTEs. CR8 is left alone: it is the local APIC's.
void toKvm(const x86::CpuState& state, kvm_sregs2& sregs);
/// Sets CPL, too.
void fromKvm(const kvm_sregs2& sregs, std::uint64_t rflags, x86::CpuState& state);

void toKvm(const x86::CpuState& state, kvm_debugregs& debug);
void fromKvm(const kvm_debugregs& debug, x86::CpuState& state);

/// Interrupt shadow, NMI blocking and system management mode. Events that were on their way to the guest are for the
/// caller: there are none in a CpuState.
void toKvm(const x86::CpuState& state, kvm_vcpu_events& events);
void fromKvm(const kvm_vcpu_events& events, x86::CpuState& state);
/// What an exception that waits for its delivery is yet to do to CR2 (a page fault's address) or DR6 (what a debug
/// exception is of), with KVM_CAP_EXCEPTION_PAYLOAD.
void applyPayload(const kvm_vcpu_events& events, x86::CpuState& state);

/// Vector and x87 state. `components`: the XCR0 bits that the guest may have.
void toKvm(const x86::CpuState& state, std::uint64_t components, XsaveArea& area);
void fromKvm(const XsaveArea& area, std::uint64_t components, x86::CpuState& state);

/// One segment register; the parts that <linux/kvm.h> spreads over bytes are the descriptor's bits 40 to 55.
kvm_segment toKvm(const x86::SegmentRegister& segment);
x86::SegmentRegister fromKvm(const kvm_segment& segment);

}  // namespace lodge::kvm
