// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>

#include "tests/differential/generator.h"

namespace lodge::differential {

/// Writes longer snippets that look like compiled code: most memory operands are off a few registers that hold good
/// pointers, there are loops, calls, jumps of every kind, runs of pushes and pops, stack frames, string instructions,
/// and code that changes itself. What the translator does specially is in them: shared probes, links, code maps.
class Program {
 public:
  Program(Generator& from, Snippet& to, unsigned slot)
      : from_(from), to_(to), slot_(slot), size_(from.codeSize()), registers_(wide() ? 16 : 8) {}
  void write();

 private:
  using Register = std::uint8_t;
  std::uint64_t below(std::uint64_t limit) { return from_.below(limit); }
  bool chance(unsigned percent) { return from_.chance(percent); }
  Register pointer();
  void chooseRegisters();
  void chooseNarrow();
  void point(unsigned n);
  /// Whether stores to the code must be avoided but those of patch(): they could make any instruction.
  bool mindsStores() const { return to_.inPatchArea || from_.kernel_; }

  // Bytes.
  void byte(std::uint64_t b) { to_.code[to_.length++] = static_cast<std::uint8_t>(b); }
  void dword(std::uint64_t d);
  /// An immediate or a displacement of the code's own size: 4 bytes, or 2 in 16-bit code.
  void word(std::uint64_t w);
  unsigned wordBytes() const { return size_ == x86::CodeSize::bits16 ? 2 : 4; }
  /// A REX prefix, where there are such.
  void rex(unsigned bits) {
    if (wide()) byte(0x40 | bits);
  }
  bool wide() const { return size_ == x86::CodeSize::bits64; }
  bool short16() const { return size_ == x86::CodeSize::bits16; }
  bool room(unsigned bytes) const { return to_.length + bytes < kSlotBytes - kTail; }
  /// A place that waits for an address in the snippet: relative to somewhere, or as the code sees it.
  struct Place {
    unsigned end, size;      ///< of the field
    std::uint64_t negative;  ///< what is taken from the offset in the snippet
  };
  void fill(const Place& place, std::uint64_t offset);
  void jumpHere(unsigned displacementEnd, unsigned size) { fill({displacementEnd, size, displacementEnd}, to_.length); }
  void jumpHere(const Place& place) { fill(place, to_.length); }
  std::uint64_t codeStart() const;
  void moveImmediate(Register r, std::uint32_t value);
  Place leaCode(Register r);
  void leaData(Register r);
  unsigned ownCodeOperand(std::uint8_t* p, std::uint8_t reg);
  unsigned operand16(std::uint8_t* p, std::uint8_t reg, Register base, Register index);
  void nearOperand(unsigned reg, Register base, std::uint64_t displacement);

  // One instruction.
  void focused();
  unsigned legacyCandidate(std::uint8_t* p);
  unsigned vexCandidate(std::uint8_t* p);
  unsigned operand(std::uint8_t* p, std::uint8_t reg, Register base, Register index, bool isMemory);
  static bool isPlain(const x86::Instruction& i);
  bool acceptable(const x86::Instruction& i);
  void anyInstruction();

  // Several.
  void item(unsigned depth);
  void forwardBranch(unsigned depth);
  void loop(unsigned depth);
  void step(Register r, std::int8_t by);
  void stream();
  void callLeaf(unsigned depth);
  void indirectJump();
  void pushesAndPops();
  void frame(unsigned depth);
  void segmentPrefix();
  void strings();
  void patch();
  void bitString();
  void flags();
  void fields();

  // program_segments.cpp: at CPL 3.
  void segments();
  std::uint16_t ownCode() const;
  std::uint16_t otherCode();
  void pushImmediate(std::uint32_t value);
  void loadSegment();
  void pushAndPopSegment();
  void queryDescriptor();
  void farPointer();
  void farTransfer();
  void userReturn();

  // program_system.cpp: at CPL 0.
  void system();
  void bytes(std::initializer_list<unsigned> list);
  void interruptFlag();
  void accessCheck();
  void segmentBases();
  void controlRegister();
  void modelRegister();
  void invalidate();
  void moveImmediate64(Register r, std::uint64_t value);
  void changeMapping();
  void segmentRegister();
  void interruptReturn(bool toUser);
  void systemReturn();
  void debugRegisters();
  void portOrCpuid();

  // program_system32.cpp: at CPL 0 in protected mode.
  void system32();
  void flagsOfInterrupts();
  void controlRegister32();
  void changeMapping32();
  void transfer32();

  /// While fields() writes: the one base, and perhaps index, of all memory operands.
  struct Fixed {
    bool on = false, indexed = false;
    Register base = 0;
    unsigned scale = 0;
  } fixed_;
  bool plain_ = false;  ///< ordinary instructions pass isPlain()
  static constexpr unsigned kTail = 40;
  Generator& from_;
  Snippet& to_;
  unsigned slot_;
  x86::CodeSize size_;
  unsigned registers_;  ///< that there are
  unsigned pointerCount_ = 5;
  std::uint16_t kept_ = 0;  ///< registers that ordinary instructions should leave alone: pointers, counter, index
  Register pointers_[5] = {}, counter_ = 0, index_ = 0, spare_ = 0;
};

}  // namespace lodge::differential
