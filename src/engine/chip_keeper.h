// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/error.h"
#include "engine/irqchip.h"
#include "x86/chip_registers.h"

namespace lodge {

/// All interrupt controllers and the PIT are the engine's. Not among the others, of which much more of the program
/// knows.
inline constexpr Irqchip kKernelIrqchip{3};

/// An engine that can keep the 8259As, the I/O APIC and the PIT, besides the local APICs. Lines go to setLine() then:
/// an ISA IRQ (0..15 without 2), or a pin of the I/O APIC (16..23); the state by the others, while no vCPU runs.
class ChipKeepingEngine {
 public:
  virtual ~ChipKeepingEngine() = default;
  /// Whether it does in this machine.
  virtual bool keepsChips() const = 0;
  /// Any thread.
  virtual void setLine(unsigned line, bool level) = 0;
  /// Whether IRQ 0 is the HPET's. Any thread.
  virtual void silencePit(bool silent) = 0;
  /// Errors: io.
  virtual Status writeChips(const x86::ChipRegisters& registers) = 0;
  /// The PIT ticks no more. What the engine does not know stays as it is in the structure. Errors: io.
  virtual Status readChips(x86::ChipRegisters& registers) = 0;
};

}  // namespace lodge
