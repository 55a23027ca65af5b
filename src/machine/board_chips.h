// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

#include "device/interrupt_router.h"
#include "device/io_apic.h"
#include "device/pic.h"
#include "device/pit.h"
#include "engine/chip_keeper.h"
#include "engine/engine.h"
#include "x86/chip_registers.h"

namespace lodge {

/// The interrupt controllers and the PIT of a board, on their way to an engine that keeps them itself and back. While
/// it has them, the board's stand still; lines go to the engine.
class BoardChips : private ChipKeeper {
 public:
  struct Setup {
    Pic& pic;
    IoApic& ioApic;
    Pit& pit;
    InterruptRouter& router;
    SwitchedInterrupt& irq0;  ///< first: the PIT, second: the HPET
  };
  explicit BoardChips(const Setup& setup) : setup_(setup) {}

  /// Gives the state to the engine, if it keeps such; after the local APICs, before vCPUs run. Errors: io.
  Status give(Engine& engine);
  /// The state comes back; before the local APICs, while no vCPU runs. Errors: io.
  Status take();
  /// The engine has gone, or goes, with what it has.
  void leave();
  /// Whether IRQ 0 is the HPET's. Any thread.
  void pitSilenced(bool silent);

 private:
  void setLine(unsigned line, bool level) override { engine_.load()->setLine(line, level); }

  const Setup setup_;
  x86::ChipRegisters given_;
  std::atomic<ChipKeepingEngine*> engine_{nullptr};  ///< null: the chips are the board's
};

}  // namespace lodge
