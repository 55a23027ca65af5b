// SPDX-License-Identifier: Apache-2.0
// The page walk in every paging mode (SDM vol. 3, chapter 4), for this folder's own use; others call translate().
#pragma once

#include <cstdint>

#include "x86/cpu.h"
#include "x86/tlb.h"
#include "x86/virtual_memory.h"

namespace lodge::x86 {

enum class PagingMode : std::uint8_t { none, bits32, pae, level4, level5 };

inline PagingMode pagingMode(const CpuState& state) {
  if ((state.cr0 & cr0::pg) == 0) return PagingMode::none;
  if ((state.cr4 & cr4::pae) == 0) return PagingMode::bits32;
  if ((state.efer & efer::lma) == 0) return PagingMode::pae;
  return (state.cr4 & cr4::la57) != 0 ? PagingMode::level5 : PagingMode::level4;
}

/// Bits of a physical address that the CPU model lacks, below bit 52.
std::uint64_t reservedAddressBits(const Cpu& cpu);

/// translate() for explicit rights. False: #PF is in cpu.exception.
bool walk(Cpu& cpu, std::uint64_t linear, Access access, Rights rights, PageTranslation& out);

/// Whether the access is allowed by a translation that walk() gave for another kind of access, PKRU included.
bool allows(const Cpu& cpu, const PageTranslation& page, Access access, Rights rights);

/// Loads the PDPTE registers from the table that `cr3` points to; false (and no exception, no change) if a present
/// entry has a reserved bit set: the caller raises #GP(0).
bool loadPdptes(Cpu& cpu, std::uint64_t cr3);

/// Where a store to RAM at `offset` must go: the CPU view, or the device view for pages that hold translated code (the
/// engine may have write-protected those). wroteTo() follows the store.
inline std::byte* ramPointerForWrite(Cpu& cpu, std::uint64_t offset) {
  bool code = cpu.memory->codePages()[offset >> 12].load(std::memory_order_relaxed) != 0;
  return (code ? cpu.memory->deviceView() : cpu.memory->cpuRw()) + offset;
}

/// A paging-structure entry or other physical operand: bus reads of what is not RAM give all ones.
std::uint64_t readPhysical(Cpu& cpu, std::uint64_t gpa, unsigned size);

}  // namespace lodge::x86
