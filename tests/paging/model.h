// SPDX-License-Identifier: Apache-2.0
// What the SDM (vol. 3, 4.5-4.7, 4.10) says of an access, by a walk of the tables and nothing else; and which cached
// translations may be out of date.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tests/paging/machine.h"

namespace lodge::paging {

enum class Kind : std::uint8_t { read, write, execute };

struct Walk {
  bool ok = false, global = false;
  bool outside = false;  ///< an entry that is none of the tables': CR4.PSE is clear, and a PDE is for 4 MiB
  std::uint64_t errorCode = 0, gpa = 0;
  unsigned levels = 0;                   ///< entries that were read
  std::array<std::uint64_t, 4> slots{};  ///< their addresses
};

/// One vCPU's control state and cached translations.
struct CpuModel {
  Paging paging;
  unsigned space = 0;
  bool pcide, pke, pge = true, wp = true, smep = false, smap = false, pse;
  std::uint32_t pkru = 0;
  std::array<std::uint64_t, 4> pdpte{};  ///< PAE: as MOV to CR3 and to CR4 loaded them (SDM vol. 3, 4.4.1)

  CpuModel(const Machine& machine, const MachineKind& kind);
  unsigned pcid(unsigned ofSpace) const { return pcide ? ofSpace + 1 : 0; }
  std::uint64_t cr0() const;
  std::uint64_t cr4() const;

  /// By page (Layout::pageAt()).
  struct Stale {
    std::array<bool, kSpaces + 1> local{};  ///< by PCID
    bool global = false;
    std::uint64_t size = kPageSize;  ///< of the smallest page that is outdated
  };
  std::vector<Stale> stale;
  bool needsFlush(unsigned page) const { return stale[page].local[pcid(space)] || stale[page].global; }
  void flushed(unsigned page, bool globalToo, unsigned ofPcid);  ///< INVLPG, INVPCID type 0
  void flushedPcid(unsigned ofPcid);
  void flushedLocal();
  void flushedAll();

 private:
  const Layout& layout_;
};

Walk walk(const Machine& machine, const CpuModel& cpu, std::uint64_t linear, Kind kind, bool user, bool accessCheckOff);
/// Before `slot` (of `level`) changes from `before`: who may have what it gave.
void markStale(const Machine& machine, CpuModel& cpu, std::uint64_t slot, int level, std::uint64_t before);
/// Whether MOV to CR3 takes a PAE root; else it is #GP.
bool pdptesValid(const Machine& machine, unsigned space);
/// What such a MOV loads. What the entries before gave may be cached still.
void loadPdptes(const Machine& machine, CpuModel& cpu);

}  // namespace lodge::paging
