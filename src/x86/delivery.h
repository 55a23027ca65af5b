// SPDX-License-Identifier: Apache-2.0
// Delivery of one exception or interrupt (SDM vol. 3, chapter 6), for this folder's own use.
#pragma once

#include <cstdint>

#include "x86/cpu.h"
#include "x86/tlb.h"

namespace lodge::x86 {

struct Event {
  std::uint8_t vector;
  bool software;  ///< INT n, INT3, INTO: the gate's DPL is checked; error codes have EXT = 0
  bool hasErrorCode;
  std::uint32_t errorCode;
  std::uint64_t returnRip;
  std::uint64_t flags;  ///< RFLAGS image to be pushed
  std::uint32_t ext() const { return software ? 0 : 1; }
};

/// Through the IDT of the current mode. False: another exception is in cpu.exception and nothing else changed.
bool deliverEvent(Cpu& cpu, const Event& event);
bool deliverReal(Cpu& cpu, const Event& event);
bool deliverProtected(Cpu& cpu, const Event& event);
bool deliverLong(Cpu& cpu, const Event& event);

/// INT n in virtual-8086 mode: the IOPL check and CR4.VME's redirection (SDM vol. 3, 20.3). `handled`: it was
/// redirected to the 8086 program's own handler; otherwise it goes through the IDT.
bool virtual8086Interrupt(Cpu& cpu, std::uint8_t vector, std::uint64_t nextRip, bool& handled);

/// Error code of an IDT entry.
inline std::uint32_t idtCode(const Event& event) {
  return event.vector * 8u + 2 + event.ext();
}

/// What every delivery does at its end. `interruptGate`: IF is cleared.
void enterHandler(Cpu& cpu, bool interruptGate);

/// An inner stack from the TSS of protected mode, checked (SDM vol. 2, CALL and INT: #TS and #SS with the new SS).
bool innerStack(Cpu& cpu, unsigned dpl, std::uint32_t ext, SegmentRegister& stack, std::uint64_t& pointer);
/// A stack pointer of the 64-bit TSS: `offset` 4 + 8 * CPL, or 0x24 + 8 * (IST - 1).
bool longModeStack(Cpu& cpu, unsigned offset, std::uint32_t ext, std::uint64_t& pointer);

/// A frame that is pushed whole or not at all, on a stack that need not be the current one.
class StackFrame {
 public:
  /// `rights`: of the privilege level that the stack belongs to. `slot`: bytes a push. `flat64`: no segment, canonical
  /// check.
  StackFrame(Cpu& cpu, const SegmentRegister& stack, std::uint64_t pointer, unsigned slot, bool flat64, Rights rights)
      : cpu_(cpu), stack_(stack), start_(pointer), pointer_(pointer), slot_(slot), flat64_(flat64), rights_(rights) {}

  void push(std::uint64_t value);
  /// Checks every slot, then writes. False: #SS(faultCode) or #PF.
  bool commit(std::uint32_t faultCode);
  /// RSP, ESP or SP after the pushes; upper bits as the old pointer's where the stack is 16 bits wide.
  std::uint64_t pointer() const { return pointer_; }

 private:
  static constexpr unsigned kMaxSlots = 40;
  std::uint64_t below(std::uint64_t pointer) const;
  bool linear(std::uint64_t offset, std::uint64_t& address) const;

  Cpu& cpu_;
  const SegmentRegister& stack_;
  std::uint64_t start_, pointer_;
  unsigned slot_;
  bool flat64_;
  Rights rights_;
  unsigned count_ = 0;
  std::uint64_t values_[kMaxSlots];
};

}  // namespace lodge::x86
