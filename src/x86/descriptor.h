// SPDX-License-Identifier: Apache-2.0
// Segment and system descriptors (SDM vol. 3, 3.4.5 and 3.5), for this folder's own use.
#pragma once

#include <cstdint>

#include "x86/cpu.h"

namespace lodge::x86 {

/// Types of system descriptors (SDM vol. 3, table 3-2).
namespace system_type {
inline constexpr unsigned tss16 = 1, ldt = 2, tss16Busy = 3, callGate16 = 4, taskGate = 5, interruptGate16 = 6,
                          trapGate16 = 7, tss32 = 9, tss32Busy = 11, callGate32 = 12, interruptGate32 = 14,
                          trapGate32 = 15;
}

/// Error code of a selector: RPL gives way to the EXT and IDT bits.
inline constexpr std::uint32_t selectorCode(std::uint16_t selector) {
  return selector & 0xfffcu;
}
inline constexpr bool isNull(std::uint16_t selector) {
  return (selector & 0xfffc) == 0;
}
inline constexpr unsigned rpl(std::uint16_t selector) {
  return selector & 3u;
}

/// A descriptor as it lies in memory; `high` is the second half of 16-byte ones.
struct Descriptor {
  std::uint64_t low = 0;
  std::uint64_t high = 0;

  unsigned type() const { return (low >> 40) & 15; }
  bool isSystem() const { return ((low >> 44) & 1) == 0; }
  unsigned dpl() const { return (low >> 45) & 3; }
  bool present() const { return ((low >> 47) & 1) != 0; }
  bool longMode() const { return ((low >> 53) & 1) != 0; }
  bool big() const { return ((low >> 54) & 1) != 0; }

  bool isCode() const { return !isSystem() && (type() & 8) != 0; }
  bool isData() const { return !isSystem() && (type() & 8) == 0; }
  bool isConforming() const { return isCode() && (type() & 4) != 0; }
  bool isReadable() const { return isData() || (isCode() && (type() & 2) != 0); }
  bool isWritableData() const { return isData() && (type() & 2) != 0; }

  std::uint64_t base() const { return ((low >> 16) & 0xff'ffff) | ((low >> 32) & 0xff00'0000) | high << 32; }
  std::uint32_t limit() const {
    auto limit = static_cast<std::uint32_t>((low & 0xffff) | ((low >> 32) & 0xf'0000));
    return ((low >> 55) & 1) != 0 ? limit << 12 | 0xfff : limit;
  }
  std::uint16_t attributes() const { return (low >> 40) & 0xf0ff; }

  // Gates.
  std::uint16_t gateSelector() const { return (low >> 16) & 0xffff; }
  std::uint64_t gateOffset() const { return (low & 0xffff) | ((low >> 32) & 0xffff'0000) | high << 32; }
  unsigned gateParameters() const { return (low >> 32) & 31; }
  unsigned gateIst() const { return (low >> 32) & 7; }
};

SegmentRegister toSegment(const Descriptor& descriptor, std::uint16_t selector);
/// What a null selector leaves in a register: unusable, base 0. `dpl` matters for SS.
SegmentRegister nullSegment(std::uint16_t selector, unsigned dpl = 0);
/// A segment of real-address or virtual-8086 mode: base from the selector, 64 KiB.
SegmentRegister realSegment(std::uint16_t selector, unsigned dpl);

/// Linear address of the selector's descriptor.
std::uint64_t descriptorAddress(const Cpu& cpu, std::uint16_t selector);

/// Whether `size` bytes of descriptor lie inside the selector's table.
bool insideTable(const Cpu& cpu, std::uint16_t selector, unsigned size);
/// Reads the descriptor; a selector outside its table raises `outside` with the selector's error code | `ext`.
bool readDescriptor(Cpu& cpu, std::uint16_t selector, Descriptor& out, Vector outside, std::uint32_t ext = 0);
/// For LDT, TSS and call gate descriptors, which have 16 bytes in long mode (then also checked for the type bits of the
/// second half, which must be 0).
bool readSystemDescriptor(Cpu& cpu, std::uint16_t selector, Descriptor& out, Vector outside, std::uint32_t ext = 0);
/// Second half only, of a descriptor that readDescriptor() gave.
bool readDescriptorHigh(Cpu& cpu, std::uint16_t selector, Descriptor& descriptor, Vector outside,
                        std::uint32_t ext = 0);

/// Sets the accessed bit with a locked operation if it is clear, in memory and in `descriptor`.
bool setAccessed(Cpu& cpu, std::uint16_t selector, Descriptor& descriptor);
/// Sets or clears a TSS descriptor's busy bit.
bool setBusy(Cpu& cpu, std::uint16_t selector, bool busy);

}  // namespace lodge::x86
