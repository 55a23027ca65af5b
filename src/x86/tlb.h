// SPDX-License-Identifier: Apache-2.0
// The small TLB's inline half: what the interpreter's memory accesses cost when they hit.
//
// An entry serves one page for one kind of rights, so that CPL and AC switches flush nothing. Read and fetch tags are
// filled for RAM pages only; write tags for RAM pages that are dirty already and hold no translated code at that
// moment. Pages with armed data breakpoints are never filled.
//
// Stores and translated code, the protocol: a store goes to memory first, and then looks at GuestMemory::codePages()
// (wroteTo below). Who marks a page as code, marks first, then makes every vCPU pass a barrier
// (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED), or a stop), then reads the bytes: each store is then either in the
// bytes that are read or reported to the observer. Write tags need no revocation for that to hold; an engine that also
// write-protects the page in the CPU view must first have every vCPU call clearTlb() (event::flushTlb does).
#pragma once

#include <cstdint>

#include "x86/cpu.h"
#include "x86/virtual_memory.h"

namespace lodge::x86 {

/// Rights that an access is made with; part of the TLB's tags.
enum class Rights : std::uint8_t {
  supervisor = 0,            ///< CPL 0-2 with AC = 0, and implicit accesses to system structures: SMAP applies
  supervisorOverrideAc = 1,  ///< CPL 0-2 with AC = 1: SMAP does not apply
  user = 2,
  userAligned = 3,  ///< user, with alignment checking (#AC): never in the TLB, so that every access takes the slow path
};

/// Whether misaligned data accesses raise #AC (SDM vol. 3, 6.15). Engines with fast paths of their own leave such a
/// guest to the interpreter.
inline bool alignmentChecked(const Cpu& cpu) {
  return cpu.state.cpl == 3 && (cpu.state.rflags & flag::ac) != 0 && (cpu.state.cr0 & cr0::am) != 0;
}

inline Rights currentRights(const Cpu& cpu) {
  if (cpu.state.cpl == 3) return alignmentChecked(cpu) ? Rights::userAligned : Rights::user;
  return static_cast<Rights>((cpu.state.rflags >> 18) & 1);
}
inline Rights rightsFor(const Cpu& cpu, Privilege privilege) {
  return privilege == Privilege::implicitSupervisor ? Rights::supervisor : currentRights(cpu);
}
/// Instruction fetches know no SMAP: both supervisor kinds share their entries.
inline Rights fetchRights(const Cpu& cpu) {
  return cpu.state.cpl == 3 ? Rights::user : Rights::supervisor;
}

inline constexpr std::uint64_t kEmptyTag = ~std::uint64_t{0};

inline std::uint64_t tlbTag(std::uint64_t linear, Rights rights) {
  return (linear & ~kPageMask) | static_cast<std::uint64_t>(rights);
}
/// Higher bits count, too: a copy between places that are a multiple of 4 MiB apart needs both pages.
inline unsigned tlbIndex(std::uint64_t linear, Rights rights) {
  std::uint64_t page = linear >> 12;
  return static_cast<unsigned>(page ^ page >> 9 ^ page >> 18 ^ (static_cast<std::uint64_t>(rights) * 0x155)) &
         (Cpu::kTlbEntries - 1);
}
inline bool withinPage(std::uint64_t linear, unsigned size) {
  return (linear & kPageMask) + size <= kPageSize;
}

/// Host address of [linear, linear+size) if a valid entry allows the access; null: take the slow path.
inline std::byte* tlbReadable(Cpu& cpu, std::uint64_t linear, unsigned size, Rights rights) {
  const TlbEntry& entry = cpu.tlb[tlbIndex(linear, rights)];
  if (entry.readTag != tlbTag(linear, rights) || !withinPage(linear, size)) return nullptr;
  return entry.host + (linear & kPageMask);
}
/// Pages that have become code since they were entered take the slow path, which does not fault where the engine has
/// protected them.
inline std::byte* tlbWritable(Cpu& cpu, std::uint64_t linear, unsigned size, Rights rights) {
  const TlbEntry& entry = cpu.tlb[tlbIndex(linear, rights)];
  if (entry.writeTag != tlbTag(linear, rights) || !withinPage(linear, size)) return nullptr;
  auto page = static_cast<std::uint64_t>(entry.host - cpu.memory->cpuRw()) >> 12;
  if (cpu.memory->codePages()[page].load(std::memory_order_relaxed) != 0) [[unlikely]]
    return nullptr;
  return entry.host + (linear & kPageMask);
}
inline const std::byte* tlbFetchable(Cpu& cpu, std::uint64_t linear, unsigned size) {
  const TlbEntry& entry = cpu.tlb[tlbIndex(linear, fetchRights(cpu))];
  if (entry.fetchTag != tlbTag(linear, fetchRights(cpu)) || !withinPage(linear, size)) return nullptr;
  return entry.host + (linear & kPageMask);
}

namespace detail {
template <class T>
struct [[gnu::packed]] Unaligned {
  T value;
};
/// One host access of the operand's size, as the guest's was: aligned ones are atomic.
template <class T>
inline T loadHost(const std::byte* p) {
  return reinterpret_cast<const volatile Unaligned<T>*>(p)->value;
}
template <class T>
inline void storeHost(std::byte* p, std::uint64_t value) {
  reinterpret_cast<volatile Unaligned<T>*>(p)->value = static_cast<T>(value);
}
}  // namespace detail

/// `size`: 1, 2, 4 or 8.
inline std::uint64_t loadHost(const std::byte* p, unsigned size) {
  switch (size) {
    case 1:
      return detail::loadHost<std::uint8_t>(p);
    case 2:
      return detail::loadHost<std::uint16_t>(p);
    case 4:
      return detail::loadHost<std::uint32_t>(p);
    default:
      return detail::loadHost<std::uint64_t>(p);
  }
}
inline void storeHost(std::byte* p, unsigned size, std::uint64_t value) {
  switch (size) {
    case 1:
      return detail::storeHost<std::uint8_t>(p, value);
    case 2:
      return detail::storeHost<std::uint16_t>(p, value);
    case 4:
      return detail::storeHost<std::uint32_t>(p, value);
    default:
      return detail::storeHost<std::uint64_t>(p, value);
  }
}

/// Out of line half of wroteTo(): the page is marked as code.
void reportCodeWrite(Cpu& cpu, std::uint64_t ramOffset, unsigned size);

/// wroteTo() for a pointer that is known to lie in the CPU view.
inline void wroteToCpuView(Cpu& cpu, const std::byte* pointer, unsigned size) {
  auto offset = static_cast<std::uint64_t>(pointer - cpu.memory->cpuRw());
  asm volatile("" ::: "memory");  // the mark is read after the store (the hardware's order is the marker's business)
  if (cpu.memory->codePages()[offset >> 12].load(std::memory_order_relaxed) != 0) [[unlikely]] {
    reportCodeWrite(cpu, offset, size);
  }
}

/// readLinear and writeLinear with the hit inline. `size`: 1, 2, 4 or 8.
inline bool readFast(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t& value) {
  if (const std::byte* p = tlbReadable(cpu, linear, size, currentRights(cpu))) [[likely]] {
    value = loadHost(p, size);
    return true;
  }
  return readLinear(cpu, linear, size, value);
}
inline bool writeFast(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t value) {
  if (std::byte* p = tlbWritable(cpu, linear, size, currentRights(cpu))) [[likely]] {
    storeHost(p, size, value);
    wroteToCpuView(cpu, p, size);
    return true;
  }
  return writeLinear(cpu, linear, size, value);
}

inline bool isCanonical(std::uint64_t address, unsigned linearBits) {
  unsigned shift = 64 - linearBits;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(address << shift) >> shift) == address;
}
/// Bits of a linear address that the current paging mode translates in 64-bit mode.
inline unsigned linearAddressBits(const Cpu& cpu) {
  return (cpu.state.cr4 & cr4::la57) != 0 ? 57 : 48;
}
inline bool isCanonical(const Cpu& cpu, std::uint64_t address) {
  return isCanonical(address, linearAddressBits(cpu));
}

/// linearAddress() with 64-bit mode's common case inline.
inline bool linearAddressFast(Cpu& cpu, Segment segment, std::uint64_t offset, unsigned size, Access access,
                              std::uint64_t& linear) {
  if (cpu.mode64()) [[likely]] {
    std::uint64_t address = segment >= fs ? cpu.state.segment[segment].base + offset : offset;
    if (isCanonical(cpu, address) && isCanonical(cpu, address + size - 1)) [[likely]] {
      linear = address;
      return true;
    }
  }
  return linearAddress(cpu, segment, offset, size, access, linear);
}

}  // namespace lodge::x86
