// SPDX-License-Identifier: Apache-2.0
#include "device/pit_channel.h"

#include <utility>

namespace lodge {

namespace {
std::uint16_t toBcd(std::uint32_t v) {
  return static_cast<std::uint16_t>(v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12);
}
std::uint32_t fromBcd(std::uint16_t v) {
  return (v & 15u) + (v >> 4 & 15u) * 10 + (v >> 8 & 15u) * 100 + (v >> 12) * 1000u;
}
}  // namespace

void PitChannel::restart(Ticks now) {
  state_.elapsed = 0;
  state_.since = now;
}

/// Modes 2 and 3 take a new count over at the end of the period in which it was written.
void PitChannel::adopt(Ticks now) {
  if (!periodic() || state_.nextCount == 0 || !state_.counting || passed(now) < state_.count) return;
  Ticks turn = timeOf(state_.count);
  state_.count = std::exchange(state_.nextCount, 0);
  restart(turn);
}

void PitChannel::setControl(std::uint8_t control, Ticks now) {
  bool gate = state_.gate;
  state_ = State{};
  state_.gate = gate;
  state_.access = control >> 4 & 3;
  state_.mode = control >> 1 & 7;
  if (state_.mode > 5) state_.mode &= 3;  // "don't care" bits
  state_.bcd = (control & 1) != 0;
  state_.count = state_.bcd ? 10000 : 0x10000;
  restart(now);
}

void PitChannel::load(std::uint32_t count, Ticks now) {
  if (count == 0) count = state_.bcd ? 10000 : 0x10000;
  if (triggered() || (periodic() && state_.loaded)) {
    state_.nextCount = count;
    state_.loaded = true;
    // So that adopt() finds the end of this period.
    if (periodic() && state_.counting) restart(timeOf(passed(now) / state_.count * state_.count));
    return;
  }
  state_.count = count;
  state_.loaded = true;
  state_.counting = state_.gate;
  restart(now);
}

void PitChannel::write(std::uint8_t byte, Ticks now) {
  adopt(now);
  auto decode = [this](std::uint16_t v) { return state_.bcd ? fromBcd(v) : std::uint32_t{v}; };
  if (state_.access == 1) return load(decode(byte), now);
  if (state_.access == 2) return load(decode(static_cast<std::uint16_t>(byte << 8)), now);
  if (!state_.highByteNext) {
    state_.lowByte = byte;
    state_.highByteNext = true;
    if (state_.mode == 0) {  // "writing the first byte disables counting; OUT is set low immediately"
      state_.elapsed = 0;
      state_.counting = state_.loaded = false;
    }
    return;
  }
  state_.highByteNext = false;
  load(decode(static_cast<std::uint16_t>(byte << 8 | state_.lowByte)), now);
}

void PitChannel::setGate(bool gate, Ticks now) {
  adopt(now);
  if (gate == state_.gate) return;
  state_.gate = gate;
  if (!state_.loaded) return;
  if (gate) {
    state_.since = now;
    state_.counting = true;
    if (!periodic() && !triggered()) return;  // modes 0 and 4 count on, the others begin again
    if (state_.nextCount != 0) state_.count = std::exchange(state_.nextCount, 0);
    restart(now);
  } else if (!triggered()) {
    state_.elapsed = passed(now);
    state_.counting = false;
  }
}

std::uint16_t PitChannel::value(Ticks now) const {
  Ticks done = passed(now);
  std::uint32_t modulus = state_.bcd ? 10000 : 0x10000;
  std::uint64_t left = 0;
  if (state_.mode == 2) {
    left = state_.count - done % state_.count;
  } else if (state_.mode == 3) {
    left = state_.count - 2 * done % state_.count;  // steps of two, twice a period
    left &= ~std::uint64_t{1};
  } else {
    left = (state_.count + modulus - done % modulus) % modulus;  // runs on below zero
  }
  return state_.bcd ? toBcd(static_cast<std::uint32_t>(left)) : static_cast<std::uint16_t>(left);
}

bool PitChannel::output(Ticks now) const {
  Ticks done = passed(now);
  switch (state_.mode) {
    case 0:
      return state_.loaded && done >= state_.count;
    case 1:
      return !state_.counting || done >= state_.count;
    case 2:
      return !state_.counting || done % state_.count != state_.count - 1;
    case 3:
      return !state_.counting || done % state_.count < (state_.count + 1) / 2;
    default:
      return !state_.counting || done != state_.count;
  }
}

std::optional<PitChannel::Ticks> PitChannel::nextRise(Ticks now) const {
  if (!state_.counting || !state_.loaded) return std::nullopt;
  Ticks done = passed(now);
  switch (state_.mode) {
    case 0:
    case 1:
      if (done >= state_.count) return std::nullopt;
      return timeOf(state_.count);
    case 2:
    case 3:
      return timeOf((done / state_.count + 1) * state_.count);
    default:
      if (done > state_.count) return std::nullopt;
      return timeOf(std::uint64_t{state_.count} + 1);
  }
}

void PitChannel::latchCount(Ticks now) {
  if (state_.latchedBytes != 0) return;  // a second latch before the first was read is ignored
  adopt(now);
  state_.latched = value(now);
  state_.latchedBytes = state_.access == 3 ? 2 : 1;
}

void PitChannel::latchStatus(Ticks now) {
  if (state_.statusLatched) return;
  adopt(now);
  bool nullCount = !state_.loaded || state_.nextCount != 0;
  state_.status = static_cast<std::uint8_t>(output(now) << 7 | nullCount << 6 | state_.access << 4 | state_.mode << 1 |
                                            (state_.bcd ? 1 : 0));
  state_.statusLatched = true;
}

std::uint8_t PitChannel::read(Ticks now) {
  adopt(now);
  if (state_.statusLatched) {
    state_.statusLatched = false;
    return state_.status;
  }
  std::uint16_t word = state_.latchedBytes != 0 ? state_.latched : value(now);
  bool high = state_.access == 2;
  if (state_.access == 3) {
    high = state_.readHighNext;
    state_.readHighNext = !high;
  }
  if (state_.latchedBytes != 0) --state_.latchedBytes;
  return static_cast<std::uint8_t>(high ? word >> 8 : word);
}

}  // namespace lodge
