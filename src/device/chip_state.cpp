// SPDX-License-Identifier: Apache-2.0
#include "device/chip_state.h"

namespace lodge {

using state::Archive;

namespace {

/// No time of a machine comes near: what is added to one does not overflow.
constexpr Nanoseconds kMostTime = Nanoseconds{1} << 60;

bool isTime(Nanoseconds time) {
  return time >= 0 && time < kMostTime;
}

void transferChannel(Archive& a, PitChannel::State& s, PitChannel::Ticks now) {
  a(s.access, s.mode, s.bcd, s.gate, s.loaded, s.counting, s.highByteNext, s.readHighNext, s.lowByte, s.latchedBytes,
    s.latched, s.statusLatched, s.status, s.count, s.nextCount, s.elapsed, s.since);
  constexpr std::uint32_t kMost = 0x10000;  // in BCD, too, with digits that are none
  a.require(s.access >= 1 && s.access <= 3 && s.mode <= 5 && s.latchedBytes <= 2, "a PIT channel's mode");
  a.require(s.count >= 1 && s.count <= kMost && s.nextCount <= kMost, "a PIT channel's count");
  a.require(s.since <= now && s.elapsed <= PitChannel::Ticks{1} << 60, "a PIT channel's time");
}

}  // namespace

void transfer(Archive& a, Pic::State& s) {
  for (Pic::Chip& c : s) {
    a(c.irr, c.imr, c.isr, c.levels, c.elcr, c.vectorBase, c.lowestPriority, c.initializing, c.initialized, c.needIcw4,
      c.single, c.levelMode, c.readIsr, c.poll, c.specialMask, c.specialFullyNested, c.autoEoi, c.rotateOnAutoEoi);
    a.require(c.lowestPriority <= 7, "the 8259A's lowest priority");
    a.require(c.initializing == 0 || (c.initializing >= 2 && c.initializing <= 4), "the 8259A's initialization");
    a.require(c.vectorBase % 8 == 0, "the 8259A's vectors");
  }
}

void transfer(Archive& a, IoApic::State& s) {
  a(s.select, s.id, s.levels, s.entries);
  a.require(s.levels >> IoApic::kPins == 0, "the I/O APIC's inputs");
}

void transfer(Archive& a, Pit::State& s) {
  a(s.savedAt);
  a.require(s.savedAt < PitChannel::Ticks{1} << 60, "the PIT's time");
  for (PitChannel::State& channel : s.channels) transferChannel(a, channel, s.savedAt);
  a(s.control);
}

void transfer(Archive& a, Rtc::State& s) {
  a(s.cmos, s.index, s.offset, s.held, s.seen);
  a.require(s.index < s.cmos.size(), "the RTC's index");
  // A guest may set it to any time that fits; none is so far away that the host's time added to it does not.
  constexpr Nanoseconds kLeast = -4'000'000'000 * kNanosecondsPerSecond, kMost = 7'400'000'000 * kNanosecondsPerSecond;
  a.require(s.offset >= kLeast && s.offset <= kMost && s.held >= 0 && s.seen >= kLeast, "the RTC's time");
}

void transfer(Archive& a, Hpet::State& s) {
  a(s.config, s.status, s.counter);
  for (Hpet::TimerState& t : s.timers) {
    a(t.config, t.comparator, t.period, t.match, t.lastInterrupt);
    a.require(isTime(t.lastInterrupt), "an HPET timer's time");
  }
  a.require(Hpet::isPossible(s), "the HPET's timers");
}

void transfer(Archive& a, AcpiPm::State& s) {
  a(s.status, s.enable, s.control, s.gpeStatus, s.gpeEnable, s.smiEnable);
}

void transfer(Archive& a, Uart::State& s) {
  a(s.ier, s.fcr, s.lcr, s.mcr, s.scratch, s.divisor, s.modemDelta, s.overrun, s.transmitterEmptied, s.received,
    s.fifo);
  a.require(s.received <= Uart::kFifoBytes, "the serial port's FIFO");
  if (a.version() >= 2) a(s.waiting);
  a.require(s.waiting.size() <= Uart::kBacklogBytes, "what waits at the serial port");
}

void transfer(Archive& a, I8042::State& s) {
  a(s.control, s.outputPort, s.data, s.status, s.pendingCommand);
}

void transfer(Archive& a, LocalApic::State& s) {
  a(s.base, s.icr, s.id, s.logicalDestination, s.destinationFormat, s.spurious, s.errorStatus, s.pendingErrors,
    s.taskPriority, s.lvt, s.irr, s.isr, s.tmr);
  a(s.timer.divide, s.timer.initialCount, s.timer.mode, s.timer.tscDeadline, s.timer.remaining);
  a.require(s.timer.mode <= LocalApicTimer::Mode::tscDeadline && s.timer.divide <= 15, "the local APIC timer's mode");
  a.require(s.timer.remaining == LocalApicTimer::kNever || isTime(s.timer.remaining), "the local APIC timer's time");
  bool counts = s.timer.mode != LocalApicTimer::Mode::tscDeadline;
  a.require(s.timer.remaining == LocalApicTimer::kNever || !counts || s.timer.initialCount != 0,
            "the local APIC timer's count");
  constexpr std::uint64_t kX2Apic = 1 << 10, kEnable = 1 << 11;
  a.require((s.base & (kX2Apic | kEnable)) != kX2Apic, "the local APIC's base");
  a.require((s.irr[0] & 0xffff) == 0 && (s.isr[0] & 0xffff) == 0, "the local APIC's vectors");
}

}  // namespace lodge
