// SPDX-License-Identifier: Apache-2.0
#include "device/hpet.h"

#include <algorithm>

namespace lodge {

namespace {
// Registers (2.3.2) and their bits.
constexpr std::uint64_t kCapabilities = 0, kConfig = 0x10, kStatus = 0x20, kCounter = 0xf0, kFirstTimer = 0x100,
                        kTimerBytes = 0x20;
constexpr std::uint64_t kEnable = 1, kLegacy = 2;
constexpr std::uint64_t kPeriodFemtoseconds = Hpet::kTick * 1'000'000;
constexpr unsigned kTimerConfig = 0, kComparator = 8;
constexpr std::uint64_t kLevel = 1 << 1, kInterrupt = 1 << 2, kPeriodic = 1 << 3, kPeriodicCapable = 1 << 4,
                        kWideCapable = 1 << 5, kSetValue = 1 << 6, kNarrow = 1 << 8;
constexpr unsigned kRouteShift = 9;
constexpr std::uint64_t kRoute = 0x1f << kRouteShift;
constexpr std::uint64_t kTimerWritable = kLevel | kInterrupt | kPeriodic | kSetValue | kNarrow | kRoute;
constexpr std::uint64_t kTimerFixed =
    kPeriodicCapable | kWideCapable | (((1ull << Hpet::kRoutes) - 1) << (32 + Hpet::kFirstRoute));
constexpr std::uint64_t kNarrowMask = 0xffff'ffff;
/// How far behind the counter a comparator still matches at once.
constexpr std::uint64_t kLate = 10'000'000 / Hpet::kTick;
/// Farther in the future than this is never.
constexpr std::uint64_t kHorizon = std::uint64_t{1} << 52;

std::uint64_t merge(std::uint64_t before, std::uint64_t value, std::uint64_t mask) {
  return (before & ~mask) | (value & mask);
}
std::uint64_t widthOf(const Hpet::TimerState& timer) {
  return (timer.config & kNarrow) != 0 ? kNarrowMask : ~std::uint64_t{0};
}
/// The counter may turn over, so that only distances count.
bool isDue(const Hpet::TimerState& timer, std::uint64_t now) {
  return timer.match && static_cast<std::int64_t>(now - *timer.match) >= 0;
}
}  // namespace

Hpet::Hpet(const Setup& setup)
    : setup_(setup), clock_(setup.timers.clock()), timer_(setup.timers.makeTimer([this] { tick(); })) {}

bool Hpet::enabledLocked() const {
  return (state_.config & kEnable) != 0;
}

std::uint64_t Hpet::counterLocked() const {
  if (!enabledLocked()) return state_.counter;
  return state_.counter + static_cast<std::uint64_t>(clock_.now() / kTick - since_ / kTick);
}

// Accesses are of 4 or 8 aligned bytes (2.3.2); others read what lies there and write nothing.
std::uint64_t Hpet::read(std::uint64_t offset, unsigned size) {
  std::lock_guard lock(mutex_);
  catchUpLocked();
  std::uint64_t value = registerLocked(offset & ~7ull) >> (8 * (offset & 7));
  return size >= 8 ? value : value & ((1ull << (8 * size)) - 1);
}

void Hpet::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
  if (size < 4 || offset % size != 0) return;
  std::lock_guard lock(mutex_);
  catchUpLocked();
  unsigned shift = 8 * (offset & 7);
  writeLocked(offset & ~7ull, value << shift, (size == 8 ? ~0ull : kNarrowMask) << shift);
  updateLinesLocked();
  scheduleLocked();
}

std::uint64_t Hpet::registerLocked(std::uint64_t offset) const {
  switch (offset) {
    case kCapabilities:
      return kPeriodFemtoseconds << 32 | kId;
    case kConfig:
      return state_.config;
    case kStatus:
      return state_.status;
    case kCounter:
      return counterLocked();
    default:
      break;
  }
  if (offset < kFirstTimer || offset >= kFirstTimer + kTimers * kTimerBytes) return 0;
  const TimerState& timer = state_.timers[(offset - kFirstTimer) / kTimerBytes];
  switch (offset % kTimerBytes) {
    case kTimerConfig:
      return timer.config | kTimerFixed;
    case kComparator:
      return timer.comparator & widthOf(timer);
    default:
      return 0;
  }
}

