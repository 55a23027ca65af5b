// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/kvm.h>

#include <cstdint>

#include "x86/chip_registers.h"

namespace lodge::kvm {

// Chips beside the local APICs between Lodge's form and KVM's (Linux Documentation/virt/kvm/api.rst, 4.26, 4.71). What
// KVM's form has no place for stays as it is in the structure that is filled.

/// `slave`: the second 8259A.
void toKvm(const x86::PicRegisters& pic, bool slave, kvm_pic_state& out);
void fromKvm(const kvm_pic_state& in, x86::PicRegisters& pic);

/// A pin that is level-triggered and high asks again; an edge has been before. That a masked one is high KVM notes: the
/// guest may yet make it level-triggered.
void toKvm(const x86::IoApicRegisters& ioApic, kvm_ioapic_state& out);
/// `levels` stays: KVM knows some of them only.
void fromKvm(const kvm_ioapic_state& in, x86::IoApicRegisters& ioApic);

/// KVM counts from the beginning again: a counter that counts once gets what is left, one that repeats a whole period.
void toKvm(const x86::PitRegisters& pit, bool silent, kvm_pit_state2& out);
/// `now`: nanoseconds of CLOCK_MONOTONIC, by which KVM's counters 1 and 2 go. How far counter 0 is KVM does not say:
/// half a period if it repeats, else at its beginning, so that its interrupt comes, perhaps again.
void fromKvm(const kvm_pit_state2& in, std::int64_t now, x86::PitRegisters& pit);

}  // namespace lodge::kvm
