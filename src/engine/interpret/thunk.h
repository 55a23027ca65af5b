// SPDX-License-Identifier: Apache-2.0
// Native execution of vector, MMX and x87 instructions. Each distinct instruction is rewritten once into a small
// routine whose memory operand is [rdi] and whose general-register operand is rax, and run with guest vector state live
// in the host's registers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "x86/instruction.h"

namespace lodge::interpret {

struct Context;

/// An instruction in the form that a thunk executes: equal bytes, equal thunk.
struct CanonicalBytes {
  std::uint8_t bytes[16];  ///< zero-padded; the last one holds the length
  bool operator==(const CanonicalBytes&) const = default;
};
CanonicalBytes canonicalForm(const x86::Instruction& insn);

/// General-register operands, by pointer: [0] RAX in and out, [1] RDX in, [2] RCX out (the latter two for PCMPxSTRx).
using ThunkEntry = std::uint64_t (*)(void* memory, std::uint64_t* registers, std::uint64_t* flags);

enum class ThunkGpr : std::uint8_t { none, reg, rm, implicit };

/// What goes with a thunk's code.
struct Thunk {
  CanonicalBytes key;
  ThunkEntry entry;     ///< returns 0, or the vector of the floating-point exception that the instruction raised
  std::uint16_t bytes;  ///< of the memory operand; 0: none
  bool reads, writes;   ///< the memory operand
  bool aligned;         ///< it must be aligned to its size
  bool bounce;          ///< FNSTENV, FNSAVE: what is stored needs correction; stored in the 32-bit format
  bool alignCopy;       ///< a host may fault on a misaligned operand though the guest must not: copy it
  bool usesFlags;
  bool gprRead, gprWritten;
  ThunkGpr gpr;
  bool waits;            ///< takes a pending x87 exception before anything else
  bool recordsPointers;  ///< an x87 instruction that sets the last-instruction pointers
  bool clearsPointers;   ///< FNINIT, FNSAVE
  bool loadsPointers;    ///< FLDENV, FRSTOR
};

/// One vCPU's thunks: a bounded table and a bounded piece of executable memory, mapped twice (writable here, executable
/// there). When either is full, all are dropped, and with them the decoded instructions that name them. Created and
/// destroyed by ordinary code; find() runs with vector state live.
class ThunkCache {
 public:
  static constexpr unsigned kSlots = 4096, kSlotBytes = 64, kReserved = 1;

  /// The thunk for `insn`. May drop all others first.
  const Thunk* find(const x86::Instruction& insn);

 private:
  friend class ContextOwner;
  void reset();
  const Thunk* make(const x86::Instruction& insn, const CanonicalBytes& key, unsigned bucket);

  std::byte* writable_ = nullptr;
  std::byte* executable_ = nullptr;
  unsigned used_ = 0;
  Context* owner_ = nullptr;
  Thunk thunks_[kSlots];
  std::uint16_t buckets_[2 * kSlots];  ///< open addressing: thunk number + 1
};

/// The part of a thunk that a SIGFPE handler needs: if `ip` lies in any vCPU's thunks, where to go on with the
/// exception's vector in RAX; else null.
void* thunkFaultExit(std::uint64_t ip);

}  // namespace lodge::interpret
