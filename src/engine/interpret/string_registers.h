// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "engine/interpret/operands.h"

namespace lodge::interpret {

/// rSI, rDI and rCX of a string instruction, in its address size. Word-sized ones leave the rest of the register,
/// doublewords clear it.
class StringRegisters {
 public:
  StringRegisters(Cpu& cpu, const Decoded& d) : cpu_(cpu), mask_(d.addressMask) {}

  std::uint64_t si() const { return cpu_.state.gpr[x86::rsi] & mask_; }
  std::uint64_t di() const { return cpu_.state.gpr[x86::rdi] & mask_; }
  std::uint64_t count() const { return cpu_.state.gpr[x86::rcx] & mask_; }
  void setCount(std::uint64_t count) { set(x86::rcx, count); }

  /// One element up or down, by DF.
  std::int64_t step(unsigned bytes) const {
    return (cpu_.state.rflags & x86::flag::df) != 0 ? -static_cast<std::int64_t>(bytes)
                                                    : static_cast<std::int64_t>(bytes);
  }
  void advance(bool source, bool target, std::int64_t bytes) {
    if (source) set(x86::rsi, cpu_.state.gpr[x86::rsi] + static_cast<std::uint64_t>(bytes));
    if (target) set(x86::rdi, cpu_.state.gpr[x86::rdi] + static_cast<std::uint64_t>(bytes));
  }
  /// Whether [offset, offset+bytes) passes the end of the offset's range.
  bool wraps(std::uint64_t offset, std::uint64_t bytes) const { return offset + bytes - 1 > mask_; }

 private:
  void set(x86::Gpr reg, std::uint64_t value) {
    std::uint64_t& r = cpu_.state.gpr[reg];
    r = mask_ == 0xffff ? (r & ~mask_) | (value & mask_) : value & mask_;
  }

  Cpu& cpu_;
  std::uint64_t mask_;
};

}  // namespace lodge::interpret
