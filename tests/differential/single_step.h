// SPDX-License-Identifier: Apache-2.0
// Every fault precise: translated code is run one host instruction at a time.
#pragma once

#include <cstdint>
#include <string>

#include "tests/differential/guest.h"

namespace lodge::translate {
struct VcpuContext;
}

namespace lodge::differential {

/// Runs a snippet on the translator with the host's trap flag set. At each host instruction of translated code, the
/// guest's state is rebuilt from the code's records as a fault there would have it, and must be the state that another
/// guest, which the interpreter steps, has before or after the guest instruction: registers, flags, vector state, data.
/// Records that say "committing" promise no state, but that another record follows soon.
class SingleStepper {
 public:
  /// `guest` is on the translator (with strict-flags), `reference` on the interpreter; both at the same privilege.
  SingleStepper(Guest& guest, Guest& reference);
  ~SingleStepper();
  /// What was wrong first; "" if nothing was.
  std::string run(const Snippet& snippet);
  std::uint64_t hostInstructions() const { return hostInstructions_; }
  std::uint64_t comparisons() const { return comparisons_; }

 private:
  static void onStep(translate::VcpuContext& context, const x86::CpuState* state, const void* frame, void* self);
  void step(translate::VcpuContext& context, const x86::CpuState* state, const void* frame);
  void repeatAsOften();
  std::string compare(translate::VcpuContext& context);

  Guest& guest_;
  Guest& reference_;
  std::uint64_t hostInstructions_ = 0, comparisons_ = 0;
  unsigned committing_ = 0;        ///< in a row
  std::uint64_t interpreted_ = 0;  ///< by the guest, when it was looked at last
  std::uint64_t steps_ = 0;        ///< of this snippet
  bool had32_ = false;             ///< 32-bit code has run in this snippet
  std::string wrong_;
  x86::CpuState state_{};
};

}  // namespace lodge::differential
