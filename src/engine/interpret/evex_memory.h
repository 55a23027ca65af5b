// SPDX-License-Identifier: Apache-2.0
// Memory operands of EVEX instructions with a mask: elements that are masked are not accessed.
#pragma once

#include "engine/interpret/context.h"
#include "x86/system.h"

namespace lodge::interpret {

/// VMASKMOV and gathers raise no #AC (SDM vol. 2, exceptions type 6 and 12): AC does not count while one lives.
class NoAlignmentCheck {
 public:
  explicit NoAlignmentCheck(Cpu& cpu) : cpu_(cpu), held_(cpu.state.cpl == 3 ? cpu.state.rflags & x86::flag::ac : 0) {
    cpu_.state.rflags &= ~held_;
  }
  ~NoAlignmentCheck() { cpu_.state.rflags |= held_; }
  NoAlignmentCheck(const NoAlignmentCheck&) = delete;
  NoAlignmentCheck& operator=(const NoAlignmentCheck&) = delete;

 private:
  Cpu& cpu_;
  std::uint64_t held_;
};

/// An instruction that runs natively, on a memory operand of which a part may not be accessible: element by element.
/// State was checked. Without any element that is accessed, misaligned memory is no fault either (so on AMD's).
Outcome maskedElements(Cpu& cpu, const Decoded& d);

/// VPCOMPRESS and VPEXPAND in memory, with a mask: as many elements as it has bits.
Outcome runPacked(Cpu& cpu, const Decoded& d);

/// Gathers and scatters with a mask register.
Outcome gatherByMask(Cpu& cpu, const Decoded& d);
Outcome scatterByMask(Cpu& cpu, const Decoded& d);

}  // namespace lodge::interpret
