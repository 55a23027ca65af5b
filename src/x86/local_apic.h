// SPDX-License-Identifier: Apache-2.0
// In a header of its own, because src/device implements it and needs nothing else of src/x86.
#pragma once

#include <cstdint>

namespace lodge::x86 {

/// The local APIC as its CPU sees it. Implemented by the device; called on the vCPU's thread only (the device takes its
/// own lock against other CPUs and I/O threads).
class LocalApic {
 public:
  virtual ~LocalApic() = default;
  /// The vector to deliver now (highest pending above PPR), moved from IRR to ISR; -1 if none. Masks are the CPU's
  /// business.
  virtual int acknowledge() = 0;
  /// Whether acknowledge() would give a vector; lock-free.
  virtual bool pending() const = 0;
  virtual std::uint8_t taskPriority() const = 0;  ///< CR8: TPR bits 7..4
  virtual void setTaskPriority(std::uint8_t cr8) = 0;
  /// x2APIC MSRs 0x800-0x8ff, IA32_APIC_BASE, IA32_TSC_DEADLINE. False: #GP(0).
  virtual bool readMsr(std::uint32_t msr, std::uint64_t& value) = 0;
  virtual bool writeMsr(std::uint32_t msr, std::uint64_t value) = 0;
  /// After INIT (the machine's own reset goes to the device).
  virtual void reset() = 0;
  /// Paravirtual EOI. Whether the vector that acknowledge() gave last needs no EOI write for anything but clearing its
  /// ISR bit (edge-triggered, nothing else pending). An APIC that says yes must raise event::interrupt for every vector
  /// that it accepts from then on, whatever PPR says: its ISR may be stale until endOfInterrupt().
  virtual bool eoiMayBeSkipped() const { return false; }
  /// The guest TSC jumped: the TSC deadline comes at another time. Vector state is parked.
  virtual void tscChanged() {}
  /// What a write to the EOI register does.
  virtual void endOfInterrupt() {}
};

}  // namespace lodge::x86
