// SPDX-License-Identifier: Apache-2.0
// What guests of the differential and the paging test have in common: flat segments at Linux' selectors, exceptions
// that all halt, and nothing around the CPU but memory.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "memory/guest_memory.h"
#include "x86/cpu.h"

namespace lodge::halting_guest {

/// Linux' GDT (arch/x86/include/asm/segment.h).
inline constexpr std::uint16_t kKernelCs = 0x10, kKernelSs = 0x18, kUserCs32 = 0x23, kUserSs = 0x2b, kUserCs = 0x33,
                               kTr = 0x40;

/// Descriptors, DPL 0 and 3, accessed (SDM vol. 3, 3.4.5): all of 4 GiB, or 64-bit code.
inline constexpr std::uint64_t kKernelCode64 = 0x00af'9b00'0000'ffff, kKernelCode32 = 0x00cf'9b00'0000'ffff,
                               kKernelData = 0x00cf'9300'0000'ffff, kUserCode64 = 0x00af'fb00'0000'ffff,
                               kUserCode32 = 0x00cf'fb00'0000'ffff, kUserData = 0x00cf'f300'0000'ffff;

/// Types of system descriptors: SDM vol. 3, table 3-2.
enum class SystemSegment : std::uint8_t { ldt = 2, busyTss = 11 };

/// Both words of a system descriptor of long mode; the first one is protected mode's. `limit`: below 64 KiB, in bytes.
inline std::array<std::uint64_t, 2> systemDescriptor(SystemSegment type, std::uint64_t base, std::uint64_t limit) {
  std::uint64_t attributes = 0x80 | static_cast<std::uint64_t>(type);
  return {limit | (base & 0xff'ffff) << 16 | attributes << 40 | ((base >> 24) & 0xff) << 56, base >> 32};
}

/// Exceptions that push an error code: SDM vol. 3, table 6-1.
constexpr bool hasErrorCode(unsigned vector) {
  return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

/// Bytes of a handler: 256 follow each other, by vector.
inline constexpr unsigned kHandlerBytes = 16;

struct Gates {
  bool wide;               ///< long mode's
  std::uint64_t idt;       ///< guest-physical
  std::uint64_t handlers;  ///< guest-physical
  std::uint64_t linear;    ///< where `handlers` are when they run
  unsigned stack = 0;      ///< of the interrupt stack table, with long mode's
};

/// Interrupt gates whose handlers halt. INT3 and INTO may come from CPL 3.
inline void writeHaltingGates(GuestMemory& memory, const Gates& gates) {
  for (unsigned vector = 0; vector < 256; ++vector) {
    std::uint64_t handler = gates.linear + vector * kHandlerBytes;
    std::uint64_t attributes = 0x8e00u | (vector == 3 || vector == 4 ? 3u << 13 : 0u) | (gates.wide ? gates.stack : 0u);
    const std::uint64_t gate[2] = {
        (handler & 0xffff) | std::uint64_t{kKernelCs} << 16 | attributes << 32 | ((handler >> 16) & 0xffff) << 48,
        handler >> 32};
    std::size_t words = gates.wide ? 2 : 1;
    (void)memory.write(Gpa{gates.idt + vector * 8 * words}, std::as_bytes(std::span(gate).first(words)));
    const std::uint8_t code[] = {0xf4, 0xeb, 0xfd};  // hlt; jmp to it
    (void)memory.write(Gpa{gates.handlers + vector * kHandlerBytes}, std::as_bytes(std::span(code)));
  }
}

class NoApic : public x86::LocalApic {
 public:
  int acknowledge() override { return -1; }
  bool pending() const override { return false; }
  std::uint8_t taskPriority() const override { return 0; }
  void setTaskPriority(std::uint8_t) override {}
  bool readMsr(std::uint32_t, std::uint64_t&) override { return false; }
  bool writeMsr(std::uint32_t, std::uint64_t) override { return false; }
  void reset() override {}
};

/// No ports, no interrupts, no time. Devices in memory are the derived class's.
class QuietEnvironment : public x86::CpuEnvironment {
 public:
  std::uint64_t readPort(std::uint16_t, unsigned) override { return ~std::uint64_t{0}; }
  void writePort(std::uint16_t, unsigned, std::uint64_t) override {}
  x86::LocalApic& apic() override { return apic_; }
  std::int64_t hypercall(std::uint64_t, const std::uint64_t (&)[4]) override { return -1; }
  Nanoseconds guestTime() override { return 0; }
  Nanoseconds wallClockBase() override { return 0; }

 private:
  NoApic apic_;
};

}  // namespace lodge::halting_guest