void Hpet::writeLocked(std::uint64_t offset, std::uint64_t value, std::uint64_t mask) {
  if (offset >= kFirstTimer && offset < kFirstTimer + kTimers * kTimerBytes) {
    auto number = static_cast<unsigned>((offset - kFirstTimer) / kTimerBytes);
    return writeTimerLocked(number, offset % kTimerBytes, value, mask);
  }
  if (offset == kConfig) writeConfigLocked(merge(state_.config, value, mask) & (kEnable | kLegacy));
  if (offset == kStatus) state_.status &= static_cast<std::uint32_t>(~(value & mask));
  if (offset == kCounter && !enabledLocked()) state_.counter = merge(state_.counter, value, mask);
}

void Hpet::writeConfigLocked(std::uint64_t value) {
  std::uint64_t changed = state_.config ^ value;
  if ((changed & kEnable) != 0) {
    state_.counter = counterLocked();
    since_ = clock_.now();
  }
  if ((changed & kLegacy) != 0) {
    setup_.irq0.set(false);
    setup_.irq8.set(false);
    setup_.onLegacyReplacement((value & kLegacy) != 0);
  }
  state_.config = value;
  if ((changed & kEnable) != 0) {
    for (TimerState& timer : state_.timers) planLocked(timer, false);
  }
}

void Hpet::writeTimerLocked(unsigned number, unsigned offset, std::uint64_t value, std::uint64_t mask) {
  TimerState& timer = state_.timers[number];
  if (offset == kComparator) return writeComparatorLocked(timer, value, mask);
  if (offset != kTimerConfig) return;
  InterruptLine* before = lineLocked(number);
  std::uint64_t config = merge(timer.config, value, mask) & kTimerWritable;
  std::uint64_t route = (config & kRoute) >> kRouteShift;
  // An input that it has not reads back as it was.
  if (route < kFirstRoute || route >= kFirstRoute + kRoutes) config = merge(config, timer.config, kRoute);
  bool otherWidth = ((config ^ timer.config) & (kNarrow | kPeriodic)) != 0;
  timer.config = config;
  if ((config & kLevel) == 0) state_.status &= ~(1u << number);
  if (otherWidth) planLocked(timer, false);
  if (before && before != lineLocked(number)) before->set(false);
}

// A periodic timer's comparator moves on by what was written last; with VAL_SET it is what is written, too (2.3.9.2.2).
void Hpet::writeComparatorLocked(TimerState& timer, std::uint64_t value, std::uint64_t mask) {
  if ((timer.config & kPeriodic) != 0) {
    timer.period = merge(timer.period, value, mask) & widthOf(timer);
    if ((timer.config & kSetValue) == 0) return;
    timer.config &= ~kSetValue;
  }
  timer.comparator = merge(timer.comparator, value, mask);
  planLocked(timer, true);
}

/// When the timer matches next, from its comparator and the counter.
void Hpet::planLocked(TimerState& timer, bool mayBeLate) const {
  std::uint64_t width = widthOf(timer), now = counterLocked();
  std::uint64_t ahead = (timer.comparator - now) & width, behind = (now - timer.comparator) & width;
  if (mayBeLate && behind < kLate) ahead = 0;
  timer.match = ahead < kHorizon ? std::optional(now + ahead) : std::nullopt;
}

void Hpet::matchLocked(unsigned number, std::uint64_t now) {
  TimerState& timer = state_.timers[number];
  timer.lastInterrupt = clock_.now();
  if ((timer.config & kPeriodic) != 0 && timer.period != 0) {
    std::uint64_t missed = (now - *timer.match) / timer.period;
    *timer.match += (missed + 1) * timer.period;
    timer.comparator = *timer.match & widthOf(timer);
    if (timer.period >= kHorizon) timer.match.reset();
  } else if ((timer.config & kNarrow) != 0) {
    *timer.match += kNarrowMask + 1;
  } else {
    timer.match.reset();
  }
  if ((timer.config & kLevel) != 0) {
    state_.status |= 1u << number;
  } else if (InterruptLine* line = lineLocked(number); line && (timer.config & kInterrupt) != 0) {
    line->set(false);
    line->set(true);
  }
}

