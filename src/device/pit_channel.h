// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "x86/chip_registers.h"

namespace lodge {

/// One counter of an 8254 (Intel 82C54 data sheet): its registers and, from the time since it was loaded, its count and
/// output. Has no lock and no timer; Pit has both. Time is counted in ticks of the chip's clock since the machine's
/// start.
///
/// It takes no clock to load a count, where the chip takes one; and a count written to a counter that runs in mode 2 or
/// 3 becomes valid at the end of the whole period (the chip: of the half period in mode 3).
class PitChannel {
 public:
  static constexpr std::uint64_t kHz = 1'193'182;
  using Ticks = std::uint64_t;

  /// Control word bits 5..0: access (1 low, 2 high, 3 both bytes), mode, BCD. Access 0 is latch().
  void setControl(std::uint8_t control, Ticks now);
  void latchCount(Ticks now);
  void latchStatus(Ticks now);
  void write(std::uint8_t value, Ticks now);
  std::uint8_t read(Ticks now);
  void setGate(bool gate, Ticks now);
  bool gate() const { return state_.gate; }
  bool output(Ticks now) const;

  /// Takes a count over whose time has come. The other functions do it themselves; the owner at each rise.
  void adopt(Ticks now);
  /// When the output rises next after `now`; nothing if it does not unless the guest does something.
  std::optional<Ticks> nextRise(Ticks now) const;
  unsigned mode() const { return state_.mode; }

  using State = x86::PitCounter;
  const State& state() const { return state_; }
  void restore(const State& state) { state_ = state; }

 private:
  /// How far the count has come.
  Ticks passed(Ticks now) const { return state_.elapsed + (state_.counting ? now - state_.since : 0); }
  /// When it will have come that far.
  Ticks timeOf(Ticks count) const { return state_.since + count - state_.elapsed; }
  std::uint16_t value(Ticks now) const;
  void load(std::uint32_t count, Ticks now);
  void restart(Ticks now);
  bool periodic() const { return state_.mode == 2 || state_.mode == 3; }
  bool triggered() const { return state_.mode == 1 || state_.mode == 5; }

  State state_;
};

}  // namespace lodge
