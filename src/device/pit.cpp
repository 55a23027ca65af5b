// SPDX-License-Identifier: Apache-2.0
#include "device/pit.h"

#include <algorithm>

namespace lodge {

namespace {
constexpr std::uint8_t kGate2 = 1, kControlKept = 0x0f, kOutput2 = 0x20, kRefresh = 0x10;
using Wide = unsigned __int128;

PitChannel::Ticks ticksAt(Nanoseconds time) {
  return static_cast<PitChannel::Ticks>(Wide(time) * PitChannel::kHz / kNanosecondsPerSecond);
}
/// The first nanosecond of a tick.
Nanoseconds timeOf(PitChannel::Ticks tick) {
  return static_cast<Nanoseconds>((Wide(tick) * kNanosecondsPerSecond + PitChannel::kHz - 1) / PitChannel::kHz);
}

constexpr Nanoseconds kRefreshPeriod = 15'085;  // half a period of counter 1 as PCs set it up
}  // namespace

Pit::Pit(TimerFactory& timers, InterruptLine& irq0)
    : clock_(timers.clock()), irq0_(irq0), timer_(timers.makeTimer([this] { tick(); })) {
  channels_[2].setGate(false, 0);
}

void Pit::reset() {
  std::lock_guard lock(mutex_);
  PitChannel::Ticks now = ticksAt(clock_.now());
  for (auto& channel : channels_) channel = PitChannel{};
  channels_[2].setGate(false, now);
  control_ = 0;
  owed_ = 0;
  scheduleLocked(clock_.now());
  irq0_.set(false);
}

/// Of counter 0's rises; 0 if they do not repeat.
Nanoseconds Pit::periodLocked() const {
  unsigned mode = channels_[0].mode();
  return mode == 2 || mode == 3 ? timeOf(channels_[0].state().count) : 0;
}

/// The output of counter 0 follows the guest's writes at once, and the clock by timer.
void Pit::scheduleLocked(Nanoseconds now) {
  auto next = channels_[0].nextRise(ticksAt(now));
  nextRise_ = next ? timeOf(*next) : 0;
  if (nextRise_ == 0 && owed_ == 0) return timer_->cancel();
  // A machine that gets a fraction of the host's processor has all its ticks in that fraction of the time.
  constexpr Nanoseconds kCatchUp = 16;
  Nanoseconds period = periodLocked(), again = now + std::max(period / kCatchUp, kMinimumPeriod);
  bool rises = nextRise_ != 0 && period >= kMinimumPeriod;
  Nanoseconds at = owed_ == 0 ? nextRise_ : rises ? std::min(nextRise_, again) : again;
  timer_->arm(std::max(at, lastRise_ + kMinimumPeriod));
}

void Pit::countRisesLocked(Nanoseconds now) {
  if (nextRise_ == 0 || now < nextRise_) return;
  Nanoseconds period = periodLocked();
  if (period < kMinimumPeriod) {
    owed_ = 1;
  } else {
    owed_ += 1 + static_cast<std::uint64_t>((now - nextRise_) / period);
    owed_ = std::min(owed_, static_cast<std::uint64_t>(kPatience / period));
  }
  channels_[0].adopt(ticksAt(now));
}

void Pit::tick() {
  std::lock_guard lock(mutex_);
  Nanoseconds now = clock_.now();
  countRisesLocked(now);
  if (owed_ != 0 && now >= lastRise_ + kMinimumPeriod && !irq0_.waits()) {
    --owed_;
    lastRise_ = now;
    irq0_.set(false);  // the low part of the period, of which nobody needs the length
    irq0_.set(true);
  }
  scheduleLocked(now);
}

std::uint8_t Pit::readCounter(unsigned offset) {
  std::lock_guard lock(mutex_);
  return offset < 3 ? channels_[offset].read(ticksAt(clock_.now())) : 0xff;  // the control word is write-only
}

void Pit::writeCounter(unsigned offset, std::uint8_t value) {
  std::lock_guard lock(mutex_);
  Nanoseconds time = clock_.now();
  PitChannel::Ticks now = ticksAt(time);
  constexpr std::uint8_t kSelect = 0xc0, kAccess = 0x30;
  bool programs = offset == 0 || (offset == 3 && (value & kSelect) == 0 && (value & kAccess) != 0);
  if (offset == 3) {
    writeControlWordLocked(value, now);
  } else {
    channels_[offset].write(value, now);
  }
  if (!programs) return;
  owed_ = 0;
  irq0_.set(channels_[0].output(now));
  scheduleLocked(time);
}

void Pit::writeControlWordLocked(std::uint8_t value, PitChannel::Ticks now) {
  unsigned select = value >> 6;
  if (select < 3) {
    if ((value & 0x30) == 0) return channels_[select].latchCount(now);
    return channels_[select].setControl(value, now);
  }
  for (unsigned n = 0; n < 3; ++n) {  // read-back command: bits 5 and 4 are active low
    if ((value >> (n + 1) & 1) == 0) continue;
    if ((value & 0x20) == 0) channels_[n].latchCount(now);
    if ((value & 0x10) == 0) channels_[n].latchStatus(now);
  }
}

std::uint8_t Pit::readControl(unsigned) {
  std::lock_guard lock(mutex_);
  Nanoseconds now = clock_.now();
  std::uint8_t value = control_;
  if (channels_[2].output(ticksAt(now))) value |= kOutput2;
  if (now / kRefreshPeriod % 2 != 0) value |= kRefresh;
  return value;
}

void Pit::writeControl(unsigned, std::uint8_t value) {
  std::lock_guard lock(mutex_);
  control_ = value & kControlKept;
  channels_[2].setGate((value & kGate2) != 0, ticksAt(clock_.now()));
}

Pit::State Pit::saveLocked() const {
  return {{channels_[0].state(), channels_[1].state(), channels_[2].state()}, control_, ticksAt(clock_.now())};
}

Pit::State Pit::save() const {
  std::lock_guard lock(mutex_);
  return saveLocked();
}

Pit::State Pit::surrender(bool& owes) {
  std::lock_guard lock(mutex_);
  Nanoseconds now = clock_.now(), period = periodLocked();
  countRisesLocked(now);
  State state = saveLocked();
  auto next = channels_[0].nextRise(ticksAt(now));
  owes = owed_ != 0 || (period != 0 && next && timeOf(*next) - now <= period / 2);
  owed_ = 0;
  nextRise_ = 0;
  timer_->cancel();
  irq0_.set(false);
  return state;
}

void Pit::restore(const State& state) {
  std::lock_guard lock(mutex_);
  PitChannel::Ticks now = ticksAt(clock_.now());
  for (unsigned n = 0; n < 3; ++n) {
    PitChannel::State channel = state.channels[n];
    bool untouched = !channel.loaded && channel.since == 0;
    // As old as it was; in a clock that was set back, what does not fit is counted as over.
    PitChannel::Ticks age = state.savedAt - channel.since;
    channel.since = now - std::min(age, now);
    if (channel.counting && age > now) channel.elapsed += age - now;
    if (untouched) channel.since = 0;
    channels_[n].restore(channel);
  }
  control_ = state.control;
  owed_ = 0;
  scheduleLocked(clock_.now());
}

}  // namespace lodge