/// What has matched since the last time.
void Hpet::catchUpLocked() {
  if (!enabledLocked()) return;
  std::uint64_t now = counterLocked();
  for (unsigned number = 0; number < kTimers; ++number) {
    const TimerState& timer = state_.timers[number];
    bool early = (timer.config & kInterrupt) != 0 && clock_.now() < timer.lastInterrupt + kMinimumPeriod;
    bool first = timer.lastInterrupt == 0;
    if (isDue(timer, now) && (first || !early)) matchLocked(number, now);
  }
}

InterruptLine* Hpet::lineLocked(unsigned number) const {
  if ((state_.config & kLegacy) != 0 && number < 2) return number == 0 ? &setup_.irq0 : &setup_.irq8;
  std::uint64_t route = (state_.timers[number].config & kRoute) >> kRouteShift;
  return route < kFirstRoute ? nullptr : setup_.routes[route - kFirstRoute];
}

// Level-triggered ones: timers may share an input.
void Hpet::updateLinesLocked() {
  for (unsigned number = 0; number < kTimers; ++number) {
    InterruptLine* line = lineLocked(number);
    if (!line || (state_.timers[number].config & kLevel) == 0) continue;
    bool asked = false;
    for (unsigned other = 0; other < kTimers; ++other) {
      bool pending = (state_.status >> other & 1) != 0 && (state_.timers[other].config & kInterrupt) != 0;
      asked |= pending && enabledLocked() && lineLocked(other) == line;
    }
    line->set(asked);
  }
}

void Hpet::scheduleLocked() {
  std::optional<Nanoseconds> next;
  std::uint64_t now = counterLocked();
  for (const TimerState& timer : state_.timers) {
    if (!enabledLocked() || !timer.match || (timer.config & kInterrupt) == 0) continue;
    std::uint64_t ahead = isDue(timer, now) ? 0 : *timer.match - now;
    auto at = static_cast<Nanoseconds>(clock_.now() / kTick + ahead) * kTick;
    if (timer.lastInterrupt != 0) at = std::max(at, timer.lastInterrupt + kMinimumPeriod);
    next = next ? std::min(*next, at) : at;
  }
  if (next) {
    timer_->arm(*next);
  } else {
    timer_->cancel();
  }
}

void Hpet::tick() {
  std::lock_guard lock(mutex_);
  catchUpLocked();
  updateLinesLocked();
  scheduleLocked();
}

void Hpet::reset() {
  restore(State{});
}

Hpet::State Hpet::save() const {
  std::lock_guard lock(mutex_);
  State state = state_;
  state.counter = counterLocked();
  return state;
}

bool Hpet::isPossible(const State& state) {
  if ((state.config & ~(kEnable | kLegacy)) != 0 || state.status >> kTimers != 0) return false;
  bool enabled = (state.config & kEnable) != 0;  // matches of a counter that stands are found anew
  for (const TimerState& timer : state.timers) {
    std::uint64_t route = (timer.config & kRoute) >> kRouteShift;
    if ((timer.config & ~kTimerWritable) != 0) return false;
    if (route != 0 && (route < kFirstRoute || route >= kFirstRoute + kRoutes)) return false;
    std::uint64_t ahead = timer.match.value_or(state.counter) - state.counter;
    if (enabled && static_cast<std::int64_t>(ahead) >= static_cast<std::int64_t>(kHorizon)) return false;
  }
  return true;
}

void Hpet::restore(const State& state) {
  std::lock_guard lock(mutex_);
  for (unsigned number = 0; number < kTimers; ++number) {
    if (InterruptLine* line = lineLocked(number)) line->set(false);
  }
  bool legacy = (state.config & kLegacy) != 0;
  if (legacy != ((state_.config & kLegacy) != 0)) setup_.onLegacyReplacement(legacy);
  state_ = state;
  since_ = clock_.now();
  for (TimerState& timer : state_.timers) timer.lastInterrupt = 0;
  updateLinesLocked();
  scheduleLocked();
}

}  // namespace lodge
