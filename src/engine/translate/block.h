// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "engine/translate/mode_key.h"
#include "x86/instruction.h"

namespace lodge::translate {

/// What becomes of one guest instruction.
enum class Treatment : std::uint8_t {
  generic,    ///< same opcode, registers and memory operand replaced
  special,    ///< a rewrite of its own
  system,     ///< one too, for an instruction that changes more than registers and memory; no group goes across
  interpret,  ///< call-out to the interpreter, then on in the same block if nothing changed
};

struct GuestInstruction {
  x86::Instruction decoded;
  const std::uint8_t* bytes;
  std::uint16_t offset;  ///< from the start of the block's page
  Treatment treatment;
  bool endsBlock;
  bool changesKey;        ///< STAC or CLAC: code goes on at the next instruction, but under another ModeKey
  bool isLabel;           ///< a branch in the block, or a return, leads here
  bool crossesPage;       ///< its bytes go on in the next page: the last of the block
  std::uint32_t liveIn;   ///< arithmetic flags that somebody may read before they are overwritten, before and
  std::uint32_t liveOut;  ///< after the instruction
};

/// A superblock: straight code of one page, with conditional branches out of it, and within it, and calls.
struct Block {
  static constexpr unsigned kMaxInstructions = 64;
  std::uint64_t page;     ///< linear; 0 if shared
  bool isShared = false;  ///< runs at any linear address
  ModeKey key;
  unsigned count = 0;
  bool goesOnAfterCalls = false;  ///< with what they return to
  std::uint64_t dependsOn = 0;    ///< which 64-byte pieces of the page were looked at for its sake
  std::array<GuestInstruction, kMaxInstructions> instructions;
  std::uint64_t nextTable = 0;          ///< the entry table of the page that the last instruction goes on in
  std::array<std::uint8_t, 16> joined;  ///< the bytes of an instruction that crosses the page's end

  /// One bit for each offset in the page: accesses of the instruction there have often been misaligned. Or null.
  const std::uint64_t* misaligned = nullptr;

  bool isMisaligned(unsigned offset) const {
    return misaligned && offset < 4096 && (misaligned[offset >> 6] >> (offset & 63) & 1) != 0;
  }
  bool crossesPage() const { return count != 0 && instructions[count - 1].crossesPage; }
  std::uint64_t rip(const GuestInstruction& i) const { return page + i.offset; }
  std::uint64_t nextRip(const GuestInstruction& i) const { return key.wrap(page + i.offset + i.decoded.length); }
  /// Index of the instruction at `rip`, or -1.
  int indexOf(std::uint64_t rip) const;
};

/// Decodes from `offset` in the page whose bytes are at `bytes` (4096 of them). `next`: those of the next linear page,
/// or null if it is not known: then an instruction that goes on there is the interpreter's.
void decodeBlock(Block& block, const std::uint8_t* bytes, std::uint64_t page, unsigned offset, ModeKey key,
                 std::uint64_t features, const std::uint8_t* next = nullptr);

/// The part of decodeBlock() that concerns one instruction: fills in all but liveness and isLabel. False: cannot be
/// translated.
bool decodeOne(GuestInstruction& i, const std::uint8_t* bytes, unsigned offset, ModeKey key, std::uint64_t features);

/// Whether the CPU's mode lets the vector or x87 instruction execute (anything else: true).
bool vectorAllowed(const x86::Instruction& i, ModeKey key);

/// Bits of 64-byte pieces of a page that [offset, offset+length) touches.
std::uint64_t granulesOf(unsigned offset, unsigned length);

/// Target of a direct branch (JMP, CALL, Jcc, LOOP, JCXZ).
std::uint64_t branchTarget(const Block& block, const GuestInstruction& i);

}  // namespace lodge::translate
