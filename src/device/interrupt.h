// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lodge {

// Lock order of the chipset. Whoever holds a lock may take one that is further down, never one above:
//   1. a device's own mutex (serial port, PIT, RTC, ACPI, PCI function, MSI-X table, virtio queue...)
//   2. PciHost's INTx mutex, SharedInterrupt, SwitchedInterrupt, Piix3
//   3. Pic
//   4. IoApic
//   5. a local APIC's LINT mutex; host timers (TimerFactory)
// IRR, ISR and TMR need none. CPUs are signalled (ApicCpu) under any of them, so that must take no lock of this list;
// and local APICs call up (EOI to the I/O APIC, ExtINT acknowledge to the PIC) only while they hold nothing.

/// An interrupt input of some controller, handed to a device. Level-triggered use: set(true) ... set(false). Edge use:
/// pulse(). Any thread; may be called with the device's own mutex held (lock order: device, then I/O APIC or PIC, then
/// local APIC).
class InterruptLine {
 public:
  virtual ~InterruptLine() = default;
  virtual void set(bool level) = 0;
  /// Whether the edge that was raised last still waits for a CPU, so that another one would be lost in it. Not while
  /// the input is masked.
  virtual bool waits() const { return false; }
  void pulse() {
    set(true);
    set(false);
  }
};

/// Where message-signalled interrupts go: a memory write to 0xfeexxxxx (SDM vol. 3, 11.11). Any thread, as above.
class MsiSink {
 public:
  virtual ~MsiSink() = default;
  virtual void sendMsi(std::uint64_t address, std::uint32_t data) = 0;
};

}  // namespace lodge
