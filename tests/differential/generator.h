// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "tests/differential/snippet.h"
#include "x86/instruction.h"

namespace lodge::differential {

/// Makes snippets: random instructions of every encoding that the decoder knows, on random states whose pointers mostly
/// hit the data pages and their edges. What cannot be compared with a user process of the host is left out, and counted
/// with its reason.
class Generator {
 public:
  struct Options {
    /// Without instructions that leave arithmetic flags undefined (but AF): on the host, what they leave there may be
    /// what was there before.
    bool definedFlags;
    bool kernel;         ///< for CPL 0, in the upper half, with system instructions
    bool code32;         ///< 32-bit code
    bool code16;         ///< 16-bit code
    bool mmio;           ///< pointers to the device's page, too
    bool protectedMode;  ///< there is no 64-bit code
  };
  Generator(std::uint64_t seed, Options options)
      : state_(seed * 2 + 1),
        definedFlags_(options.definedFlags),
        kernel_(options.kernel),
        code32_(options.code32),
        code16_(options.code16),
        mmio_(options.mmio),
        protectedMode_(options.protectedMode) {}
  /// The snippet for place `slot` of a batch. Each new one (its code lies at kCodeBase + slot * kSlotBytes) is
  /// followed by the same code on other states, until `slot` is 0 again.
  Snippet next(unsigned slot);

  /// How often each mnemonic was generated, and each left-out one with why.
  const std::map<std::string, std::uint64_t>& generated() const { return generated_; }
  const std::map<std::string, std::uint64_t>& leftOut() const { return leftOut_; }

 private:
  Snippet draft(unsigned slot);
  void restate(Snippet& snippet);
  void moveToMode(Snippet& snippet);
  friend class Program;
  std::uint64_t random();
  std::uint64_t below(std::uint64_t limit) { return random() % limit; }
  bool chance(unsigned percent) { return below(100) < percent; }
  unsigned instruction(std::uint8_t (&bytes)[x86::kMaxInstructionLength]);
  unsigned legacyBytes(std::uint8_t* p);
  unsigned vexBytes(std::uint8_t* p);
  unsigned evexBytes(std::uint8_t* p);
  unsigned segmentPrefix(std::uint8_t* p);
  unsigned operandBytes(std::uint8_t* p);
  unsigned operandBytes16(std::uint8_t* p);
  void registers(Registers& r);
  std::uint64_t value();
  std::uint64_t segmentBase();
  std::uint16_t selector();
  void chooseSegments(Snippet& snippet);
  void vectorState(Registers& r);

  x86::CodeSize codeSize() const {
    return code16_ ? x86::CodeSize::bits16 : code32_ ? x86::CodeSize::bits32 : x86::CodeSize::bits64;
  }
  bool narrow() const { return code32_ || code16_; }
  void moveToLow4G(Snippet& snippet);
  void moveToSegments(Snippet& snippet);
  void moveToUpperHalf(Snippet& snippet);
  std::string_view reasonToLeaveOut(const x86::Instruction& i) const;
  bool leavesFlagsUndefined(std::uint8_t opcode) const;
  bool isWanted(const x86::Instruction& i) const;

  std::uint64_t state_;
  bool definedFlags_, kernel_, code32_, code16_, mmio_, protectedMode_;
  Snippet drafted_{};          ///< the latest new one, before moveToMode()
  unsigned statesToCome_ = 0;  ///< other states for it
  std::map<std::string, std::uint64_t> generated_, leftOut_;
};

/// Whether the host zero-extends a selector that it pushes with 32-bit operands, as AMD's processors (and Lodge) do;
/// Intel's store 16 bits (SDM vol. 2, PUSH).
bool hostExtendsSelectors();

/// Why an instruction is not compared with the host ("" if it is).
std::string_view reasonToLeaveOut(const x86::Instruction& instruction);

}  // namespace lodge::differential
