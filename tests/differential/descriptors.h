// SPDX-License-Identifier: Apache-2.0
// The descriptor tables that code in the host's processes runs with, so that guests can have the same: what a jump
// astray loads from them, or asks with LAR, LSL, VERR and VERW, must be the same.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "tests/differential/snippet.h"
#include "tests/halting_guest.h"

namespace lodge::differential {

/// Linux' GDT: beside the user's segments and the TSS, the LDT, and the last one, whose limit tells the CPU's number.
using halting_guest::kTr, halting_guest::kUserCs, halting_guest::kUserCs32, halting_guest::kUserSs;
inline constexpr std::uint16_t kLdtr = 0x50, kCpuNumber = 0x7b;
inline constexpr unsigned kGdtEntries = 16;
/// Of the segments16().
inline constexpr std::uint32_t kLdtBytes = (kBatch + 2) * 8;

/// The descriptors of the host's GDT that user code can see, with base 0 (LAR and LSL tell all but the base); 0 for
/// the others. Asked for once: the last one differs between CPUs. An Oracle's child stays on the CPU that was asked.
const std::array<std::uint64_t, kGdtEntries>& visibleGdt();

/// Whether a null selector leaves the base of FS or GS as it was (AMD before Zen 2; Linux: X86_BUG_NULL_SEG). Only for
/// hosts with FSGSBASE.
bool hostKeepsNullBases();

/// Whether LAR gives bits 19:16 of the limit, as engines do; SDM vol. 2 has them undefined.
bool hostLarShowsLimit();

/// Keeps the calling thread, and what it forks meanwhile, on the CPU on which it is.
class StayOnCpu {
 public:
  StayOnCpu();
  ~StayOnCpu();
  StayOnCpu(const StayOnCpu&) = delete;
  StayOnCpu& operator=(const StayOnCpu&) = delete;
  /// False: the host does not let it.
  bool stays() const { return stays_; }

 private:
  std::vector<unsigned long> before_;  ///< the CPUs that it may use, a bit each
  bool stays_ = false;
};

/// The LDT in which the host's process has the segments of 16-bit code, as Linux' modify_ldt makes its descriptors.
std::vector<std::uint64_t> segments16();

/// Makes segments16() this process's LDT. False: the host's kernel does not let it.
bool installSegments16();

}  // namespace lodge::differential
