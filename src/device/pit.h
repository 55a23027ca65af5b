// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>

#include "base/clock.h"
#include "device/interrupt.h"
#include "device/io_window.h"
#include "device/pit_channel.h"
#include "x86/chip_registers.h"

namespace lodge {

/// The 8254 timer of a PC: counter 0 is IRQ 0, counter 1 once refreshed memory, counter 2 drives the speaker and is
/// gated and seen through port 0x61. Ports 0x40-0x43 and 0x61. Any thread.
///
/// Periodic ticks that find the one before still waiting for the CPU, or that this thread comes too late for, are owed
/// and follow between the next ones: guests that count ticks keep time on a busy host.
class Pit {
 public:
  /// Interrupts are not raised more often than this, whatever count the guest writes.
  static constexpr Nanoseconds kMinimumPeriod = 50'000;
  /// What is owed is forgotten beyond this.
  static constexpr Nanoseconds kPatience = 4 * kNanosecondsPerSecond;

  Pit(TimerFactory& timers, InterruptLine& irq0);

  IoDevice& counters() { return counterPorts_; }      ///< 4 bytes at 0x40
  IoDevice& systemControl() { return controlPort_; }  ///< 1 byte at 0x61
  void reset();

  using State = x86::PitRegisters;
  State save() const;
  void restore(const State& state);
  /// An engine gets the state, and until restore() nothing ticks here. `owes`: a tick is due, or nearer than the one
  /// before, of an engine that begins a period anew.
  State surrender(bool& owes);

 private:
  std::uint8_t readCounter(unsigned offset);
  void writeCounter(unsigned offset, std::uint8_t value);
  std::uint8_t readControl(unsigned);
  void writeControl(unsigned, std::uint8_t value);
  void writeControlWordLocked(std::uint8_t value, PitChannel::Ticks now);
  void scheduleLocked(Nanoseconds now);
  void countRisesLocked(Nanoseconds now);
  Nanoseconds periodLocked() const;
  void tick();
  State saveLocked() const;

  const Clock& clock_;
  InterruptLine& irq0_;
  ByteWindow<Pit, &Pit::readCounter, &Pit::writeCounter> counterPorts_{*this};
  ByteWindow<Pit, &Pit::readControl, &Pit::writeControl> controlPort_{*this};
  mutable std::mutex mutex_;
  std::array<PitChannel, 3> channels_;
  std::uint8_t control_ = 0;      ///< port 0x61, the bits that are kept
  Nanoseconds nextRise_ = 0;      ///< of counter 0's output; 0 for none
  Nanoseconds lastRise_ = 0;      ///< that the guest had
  std::uint64_t owed_ = 0;        ///< rises that it has not had yet
  std::unique_ptr<Timer> timer_;  // last: its destructor waits for tick()
};

}  // namespace lodge
