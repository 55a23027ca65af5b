// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/event_loop.h"
#include "device/acpi_pm.h"
#include "device/apic_bus.h"
#include "device/debug_exit.h"
#include "device/doorbells.h"
#include "device/fw_cfg.h"
#include "device/hpet.h"
#include "device/i8042.h"
#include "device/interrupt_router.h"
#include "device/io_apic.h"
#include "device/pic.h"
#include "device/pit.h"
#include "device/pvpanic.h"
#include "device/reset_control.h"
#include "device/rtc.h"
#include "device/test_device.h"
#include "device/uart.h"
#include "firmware/platform.h"
#include "machine/board_chips.h"
#include "machine/config.h"
#include "memory/guest_memory.h"
#include "memory/io_bus.h"
#include "state/snapshot.h"

namespace lodge {

/// What the guest asks of the machine; each may be called on any vCPU's thread.
struct BoardEvents {
  std::function<void()> reset;
  std::function<void()> powerOff;
  std::function<void(std::uint32_t value)> debugExit;
  std::function<void()> panicked;
};

/// The fixed devices that all boards have, and their wiring: everything but CPUs and PCI functions.
class Chipset {
 public:
  /// Errors: alreadyExists (a debug exit port that another device has).
  static Result<std::unique_ptr<Chipset>> create(const MachineConfig& config, EventLoop& loop, GuestMemory& memory,
                                                 IoBus& ports, IoBus& mmio, BoardEvents events, Uart::Output console);

  ApicBus& apicBus() { return apicBus_; }
  Doorbells& doorbells() { return doorbells_; }
  InterruptRouter& interrupts() { return router_; }
  Uart& com1() { return com1_; }
  AcpiPm& acpi() { return acpi_; }
  ResetControl& resetControl() { return resetControl_; }
  I8042& keyboard() { return keyboard_; }
  FwCfg& fwCfg() { return fwCfg_; }
  Rtc& rtc() { return rtc_; }
  BoardChips& chips() { return chips_; }
  /// How firmware describes all this to the guest.
  static firmware::PlatformDescription describe(const MachineConfig& config, const GuestMemory& memory,
                                                unsigned physicalAddressBits);
  void reset();
  /// Saves or loads all of it; loading: after the devices that drive its interrupt inputs.
  void transfer(state::Snapshot& snapshot);

 private:
  Chipset(EventLoop& loop, GuestMemory& memory, unsigned cpus, BoardEvents events, Uart::Output console);
  Status plug(const MachineConfig& config, IoBus& ports, IoBus& mmio);
  Status describeToGuest(const MachineConfig& config, const GuestMemory& memory);

  BoardEvents events_;
  Doorbells doorbells_;
  ApicBus apicBus_;
  IoApic ioApic_{apicBus_, 0};
  Pic pic_{apicBus_.lint(0)};
  InterruptRouter router_{pic_, ioApic_};
  SwitchedInterrupt irq0_{router_.isa(0)}, irq8_{router_.isa(8)};
  Pit pit_;
  BoardChips chips_{{pic_, ioApic_, pit_, router_, irq0_}};
  Rtc rtc_;
  Hpet hpet_;
  Uart com1_, com2_;
  AcpiPm acpi_;
  ResetControl resetControl_;
  A20Gate a20_;
  SystemControlPortA portA_;
  I8042 keyboard_;
  PvPanic pvPanic_;
  FwCfg fwCfg_;
  std::unique_ptr<DebugExit> debugExit_;
  std::unique_ptr<TestDevice> testDevice_;
};

}  // namespace lodge
