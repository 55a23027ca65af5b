// SPDX-License-Identifier: Apache-2.0
// How the chips of a PC are saved and loaded. Each function loads only what passes its checks; a chip that was given
// something else keeps the state that it has.
#pragma once

#include "device/acpi_pm.h"
#include "device/hpet.h"
#include "device/i8042.h"
#include "device/io_apic.h"
#include "device/local_apic.h"
#include "device/pic.h"
#include "device/pit.h"
#include "device/rtc.h"
#include "device/uart.h"
#include "state/archive.h"

namespace lodge {

void transfer(state::Archive& a, Pic::State& s);
void transfer(state::Archive& a, IoApic::State& s);
void transfer(state::Archive& a, Pit::State& s);
void transfer(state::Archive& a, Rtc::State& s);
void transfer(state::Archive& a, Hpet::State& s);
void transfer(state::Archive& a, AcpiPm::State& s);
void transfer(state::Archive& a, Uart::State& s);
void transfer(state::Archive& a, I8042::State& s);
void transfer(state::Archive& a, LocalApic::State& s);

/// Saves or loads a chip that has a State with save() and restore().
template <class Chip>
void transferChip(state::Archive& a, Chip& chip) {
  typename Chip::State s = chip.save();
  transfer(a, s);
  if (a.mayApply()) chip.restore(s);
}

}  // namespace lodge
