// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace lodge {

/// An interrupt input of some controller, handed to a device. Level-triggered use: set(true) ... set(false). Edge use:
/// pulse(). Any thread; may be called with the device's own mutex held (lock order: device, then I/O APIC or PIC, then
/// local APIC).
class InterruptLine {
 public:
  virtual ~InterruptLine() = default;
  virtual void set(bool level) = 0;
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
