// SPDX-License-Identifier: Apache-2.0
// How this folder fills and clears Cpu's own TLB; the lookups are in x86/tlb.h.
#pragma once

#include <cstdint>

#include "x86/tlb.h"
#include "x86/virtual_memory.h"

namespace lodge::x86 {

/// Enters a page of RAM at `hostPage` (CPU view) for the access that translated it, and for reads after a write.
/// `writable`: stores may hit, too (allowed, dirty, no code).
void fillTlb(Cpu& cpu, std::uint64_t linear, Access access, Rights rights, const PageTranslation& page,
             std::byte* hostPage, bool writable);

void clearTlbButGlobal(Cpu& cpu);
void clearTlbPage(Cpu& cpu, std::uint64_t linear);

/// One page's worth of an access, translated.
struct ResolvedPage {
  Gpa gpa;  ///< of the first byte
  std::byte*
      host;  ///< of the first byte, fit for the access (code pages are written in the device view); null: not RAM
};
/// Translates, and fills the TLB where that is allowed. False: #PF is in cpu.exception.
bool resolvePage(Cpu& cpu, std::uint64_t linear, Access access, Rights rights, ResolvedPage& out);

/// The accesses of virtual_memory.h with explicit rights (delivery of events acts for another CPL than the current
/// one).
bool readAs(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t& value, Rights rights);
bool writeAs(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t value, Rights rights);
bool probeAs(Cpu& cpu, std::uint64_t linear, unsigned size, Access access, Rights rights);

/// Accesses to system structures (descriptor tables, TSS).
inline bool readSystem(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t& value) {
  return readAs(cpu, linear, size, value, Rights::supervisor);
}
inline bool writeSystem(Cpu& cpu, std::uint64_t linear, unsigned size, std::uint64_t value) {
  return writeAs(cpu, linear, size, value, Rights::supervisor);
}

}  // namespace lodge::x86
