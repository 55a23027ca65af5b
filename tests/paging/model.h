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
  bool ok = false, global = false, large = false;
  std::uint64_t errorCode = 0, gpa = 0;
  unsigned levels = 0;                   ///< entries that were read
  std::array<std::uint64_t, 4> slots{};  ///< their addresses
};

/// One vCPU's control state and cached translations.
struct CpuModel {
  unsigned space = 0;
  bool pcide = false, pge = true, wp = true, smep = false, smap = false;

  explicit CpuModel(bool withPcids);
  unsigned pcid(unsigned ofSpace) const { return pcide ? ofSpace + 1 : 0; }
  std::uint64_t cr0() const;
  std::uint64_t cr4() const;

  /// By page (pageAt()).
  struct Stale {
    std::array<bool, kSpaces + 1> local{};  ///< by PCID
    bool global = false, large = false;     ///< large: the outdated one was a 2 MiB page
  };
  std::vector<Stale> stale;
  bool needsFlush(unsigned page) const { return stale[page].local[pcid(space)] || stale[page].global; }
  void flushed(unsigned page, bool globalToo, unsigned ofPcid);  ///< INVLPG, INVPCID type 0
  void flushedPcid(unsigned ofPcid);
  void flushedLocal();
  void flushedAll();
};

/// The pages in use, in order; adjacent ones follow each other.
const std::vector<std::uint64_t>& pages();
/// The index of the page with a linear address; -1 if it is not in use.
int pageAt(std::uint64_t linear);

Walk walk(const Machine& machine, const CpuModel& cpu, std::uint64_t linear, Kind kind, bool user, bool accessCheckOff);
/// Before `slot` (of `level`) changes from `before`: who may have what it gave.
void markStale(const Machine& machine, CpuModel& cpu, std::uint64_t slot, int level, std::uint64_t before);

}  // namespace lodge::paging
