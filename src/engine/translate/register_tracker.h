// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "x86/instruction.h"

namespace lodge::translate {

/// A sum of two registers' values at the start of the tracking.
struct RegisterPair {
  std::uint8_t base, index, scale;
  bool operator==(const RegisterPair&) const = default;
};

/// What a register holds, or where an access goes: an origin plus a constant.
struct TrackedValue {
  static constexpr std::uint8_t kUnknown = 0xff;
  std::uint8_t origin;  ///< a register's value at the start of the tracking, a pair (from kRegisters on), or kUnknown
  std::int64_t offset;  ///< bytes
};

struct TrackedAccess {
  bool present = false;
  TrackedValue value{};  ///< of the first byte's address
  std::uint16_t bytes = 0;
  bool write = false;
};

/// Follows register values through straight code. All accesses that it relates to each other must be executed in one go
/// from its start on.
class RegisterTracker {
 public:
  static constexpr unsigned kRegisters = 16, kPairs = 8, kOrigins = kRegisters + kPairs;
  /// `wordBytes`: of the code, 4 or 8.
  explicit RegisterTracker(unsigned wordBytes) : word_(static_cast<std::uint8_t>(wordBytes)) {
    for (std::uint8_t r = 0; r < kRegisters; ++r) now_[r] = {r, 0};
  }
  /// The access of the memory operand; absent where the address is not a known sum.
  TrackedAccess operandAccess(const x86::Instruction& i);
  /// Whether operandAccess() may be present at all.
  bool mayTrack(const x86::Instruction& i) const;
  /// The implicit access off RSP (or RBP) of PUSH, POP, CALL, RET, LEAVE.
  TrackedAccess stackAccess(const x86::Instruction& i) const;
  void update(const x86::Instruction& i);
  TrackedValue valueOf(unsigned r) const { return now_[r]; }
  const RegisterPair& pair(unsigned origin) const { return pairs_[origin - kRegisters]; }

 private:
  TrackedValue address(const x86::Instruction& i);
  bool copies(const x86::Instruction& i);
  bool mayWrap(const x86::Instruction& i) const;
  std::uint8_t word_;
  std::array<TrackedValue, kRegisters> now_;
  std::array<RegisterPair, kPairs> pairs_;
  unsigned pairCount_ = 0;
};

}  // namespace lodge::translate
