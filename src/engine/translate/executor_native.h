// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <unordered_map>

#include "x86/cpu.h"

namespace lodge::translate {

/// Whether user code of this page gives on the host's processor, in an executor, what it gives on the guest's, system
/// calls and faults aside: there is none of the instructions that answer for the host (CPUID, RDPID, LSL, VMCALL...)
/// in it, in any way in which its bytes can be read as instructions from some bytes earlier on. `before`, `next`: the
/// pages around it, or null. `timeStamps`: the guest's time stamp counter is the host's.
bool runsAsItIs(const std::uint8_t* before, const std::uint8_t* page, const std::uint8_t* next, bool timeStamps);

/// runsAsItIs(), whose answers are kept by what the pages hold: the same libraries are in many programs. A guest that
/// finds two pages with one digest has a program of its own see the host's processor.
class PageVerdicts {
 public:
  bool runsAsItIs(const std::uint8_t* before, const std::uint8_t* page, const std::uint8_t* next, bool timeStamps);

 private:
  static constexpr std::size_t kMost = 20'000;
  std::unordered_map<std::uint64_t, bool> known_;
};

/// Whether programs of a guest with this CPU may run on the host's as they are: the two have the same features and
/// vector state.
bool mayRunNatively(const x86::CpuModel& model);

}  // namespace lodge::translate
