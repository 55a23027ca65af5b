// SPDX-License-Identifier: Apache-2.0
#include "device/rtc.h"

#include <algorithm>
#include <optional>

#include "base/units.h"

namespace lodge {

namespace {
enum Index : unsigned {
  kSecond = 0,
  kSecondAlarm = 1,
  kMinute = 2,
  kMinuteAlarm = 3,
  kHour = 4,
  kHourAlarm = 5,
  kWeekday = 6,
  kDay = 7,
  kMonth = 8,
  kYear = 9,
  kA = 0x0a,
  kB = 0x0b,
  kC = 0x0c,
  kD = 0x0d,
};
constexpr unsigned kTimeRegisters[] = {kSecond, kMinute, kHour, kWeekday, kDay, kMonth, kYear, Rtc::kCenturyIndex};
constexpr std::uint8_t kUpdateInProgress = 0x80;  // A
constexpr std::uint8_t kSet = 0x80, kPeriodic = 0x40, kAlarm = 0x20, kUpdate = 0x10, kSquareWave = 8, kBinary = 4,
                       kHours24 = 2;              // B, and the flags of C
constexpr std::uint8_t kInterruptRequest = 0x80;  // C
constexpr std::uint8_t kValidRam = 0x80;          // D
constexpr std::uint8_t kDontCare = 0xc0;          // in an alarm register
constexpr std::uint8_t kDividerReset = 0x60, kNormalDivider = 0x26, kPm = 0x80;
constexpr Nanoseconds kUpdateWarning = 244'000;  // UIP is set that long before the update (data sheet, "update cycle")
constexpr std::int64_t kSecondsPerDay = 86400;
constexpr std::int64_t kLastSecond = 8'000'000'000;  // in 2223; the clock's nanoseconds end in 2262

std::int64_t secondOf(Nanoseconds t) {
  return t >= 0 ? t / kNanosecondsPerSecond : -1 - (-1 - t) / kNanosecondsPerSecond;
}
}  // namespace

Rtc::Rtc(const Setup& setup)
    : clock_(setup.timers.clock()),
      irq8_(setup.irq8),
      utc_(setup.utc),
      timer_(setup.timers.makeTimer([this] { tick(); })) {
  auto put16 = [this](unsigned index, std::uint64_t value) {
    reg(index) = static_cast<std::uint8_t>(value);
    reg(index + 1) = static_cast<std::uint8_t>(value >> 8);
  };
  reg(kA) = kNormalDivider;
  reg(kB) = kHours24;
  std::uint64_t low = setup.lowMemory;
  std::uint64_t extended = low > 1_MiB ? std::min<std::uint64_t>((low - 1_MiB) / 1024, 0xffff) : 0;
  put16(0x15, std::min<std::uint64_t>(low / 1024, 640));
  put16(0x17, extended);
  put16(0x30, extended);
  put16(0x34, low > 16_MiB ? std::min<std::uint64_t>((low - 16_MiB) / 64_KiB, 0xffff) : 0);
  std::uint64_t high = setup.highMemory / 64_KiB;
  put16(0x5b, high);
  reg(0x5d) = static_cast<std::uint8_t>(high >> 16);
  reg(0x5f) = static_cast<std::uint8_t>(setup.cpus - 1);
  state_.seen = nowLocked();
}

void Rtc::reset() {
  std::lock_guard lock(mutex_);
  reg(kB) &= static_cast<std::uint8_t>(~(kPeriodic | kAlarm | kUpdate | kSquareWave));
  reg(kC) = 0;
  owed_ = 0;
  state_.index = 0;
  state_.seen = nowLocked();
  updateLineLocked();
  scheduleLocked();
}

bool Rtc::runningLocked() const {
  return (reg(kB) & kSet) == 0 && (reg(kA) & kDividerReset) != kDividerReset;
}

Nanoseconds Rtc::nowLocked() const {
  return runningLocked() ? utc_() + state_.offset : state_.held;
}

std::uint8_t Rtc::encodeLocked(unsigned value) const {
  return static_cast<std::uint8_t>((reg(kB) & kBinary) != 0 ? value : value / 10 % 10 << 4 | value % 10);
}

unsigned Rtc::decodeLocked(std::uint8_t value) const {
  return (reg(kB) & kBinary) != 0 ? value : (value >> 4) * 10u + (value & 15u);
}

unsigned Rtc::decodeHourLocked(std::uint8_t value) const {
  if ((reg(kB) & kHours24) != 0) return decodeLocked(value);
  unsigned hour = decodeLocked(value & 0x7f) % 12;
  return (value & kPm) != 0 ? hour + 12 : hour;
}

std::uint8_t Rtc::readPort(unsigned offset) {
  std::lock_guard lock(mutex_);
  if (offset == 0) return 0xff;  // the index is write-only
  unsigned index = state_.index;
  if (runningLocked() && std::ranges::find(kTimeRegisters, index) != std::end(kTimeRegisters)) {
    return timeRegisterLocked(civilFromSeconds(secondOf(nowLocked())), index);
  }
  switch (index) {
    case kA: {
      bool soon = nowLocked() % kNanosecondsPerSecond >= kNanosecondsPerSecond - kUpdateWarning;
      return reg(kA) | (soon && runningLocked() ? kUpdateInProgress : std::uint8_t{0});
    }
    case kC:
      return readRegisterCLocked();
    case kD:
      return kValidRam;
    default:
      return reg(index);
  }
}

std::uint8_t Rtc::timeRegisterLocked(const CivilTime& t, unsigned index) const {
  switch (index) {
    case kSecond:
      return encodeLocked(t.second);
    case kMinute:
      return encodeLocked(t.minute);
    case kWeekday:
      return encodeLocked(t.weekday + 1);
    case kDay:
      return encodeLocked(t.day);
    case kMonth:
      return encodeLocked(t.month);
    case kYear:
      return encodeLocked(static_cast<unsigned>(t.year % 100));
    case kHour: {
      if ((reg(kB) & kHours24) != 0) return encodeLocked(t.hour);
      unsigned hour = t.hour % 12 == 0 ? 12 : t.hour % 12;
      return encodeLocked(hour) | (t.hour >= 12 ? kPm : std::uint8_t{0});
    }
    default:
      return encodeLocked(static_cast<unsigned>(t.year / 100));
  }
}

void Rtc::writePort(unsigned offset, std::uint8_t value) {
  std::lock_guard lock(mutex_);
  if (offset == 0) {
    state_.index = value & 0x7f;  // bit 7 would mask NMIs, of which there are none here
    return;
  }
  switch (state_.index) {
    case kSecond:
    case kMinute:
    case kHour:
    case kWeekday:
    case kDay:
    case kMonth:
    case kYear:
    case kCenturyIndex:
      writeTimeLocked(state_.index, value);
      break;
    case kC:
    case kD:
      break;
    case kA:
      writeRegisterALocked(value);
      break;
    case kB:
      writeRegisterBLocked(value);
      break;
    default:
      collectFlagsLocked();  // before an alarm moves
      reg(state_.index) = value;
      break;
  }
  scheduleLocked();
}

/// What the time registers say. The guest may have written anything; the result is a time that nanoseconds can hold.
Nanoseconds Rtc::timeOfRegistersLocked() const {
  CivilTime t{};
  t.year = decodeLocked(reg(kCenturyIndex)) * 100 + decodeLocked(reg(kYear));
  t.month = decodeLocked(reg(kMonth));
  t.day = decodeLocked(reg(kDay));
  t.hour = decodeHourLocked(reg(kHour));
  t.minute = decodeLocked(reg(kMinute));
  t.second = decodeLocked(reg(kSecond));
  return std::clamp<std::int64_t>(secondsFromCivil(t), 0, kLastSecond) * kNanosecondsPerSecond;
}

void Rtc::fillTimeRegistersLocked() {
  CivilTime t = civilFromSeconds(secondOf(nowLocked()));
  for (unsigned index : kTimeRegisters) reg(index) = timeRegisterLocked(t, index);
}

/// Changes one field of the time. While the clock runs, the others go on from what they are; while it stands, nothing
/// is made of the registers before it runs again, so that their order does not matter.
void Rtc::writeTimeLocked(unsigned index, std::uint8_t value) {
  if (!runningLocked()) {
    reg(index) = value;
    return;
  }
  fillTimeRegistersLocked();
  Nanoseconds now = nowLocked();
  reg(index) = value;
  Nanoseconds changed = timeOfRegistersLocked() + (now - secondOf(now) * kNanosecondsPerSecond);
  state_.offset += changed - now;
  state_.seen = changed;
}

/// After A or B was written: the clock stops with its time, or goes on from it. `before`: its time before that.
void Rtc::setRunningLocked(bool wasRunning, Nanoseconds before, bool afterDividerReset) {
  if (wasRunning == runningLocked()) return;
  if (wasRunning) {
    state_.held = before;
    return fillTimeRegistersLocked();
  }
  Nanoseconds start = timeOfRegistersLocked();
  // "The first update cycle begins one-half second later" when the divider reset ends.
  if (afterDividerReset) start += kNanosecondsPerSecond / 2;
  state_.offset = start - utc_();
  state_.seen = start;
}

void Rtc::writeRegisterALocked(std::uint8_t value) {
  collectFlagsLocked();
  bool wasRunning = runningLocked();
  Nanoseconds before = nowLocked();
  reg(kA) = value & 0x7f;
  owed_ = 0;
  setRunningLocked(wasRunning, before, true);
}

void Rtc::writeRegisterBLocked(std::uint8_t value) {
  collectFlagsLocked();
  bool wasRunning = runningLocked();
  Nanoseconds before = nowLocked();
  if ((value & kSet) != 0) value &= static_cast<std::uint8_t>(~kUpdate);  // "SET clears UIE"
  if (((reg(kB) ^ value) & kPeriodic) != 0) owed_ = 0;
  reg(kB) = value;
  setRunningLocked(wasRunning, before, false);
  updateLineLocked();
}

std::uint8_t Rtc::readRegisterCLocked() {
  collectFlagsLocked();
  std::uint8_t value = reg(kC);
  reg(kC) = 0;
  updateLineLocked();
  scheduleLocked();
  return value;
}

/// Rate selection (table 5), in nanoseconds; 0 for none.
Nanoseconds Rtc::periodLocked() const {
  unsigned rate = reg(kA) & 15u;
  if (rate == 0 || (reg(kA) & kDividerReset) == kDividerReset) return 0;
  if (rate <= 2) rate += 7;
  return (kNanosecondsPerSecond << (rate - 1)) / 32768;
}

/// Whether the alarm goes off in one of these seconds; the alarm's date is every day.
bool Rtc::alarmInLocked(std::int64_t first, std::int64_t last) const {
  auto field = [this](unsigned index, auto decode) -> std::optional<unsigned> {
    if ((reg(index) & kDontCare) == kDontCare) return std::nullopt;
    return decode(reg(index));
  };
  auto number = [this](std::uint8_t v) { return decodeLocked(v); };
  auto second = field(kSecondAlarm, number), minute = field(kMinuteAlarm, number);
  auto hour = field(kHourAlarm, [this](std::uint8_t v) { return decodeHourLocked(v); });
  if (last - first >= kSecondsPerDay) first = last - kSecondsPerDay + 1;
  for (std::int64_t s = first; s <= last; ++s) {
    auto ofDay = static_cast<unsigned>((s % kSecondsPerDay + kSecondsPerDay) % kSecondsPerDay);
    if ((!second || *second == ofDay % 60) && (!minute || *minute == ofDay / 60 % 60) &&
        (!hour || *hour == ofDay / 3600)) {
      return true;
    }
  }
  return false;
}

bool Rtc::countsPeriodsLocked() const {
  return (reg(kB) & kPeriodic) != 0 && periodLocked() != 0;
}

/// Brings the flags of register C up to now.
void Rtc::collectFlagsLocked() {
  if (!runningLocked()) return;
  Nanoseconds now = nowLocked(), before = std::exchange(state_.seen, now);
  if (now < before) return;  // the host's time was set back
  if (Nanoseconds period = periodLocked(); period != 0 && now / period != before / period) {
    constexpr Nanoseconds kPatience = 4 * kNanosecondsPerSecond;
    std::int64_t lost = now / period - before / period - ((reg(kC) & kPeriodic) != 0 ? 0 : 1);
    if (countsPeriodsLocked()) owed_ = std::min(owed_ + lost, kPatience / period);
    reg(kC) |= kPeriodic;
  }
  if (secondOf(now) == secondOf(before)) return;
  reg(kC) |= kUpdate;
  if (alarmInLocked(secondOf(before) + 1, secondOf(now))) reg(kC) |= kAlarm;
}

void Rtc::updateLineLocked() {
  bool asks = (reg(kB) & reg(kC) & (kPeriodic | kAlarm | kUpdate)) != 0;
  reg(kC) = static_cast<std::uint8_t>((reg(kC) & ~kInterruptRequest) | (asks ? kInterruptRequest : 0));
  irq8_.set(asks);
}

/// Arms the timer for the next thing that an enabled interrupt waits for.
void Rtc::scheduleLocked() {
  bool perSecond = (reg(kB) & (kUpdate | kAlarm)) != 0;
  Nanoseconds period = (reg(kB) & kPeriodic) != 0 ? periodLocked() : 0;
  if (!runningLocked() || (!perSecond && period == 0)) return timer_->cancel();
  Nanoseconds now = nowLocked(), wait = kNanosecondsPerSecond;
  if (perSecond) wait = (secondOf(now) + 1) * kNanosecondsPerSecond - now;
  if (period != 0) wait = std::min(wait, (now / period + 1) * period - now);
  if (period != 0 && owed_ != 0 && (reg(kC) & kPeriodic) == 0) wait = std::min(wait, period / 2);
  timer_->arm(clock_.now() + std::max<Nanoseconds>(wait, 1));
}

void Rtc::tick() {
  std::lock_guard lock(mutex_);
  collectFlagsLocked();
  if (owed_ != 0 && (reg(kC) & kPeriodic) == 0 && countsPeriodsLocked()) {
    --owed_;
    reg(kC) |= kPeriodic;
  }
  updateLineLocked();
  scheduleLocked();
}

Rtc::State Rtc::save() const {
  std::lock_guard lock(mutex_);
  return state_;
}

void Rtc::restore(const State& state) {
  std::lock_guard lock(mutex_);
  state_ = state;
  owed_ = 0;
  updateLineLocked();
  scheduleLocked();
}

}  // namespace lodge
